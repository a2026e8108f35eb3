"""What runs the services of a target, behind one interface."""
