"""The log chapter, broken for real."""
