"""Measurements of this program beside its peers. ``python -m bench --help``."""
