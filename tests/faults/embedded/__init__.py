"""Faults of the embedded demo."""
