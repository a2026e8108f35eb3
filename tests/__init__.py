"""Proof that the suite itself works."""
