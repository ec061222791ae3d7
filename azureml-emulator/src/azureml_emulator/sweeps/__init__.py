"""HyperDrive: sampling, early termination, and the sweep that drives both."""
