"""Tests of the checks, one folder a chapter."""
