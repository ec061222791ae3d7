"""A training script of seconds: logs metrics, writes a model."""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from azureml.core.run import Run

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--batchsize", type=int, default=128)
parser.add_argument("--output_dir", default="./outputs")
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--fail", action="store_true")
parser.add_argument("--sleep", type=float, default=0.0)
arguments = parser.parse_args()

run = Run.get_context(allow_offline=False)
run.log("Batch size", arguments.batchsize)
for epoch in range(arguments.epochs):
    accuracy = 1.0 - arguments.lr / (epoch + 1)
    run.log("Accuracy", accuracy)
    print(f"epoch {epoch + 1} accuracy {accuracy:.3f}", flush=True)
    time.sleep(arguments.sleep)
if arguments.fail:
    raise RuntimeError("asked to fail")
Path(arguments.output_dir).mkdir(parents=True, exist_ok=True)
np.savez(Path(arguments.output_dir, "model.npz"), **{"l1/W": np.arange(6.0).reshape(2, 3)})
print("python", sys.executable, "done")
