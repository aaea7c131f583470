"""What runs under governance: agents and their workloads."""
