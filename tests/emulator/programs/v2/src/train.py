"""A training script of a second, as samples for SDK v2 write it: arguments, an input, a named output, MLflow."""

import argparse
import os
from pathlib import Path

import mlflow

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--data", default="")
parser.add_argument("--out", default="")
arguments = parser.parse_args()

print("greeting", os.environ.get("GREETING"))
mlflow.log_param("lr", arguments.lr)
for epoch in range(arguments.epochs):
    mlflow.log_metric("Accuracy", 1 - arguments.lr / (epoch + 1), step=epoch)
    print(f"epoch {epoch + 1}", flush=True)
Path("outputs").mkdir(exist_ok=True)
Path("outputs/model.txt").write_text(f"lr={arguments.lr}")
if arguments.data:
    number = int(Path(arguments.data, "numbers.txt").read_text())
    mlflow.log_metrics({"Number": number, "Twice": 2 * number})
if arguments.out:
    Path(arguments.out, "result é.txt").write_text("named")
    mlflow.log_artifact("outputs/model.txt", "copies")
