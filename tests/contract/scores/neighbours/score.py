"""Imports the module beside it, in init()."""

import json


def init():
    global double
    from helper import double


def run(data):
    return double(json.loads(data))
