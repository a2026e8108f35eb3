"""Many healthy runs in a row: what is well has to be called well, every time."""
