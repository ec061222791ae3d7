"""Run a Chainer script as ``python SCRIPT`` would with the compatibility layer and no more."""

import runpy
import sys

import trainer.runtime.compat.auto  # noqa: F401

sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
