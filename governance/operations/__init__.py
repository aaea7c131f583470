"""Use cases, one transaction each: gather, let the core decide, apply."""
