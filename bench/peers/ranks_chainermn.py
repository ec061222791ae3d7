"""Epochs of the tutorial's network by ChainerMN, with the structure of its own example ``train_mnist.py``.

Written for comparison: it knows nothing of this package. Prints what each epoch took, as JSON.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import chainer
import chainer.links as L  # noqa: N812
import chainermn
import numpy as np
from chainer import training


def main() -> None:
    """Train; rank 0 prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batchsize", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--arrays", type=Path, required=True)
    args = parser.parse_args()

    from bench.peers import ranks_clock
    from bench.peers.chainer_mnist_trainer import MLP

    comm = chainermn.create_communicator("naive")
    np.random.seed(0)
    model = L.Classifier(MLP(args.units))
    optimizer = chainermn.create_multi_node_optimizer(chainer.optimizers.MomentumSGD(0.01, 0.9), comm)
    optimizer.setup(model)
    train = None
    if comm.rank == 0:
        with np.load(args.arrays) as arrays:
            train = chainer.datasets.TupleDataset(arrays["x"], arrays["t"])
    train = chainermn.scatter_dataset(train, comm, shuffle=True)
    iterator = chainer.iterators.SerialIterator(train, args.batchsize // comm.size)
    updater = training.updaters.StandardUpdater(iterator, optimizer)
    trainer = training.Trainer(updater, (args.epochs, "epoch"), out=".")
    ranks_clock.run(trainer, comm.mpi_comm)


if __name__ == "__main__":
    main()
