"""Promises to the user, each kept on a real system."""
