"""Train a multilayer perceptron on handwritten digits with Chainer.

    python chainer_mnist.py --epochs 10 --batchsize 128 --output_dir ./outputs

``trainer run`` runs this file as a job, on this machine or on Azure ML. It leaves ``model.npz``, the network's
parameters, and ``checkpoint.npz``, all that ``--resume`` needs, in the output folder.
"""

import argparse
from pathlib import Path

import trainer.runtime.compat.auto  # first: Chainer's last release needs it on today's Python and NumPy

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer import training
from chainer.datasets import TupleDataset
from chainer.training import extensions

from trainer import runtime as rt

# Metric of the run: key in Chainer's report.
METRICS = {
    "Accuracy": "validation/main/accuracy",
    "Loss": "main/loss",
    "Validation loss": "validation/main/loss",
}


class MLP(chainer.Chain):  # type: ignore[misc]
    """Two hidden layers with ReLU; one score per class."""

    def __init__(self, n_in: int, n_units: int, n_out: int) -> None:
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(n_in, n_units)
            self.l2 = L.Linear(n_units, n_units)
            self.l3 = L.Linear(n_units, n_out)

    def forward(self, x: chainer.Variable) -> chainer.Variable:
        """Return scores of shape (B, n_out) for images of shape (B, n_in)."""
        h1 = F.relu(self.l1(x))
        h2 = F.relu(self.l2(h1))
        return self.l3(h2)


def parse_arguments() -> argparse.Namespace:
    """Read the command line; a wrong one ends the program with exit status 2."""
    parser = argparse.ArgumentParser(description=MLP.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    rt.add_flags(parser)  # --epochs, --batchsize, --units, --lr, --momentum, --seed, --device, --gpu_id, --threads
    parser.add_argument("--dataset", default="auto", help="auto, a name, or a folder or file of your own")
    parser.add_argument("--network", metavar="FILE.py:NAME", help="a function that makes another network than MLP")
    parser.add_argument("--output_dir", "-o", type=Path, default=Path("outputs"), help="folder for what is made")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="continue from this checkpoint.npz")
    return parser.parse_args()


def main() -> None:
    """Train, and leave the model and the checkpoint in the output folder."""
    args = parse_arguments()
    device = rt.use_device(args.device, blas_threads=args.threads)
    ranks = rt.join_ranks(device)  # as many as `trainer run --processes-per-node` starts; otherwise one, rank 0
    data = rt.load_dataset(args.dataset)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    make = rt.load_network(args.network) if args.network else None
    x = rt.as_inputs(data.train_images, flat=make is None)
    train = TupleDataset(x, data.train_labels.astype(np.int32))
    test = TupleDataset(rt.as_inputs(data.test_images, flat=make is None), data.test_labels.astype(np.int32))
    print(f"{data.name}: {len(train)} training and {len(test)} test images")
    if args.batchsize > len(train):
        raise rt.RuntimeFault(
            f"--batchsize {args.batchsize} is more than the {len(train)} training images", "use fewer"
        )

    np.random.seed(args.seed)  # weights are drawn on the CPU, so that a seed means the same model on every device
    model = make(x.shape[1:], data.class_count) if make else MLP(x.shape[1], args.units, data.class_count)
    classifier = L.Classifier(model)
    classifier.to_device(device)
    optimizer = chainer.optimizers.MomentumSGD(args.lr, args.momentum).setup(classifier)

    train_iter = rt.ArrayIterator(train, args.batchsize, seed=args.seed, device=device, ranks=ranks)
    test_iter = rt.ArrayIterator(test, 1000, repeat=False, shuffle=False, device=device)
    updater = training.updaters.StandardUpdater(train_iter, optimizer, converter=rt.unit_range, device=device)
    # Joins the ranks' gradients. For one it can go: same model, faster; every step must compute the same function.
    updater = rt.compiled(updater, ranks)

    trainer = training.Trainer(updater, (args.epochs, "epoch"), out=args.output_dir)
    trainer.extend(rt.ClassifierEvaluator(test_iter, classifier, converter=rt.unit_range, device=device, ranks=ranks))
    if ranks.rank == 0:
        trainer.extend(extensions.LogReport())
        trainer.extend(rt.Metrics(METRICS))
    trainer.extend(rt.Checkpoint())
    if args.resume:
        rt.resume(args.resume, trainer)
    trainer.run(show_loop_exception_msg=False)
    if ranks.rank == 0:
        rt.save_npz(args.output_dir / "model.npz", model)


if __name__ == "__main__":
    rt.main(main)
