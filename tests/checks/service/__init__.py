"""Tests of the service chapter: services are broken for real."""
