"""Returns, raises or waits as it is told."""

import json
import os
import sys
import time

import numpy as np

CALLS = []


def init():
    print("init() prints")
    CALLS.append("init")


def run(data):
    asked = json.loads(data)
    what = asked.get("what")
    if what == "echo":
        return asked["value"]
    if what == "text":
        return data
    if what == "calls":
        return CALLS
    if what == "wait":
        time.sleep(30)
    if what == "raise":
        raise RuntimeError("as told")
    if what == "raise a timeout":
        raise TimeoutError("as told")
    if what == "where":
        return {
            "cwd": os.path.relpath(os.getcwd(), os.environ["AML_APP_ROOT"]),
            "model": os.path.relpath(os.environ["AZUREML_MODEL_DIR"], os.environ["AML_APP_ROOT"]),
            "absolute": os.path.isabs(os.environ["AZUREML_MODEL_DIR"]),
            "files": os.listdir(os.environ["AZUREML_MODEL_DIR"]),
            "entry": os.environ["AZUREML_ENTRY_SCRIPT"],
            "source": os.environ["AZUREML_SOURCE_DIRECTORY"],
            "path": [os.environ["AML_APP_ROOT"] in sys.path, os.path.dirname(__file__) in sys.path],
            "file": os.path.relpath(__file__, os.environ["AML_APP_ROOT"]),
            "name": __name__,
        }
    return {
        "none": None,
        "number": 3,
        "float": 0.25,
        "tuple": (1, 2),
        "nested": {"a": [1, {"b": None}]},
        "unicode": "Zürich 數字",
        "nan": float("nan"),
        "array": np.zeros(3),
        "float32": np.float32(1),
        "list of float32": [np.float32(1)],
        "bytes": b"abc",
        "set": {1},
        "keys": {1: "one"},
    }[what]
