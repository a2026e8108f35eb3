"""A release, and its deployment into a state folder: the checkout that the services run from, and the deploy log."""
