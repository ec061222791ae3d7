"""Lacks run()."""


def init():
    pass
