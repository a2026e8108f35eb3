"""Checks of the deployment chapter, each against the fault that it is about."""
