"""What governance costs, measured on real servers and real processes: see docs/performance.md."""
