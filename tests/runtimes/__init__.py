"""Tests of the runtimes, and of finding services in them."""
