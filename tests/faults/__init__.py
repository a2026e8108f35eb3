"""The fault catalogue: how AlloDoc breaks for real, and the one cause that the verdict has to name."""
