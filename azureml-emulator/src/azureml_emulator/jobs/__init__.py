"""Running submitted jobs as processes of this machine."""
