"""Drills on the live fleet: the actions they run, how these reach each worker, and the two exercises themselves."""
