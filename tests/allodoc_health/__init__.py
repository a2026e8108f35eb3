"""Proof that the engine works."""
