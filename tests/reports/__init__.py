"""Proof that the outputs work."""
