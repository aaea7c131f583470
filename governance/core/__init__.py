"""The pure core: frozen values in, values out. No clock, no IO, no randomness."""
