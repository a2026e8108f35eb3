"""Proof that the demo is what it says."""
