"""The network chapter, broken for real."""
