"""Train Chainer models on this machine or on Azure ML with the same command.

This file travels with every job, beside ``trainer.runtime``, so it imports nothing.
"""

__version__ = "0.1.0"
