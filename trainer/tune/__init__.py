"""Studies: many runs of one job, each with its own values of the script's flags, and the best of them registered."""
