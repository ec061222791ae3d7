"""A hand-written loop over a convolutional network: strides, dilation, groups, deconvolution, double backprop."""

import sys
from typing import Any

import chainer
import chainer.functions as F  # noqa: N812
import chainer.links as L  # noqa: N812
import numpy as np
from chainer.dataset import concat_examples

name, out = sys.argv[1:]
np.random.seed(0)
images = np.random.rand(40, 4, 11, 9).astype(np.float32)
labels = np.random.randint(0, 5, 40).astype(np.int32)


class Net(chainer.Chain):
    def __init__(self) -> None:
        super().__init__()
        with self.init_scope():
            self.c1 = L.Convolution2D(4, 8, (3, 2), stride=(2, 1), pad=(1, 2))
            self.c2 = L.DilatedConvolution2D(8, 8, 3, pad=2, dilate=2)
            self.c3 = L.Convolution2D(8, 8, 3, pad=1, groups=2, nobias=True)
            self.d1 = L.Deconvolution2D(8, 4, 3, stride=2)
            self.fc = L.Linear(None, 5)

    def forward(self, x: chainer.Variable) -> Any:
        h = F.relu(self.c2(F.relu(self.c1(x))))
        h = F.max_pooling_2d(F.relu(self.c3(h)), 2)
        return self.fc(F.relu(self.d1(h)))


model = Net()
optimizer = getattr(chainer.optimizers, name)().setup(model)
iterator = chainer.iterators.SerialIterator(list(zip(images, labels, strict=True)), 8)
results = {}
for step in range(12):
    x, t = concat_examples(iterator.next())
    x = chainer.Variable(x)
    loss = F.softmax_cross_entropy(model(x), t, enable_double_backprop=True)
    (gx,) = chainer.grad([loss], [x], enable_double_backprop=True)
    loss = loss + 0.1 * F.sum(gx * gx)
    model.cleargrads()
    loss.backward()
    optimizer.update()
    results[f"loss{step}"] = loss.array
for path, param in model.namedparams():
    results[path] = param.array
    results[path + ":grad"] = param.grad
np.savez(f"{out}/results.npz", **results)
