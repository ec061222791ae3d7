"""Trains a multilayer perceptron on handwritten digits with Chainer.

    python chainer_mnist.py --epochs 10 --batchsize 128 --output_dir ./outputs

runs it here; ``trainer run`` runs the same file as a job, on this machine or on Azure ML. It writes
``model.npz`` (the network's parameters) and, after every epoch, ``checkpoint.npz`` (all there is to
continue from) into the output folder.
"""
# ruff: noqa: E402, N812, T201  (Chainer must be importable first; F and L are Chainer's own idiom)

import argparse
import sys
from pathlib import Path

from trainer.runtime import compat

compat.apply()  # Chainer's last release does not import on today's Python and NumPy without it

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer import training
from chainer.training import extensions

from trainer.runtime import datasets, devices, npz, reporting, threads
from trainer.runtime.faults import RuntimeFault
from trainer.runtime.training.checkpoint import Checkpoint, checksum, resume
from trainer.runtime.training.evaluation import ClassifierEvaluator
from trainer.runtime.training.flags import fraction, positive_float, positive_int, seed
from trainer.runtime.training.iterator import ArrayIterator, unit_range
from trainer.runtime.training.metrics import Metrics, Progress
from trainer.runtime.training.updater import ReplayUpdater

# Name in the run: key in Chainer's report.
METRICS = {
    "Accuracy": "validation/main/accuracy",
    "Loss": "main/loss",
    "Validation loss": "validation/main/loss",
}


class MLP(chainer.Chain):  # type: ignore[misc]
    """784 pixels, two hidden layers with ReLU, one score a class."""

    def __init__(self, n_in: int, n_units: int, n_out: int) -> None:
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(n_in, n_units)
            self.l2 = L.Linear(n_units, n_units)
            self.l3 = L.Linear(n_units, n_out)

    def forward(self, x: chainer.Variable) -> chainer.Variable:
        """Scores of shape (B, n_out) for images of shape (B, n_in)."""
        h1 = F.relu(self.l1(x))
        h2 = F.relu(self.l2(h1))
        return self.l3(h2)


def parse_arguments() -> argparse.Namespace:
    """The command line; a wrong one ends the program with exit status 2."""
    parser = argparse.ArgumentParser(description="Train a multilayer perceptron on handwritten digits.")
    add = parser.add_argument
    add("--batchsize", "-b", type=positive_int, default=128, help="images a batch (default: 128)")
    add("--epochs", "-e", type=positive_int, default=20, help="passes over the data (default: 20)")
    add("--units", type=positive_int, default=100, help="units a hidden layer (default: 100)")
    add("--lr", type=positive_float, default=0.01, help="learning rate (default: 0.01)")
    add("--momentum", type=fraction, default=0.9, help="of the SGD (default: 0.9)")
    add("--seed", type=seed, default=0, help="of weights and order (default: 0)")
    add("--dataset", default="auto", help="auto, a name, or a folder of four IDX files")
    add("--device", default=None, help="auto, cpu, cuda or cuda:N (default: auto)")
    add("--gpu_id", "-g", type=int, default=None, help="the same as a number; -1 is the CPU")
    add("--threads", type=positive_int, default=None, help="BLAS threads (default: 1)")
    add("--output_dir", "-o", type=Path, default=Path("outputs"), help="default: ./outputs")
    add("--resume", type=Path, default=None, metavar="FILE", help="continue from a checkpoint.npz")
    args = parser.parse_args()
    if args.device is not None and args.gpu_id is not None:
        parser.error("--device and --gpu_id say the same thing: give one of them")
    if args.gpu_id is not None:
        args.device = "cpu" if args.gpu_id < 0 else f"cuda:{args.gpu_id}"
    return args


def main() -> None:
    """Trains, and leaves the model and the checkpoints in the output folder."""
    args = parse_arguments()
    run = reporting.start()
    blas = threads.limit(args.threads)
    selected = devices.select(args.device or "auto")
    data = datasets.load(args.dataset)
    if args.batchsize > len(data.train_images):
        raise RuntimeFault(
            f"--batchsize {args.batchsize} is more than the {len(data.train_images)} training images",
            "choose a smaller one",
        )
    args.output_dir.mkdir(parents=True, exist_ok=True)
    device = chainer.get_device(selected.chainer_name)
    device.use()
    print(f"{data.name}: {len(data.train_images)} training and {len(data.test_images)} test images")
    print(f"device: {selected.description}; BLAS threads: {blas}")
    reporting.record(device=selected.description, blas_threads=blas.count, blas_threads_from=blas.reason)

    # Weights are drawn on the CPU, so that a seed means the same model on every device.
    np.random.seed(args.seed)
    model = MLP(data.train_images[0].size, args.units, data.class_count)
    classifier = L.Classifier(model)
    classifier.to_device(device)
    optimizer = chainer.optimizers.MomentumSGD(args.lr, args.momentum).setup(classifier)

    train = ArrayIterator(data.train_images, data.train_labels, args.batchsize, seed=args.seed, device=device)
    test = ArrayIterator(data.test_images, data.test_labels, 1000, repeat=False, shuffle=False, device=device)
    updater = ReplayUpdater(train, optimizer, converter=unit_range, device=device)
    trainer = training.Trainer(updater, (args.epochs, "epoch"), out=args.output_dir)

    trainer.extend(ClassifierEvaluator(test, classifier, converter=unit_range, device=device))
    trainer.extend(extensions.LogReport())
    trainer.extend(Metrics(run, METRICS))
    trainer.extend(Progress(run, args.epochs))
    identity = {
        "dataset": data.name,
        "checksum of the training set": checksum(data.train_images, data.train_labels),
        "batch size": args.batchsize,
    }
    trainer.extend(Checkpoint(identity))
    if args.resume:
        resume(args.resume, trainer, identity)

    run.log("Batch size", args.batchsize)
    run.log("Epochs", args.epochs)
    trainer.run(show_loop_exception_msg=False)
    npz.save(args.output_dir / "model.npz", model)


if __name__ == "__main__":
    try:
        main()
    except RuntimeFault as fault:
        print(f"error: {fault.message}\nhint: {fault.hint}", file=sys.stderr)
        sys.exit(3)
    except OSError as error:
        print(f"error: {error}\nhint: free some space, or choose another --output_dir", file=sys.stderr)
        sys.exit(3)
