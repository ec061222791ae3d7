"""Following a run on a terminal, or line by line where standard error is none."""
