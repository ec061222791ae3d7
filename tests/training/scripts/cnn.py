"""``chainer_mnist.py``'s parts around a convolutional network: float images, data sets of arrays, any device."""

import argparse

import trainer.runtime.compat.auto

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer import training
from chainer.training import extensions

from trainer import runtime as rt


class CNN(chainer.Chain):
    def __init__(self) -> None:
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(3, 8, 3, pad=1)
            self.norm = L.BatchNormalization(8)
            self.fc = L.Linear(None, 4)

    def forward(self, x: chainer.Variable) -> chainer.Variable:
        return self.fc(F.max_pooling_2d(F.relu(self.norm(self.conv(x))), 2))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("how")
    parser.add_argument("out")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--resume")
    args = parser.parse_args()
    random = np.random.RandomState(0)
    labels = random.randint(0, 4, 120).astype(np.int32)
    images = random.randint(0, 200, (120, 3, 8, 8)).astype(np.uint8)
    images[np.arange(120), labels % 3] += 50
    device = rt.use_device("cpu")
    np.random.seed(0)
    model = L.Classifier(CNN())
    optimizer = chainer.optimizers.Adam().setup(model)
    train = chainer.datasets.TupleDataset(images[:100], labels[:100])
    train_iter = rt.ArrayIterator(train, 16, seed=1, device=device)
    test_iter = rt.ArrayIterator((images[100:], labels[100:]), 7, repeat=False, shuffle=False, device=device)
    updater = training.updaters.StandardUpdater(train_iter, optimizer, converter=rt.unit_range, device=device)
    if args.how == "compiled":
        updater = rt.compiled(updater)
    trainer = training.Trainer(updater, (args.epochs, "epoch"), out=args.out)
    trainer.extend(rt.ClassifierEvaluator(test_iter, model, converter=rt.unit_range, device=device))
    trainer.extend(extensions.LogReport(trigger=(5, "iteration")))
    trainer.extend(rt.Metrics({"Loss": "main/loss"}))
    trainer.extend(rt.Checkpoint())
    if args.resume:
        rt.resume(args.resume, trainer)
    trainer.run(show_loop_exception_msg=False)
    rt.save_npz(f"{args.out}/model.npz", model)


if __name__ == "__main__":
    rt.main(main)
