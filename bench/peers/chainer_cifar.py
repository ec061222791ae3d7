"""A small convolutional network in Chainer on noise of CIFAR's shape: only the time is of interest."""

from __future__ import annotations

import argparse

import chainer
import chainer.functions as F  # noqa: N812
import chainer.links as L  # noqa: N812
import numpy as np
from chainer import training
from chainer.training import extensions


class Block(chainer.Chain):  # type: ignore[misc]
    """Convolution, batch normalization, ReLU."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(n_in, n_out, 3, pad=1, nobias=True)
            self.bn = L.BatchNormalization(n_out)

    def forward(self, x: chainer.Variable) -> chainer.Variable:
        """Features of the same height and width."""
        return F.relu(self.bn(self.conv(x)))


class ConvNet(chainer.Chain):  # type: ignore[misc]
    """Three blocks, each followed by max pooling, dropout and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        with self.init_scope():
            self.b1 = Block(3, 16)
            self.b2 = Block(16, 32)
            self.b3 = Block(32, 32)
            self.fc = L.Linear(None, 10)

    def forward(self, x: chainer.Variable) -> chainer.Variable:
        """Class scores."""
        for block in (self.b1, self.b2, self.b3):
            x = F.max_pooling_2d(block(x), 2, 2)
        return self.fc(F.dropout(x, 0.25))


def main() -> None:
    """Train and leave ``model.npz`` in the output folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batchsize", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--out", default="outputs")
    args = parser.parse_args()

    np.random.seed(0)
    images = np.random.rand(args.examples, 3, 32, 32).astype(np.float32)
    labels = np.random.randint(0, 10, args.examples).astype(np.int32)
    data = chainer.datasets.TupleDataset(images, labels)
    train, test = chainer.datasets.split_dataset(data, args.examples * 4 // 5)
    model = L.Classifier(ConvNet())
    optimizer = chainer.optimizers.MomentumSGD(0.05).setup(model)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(5e-4))
    train_iter = chainer.iterators.SerialIterator(train, args.batchsize)
    test_iter = chainer.iterators.SerialIterator(test, args.batchsize, repeat=False, shuffle=False)
    updater = training.updaters.StandardUpdater(train_iter, optimizer)
    trainer = training.Trainer(updater, (args.epochs, "epoch"), out=args.out)
    trainer.extend(extensions.Evaluator(test_iter, model))
    trainer.extend(extensions.ExponentialShift("lr", 0.5), trigger=(25, "epoch"))
    trainer.extend(extensions.LogReport())
    trainer.extend(extensions.PrintReport(["epoch", "main/loss", "validation/main/accuracy", "elapsed_time"]))
    trainer.run()
    chainer.serializers.save_npz(f"{args.out}/model.npz", model.predictor)


if __name__ == "__main__":
    main()
