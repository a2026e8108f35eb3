"""What comes out of a run: terminal, snapshot, HTML. Reports never probe."""
