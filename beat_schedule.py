"""Every periodic job of the fleet: its cadence and why, nothing else."""
