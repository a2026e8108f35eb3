"""Tests of the database chapter: PostgreSQL is broken for real."""
