"""What a run costs, as ratios measured in one go on this machine: `make bench`."""
