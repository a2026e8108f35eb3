"""The authentication chapter, broken for real."""
