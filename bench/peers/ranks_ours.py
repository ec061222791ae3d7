"""Epochs of the tutorial's network by this program's parts, as ``chainer_mnist.py`` puts them together for ranks.

Prints what each epoch took, as JSON.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.runtime import compat, threads


def main() -> None:
    """Train; rank 0 prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batchsize", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--arrays", type=Path, required=True)
    args = parser.parse_args()
    compat.apply()
    threads.limit(1)

    import chainer
    import chainer.links as L  # noqa: N812
    import numpy as np
    from chainer import training
    from mpi4py import MPI

    from bench.peers import ranks_clock
    from bench.peers.chainer_mnist_trainer import MLP
    from trainer import runtime as rt

    ranks = rt.join_ranks()
    np.random.seed(0)
    model = L.Classifier(MLP(args.units))
    optimizer = chainer.optimizers.MomentumSGD(0.01, 0.9).setup(model)
    with np.load(args.arrays) as arrays:
        images, labels = arrays["images"], arrays["t"]
    iterator = rt.ArrayIterator((images, labels), args.batchsize, seed=0, ranks=ranks)
    updater = rt.compiled(
        training.updaters.StandardUpdater(iterator, optimizer, converter=rt.unit_range, device="@numpy"), ranks
    )
    trainer = training.Trainer(updater, (args.epochs, "epoch"), out=".")
    ranks_clock.run(trainer, MPI.COMM_WORLD)


if __name__ == "__main__":
    main()
