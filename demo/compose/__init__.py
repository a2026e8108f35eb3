"""The guide's own stack as a compose file, and the images that it is made of."""
