"""Faults of the guide's own stack, in containers."""
