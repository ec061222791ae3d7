"""MNIST in Chainer with a loop written by hand, as in Azure's tutorial. It knows nothing of this package."""

from __future__ import annotations

import argparse
from pathlib import Path

import chainer
import chainer.functions as F  # noqa: N812
import chainer.links as L  # noqa: N812
import numpy as np
from chainer.dataset import concat_examples


class MLP(chainer.Chain):  # type: ignore[misc]
    """Two hidden layers with ReLU."""

    def __init__(self, units: int) -> None:
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(None, units)
            self.l2 = L.Linear(units, units)
            self.l3 = L.Linear(units, 10)

    def forward(self, x: chainer.Variable) -> chainer.Variable:
        """Class scores."""
        return self.l3(F.relu(self.l2(F.relu(self.l1(x)))))


def main() -> None:
    """Train and leave ``model.npz`` in the output folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batchsize", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("outputs"))
    args = parser.parse_args()

    np.random.seed(0)
    train, test = chainer.datasets.get_mnist()
    model = MLP(args.units)
    optimizer = chainer.optimizers.MomentumSGD(0.01, 0.9)
    optimizer.setup(model)
    train_iter = chainer.iterators.SerialIterator(train, args.batchsize)
    test_iter = chainer.iterators.SerialIterator(test, args.batchsize, repeat=False, shuffle=False)
    while train_iter.epoch < args.epochs:
        x, t = concat_examples(train_iter.next())
        loss = F.softmax_cross_entropy(model(x), t)
        model.cleargrads()
        loss.backward()
        optimizer.update()
        if not train_iter.is_new_epoch:
            continue
        losses, accuracies = [], []
        test_iter.reset()
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            for batch in test_iter:
                x, t = concat_examples(batch)
                scores = model(x)
                losses.append(float(F.softmax_cross_entropy(scores, t).array))
                accuracies.append(float(F.accuracy(scores, t).array))
        print(f"epoch {train_iter.epoch}: loss {np.mean(losses):.4f}, accuracy {np.mean(accuracies):.4f}")
    args.out.mkdir(parents=True, exist_ok=True)
    chainer.serializers.save_npz(str(args.out / "model.npz"), model)


if __name__ == "__main__":
    main()
