"""The usual Chainer MNIST program: Trainer, StandardUpdater, SerialIterator, the usual extensions.

Written for comparison, with the structure of the example that ships with Chainer and the tutorial's optimizer. It knows
nothing of this package.
"""

from __future__ import annotations

import argparse

import chainer
import chainer.functions as F  # noqa: N812
import chainer.links as L  # noqa: N812
import numpy as np
from chainer import training
from chainer.training import extensions


class MLP(chainer.Chain):  # type: ignore[misc]
    """Two hidden layers with ReLU; the first layer finds its input size at the first batch."""

    def __init__(self, units: int) -> None:
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(None, units)
            self.l2 = L.Linear(None, units)
            self.l3 = L.Linear(None, 10)

    def forward(self, x: chainer.Variable) -> chainer.Variable:
        """Class scores."""
        return self.l3(F.relu(self.l2(F.relu(self.l1(x)))))


def main() -> None:
    """Train and leave ``model.npz`` in the output folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batchsize", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--out", default="outputs")
    args = parser.parse_args()

    np.random.seed(0)
    model = L.Classifier(MLP(args.units))
    optimizer = chainer.optimizers.MomentumSGD(0.01, 0.9).setup(model)
    train, test = chainer.datasets.get_mnist()
    train_iter = chainer.iterators.SerialIterator(train, args.batchsize)
    test_iter = chainer.iterators.SerialIterator(test, args.batchsize, repeat=False, shuffle=False)
    updater = training.updaters.StandardUpdater(train_iter, optimizer)
    trainer = training.Trainer(updater, (args.epochs, "epoch"), out=args.out)
    trainer.extend(extensions.Evaluator(test_iter, model))
    trainer.extend(extensions.snapshot(), trigger=(1, "epoch"))
    trainer.extend(extensions.LogReport())
    trainer.extend(
        extensions.PrintReport(
            [
                "epoch",
                "main/loss",
                "validation/main/loss",
                "main/accuracy",
                "validation/main/accuracy",
                "elapsed_time",
            ]
        )
    )
    trainer.run()
    chainer.serializers.save_npz(f"{args.out}/model.npz", model.predictor)


if __name__ == "__main__":
    main()
