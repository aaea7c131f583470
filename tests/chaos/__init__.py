"""A long seeded mix of work and faults on a real fleet: `python -m tests.chaos`."""
