"""A complete small AlloDoc on loopback: PostgreSQL, Redis, a Node backend and nginx, without root and without Docker.

``python -m demo up`` starts it, ``python -m demo down`` takes it down. It needs Linux. See ``demo/state.py`` for the
files it keeps.
"""
