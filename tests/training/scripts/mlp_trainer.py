"""A Trainer script that knows nothing of this package: TupleDataset, SubDataset, Evaluator, hooks."""

import sys
from typing import Any

import chainer
import chainer.functions as F  # noqa: N812
import chainer.links as L  # noqa: N812
import numpy as np
from chainer import training
from chainer.training import extensions

name, out = sys.argv[1:]
np.random.seed(0)
x = np.random.rand(300, 30).astype(np.float32)
t = (x[:, :10].argmax(axis=1)).astype(np.int32)
data = chainer.datasets.TupleDataset(x, t)
train, test = chainer.datasets.split_dataset_random(data, 240, seed=0)


class Net(chainer.Chain):
    def __init__(self) -> None:
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(None, 16)
            self.bn = L.BatchNormalization(16)
            self.l2 = L.Linear(16, 10)

    def forward(self, x: chainer.Variable) -> Any:
        h = F.dropout(F.relu(self.bn(self.l1(x))), 0.2)
        h = h + F.tanh(h) * 0.5
        return self.l2(F.concat([h[:, :8], F.sigmoid(h[:, 8:])], axis=1))


model = L.Classifier(Net())
optimizer = getattr(chainer.optimizers, name)().setup(model)
optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-4))
optimizer.add_hook(chainer.optimizer_hooks.GradientClipping(1.0))
train_iter = chainer.iterators.SerialIterator(train, 32)
test_iter = chainer.iterators.SerialIterator(test, 25, repeat=False, shuffle=False)
updater = training.updaters.StandardUpdater(train_iter, optimizer)
trainer = training.Trainer(updater, (3, "epoch"), out=out)
trainer.extend(extensions.Evaluator(test_iter, model))
trainer.extend(extensions.LogReport())
trainer.extend(extensions.snapshot(filename="snapshot"), trigger=(1, "epoch"))
trainer.run()
