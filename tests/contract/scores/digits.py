"""Chainer inside, as in Azure's tutorial: the network is built here and filled from the registered file."""

import json
import os

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np


class MLP(chainer.Chain):
    def __init__(self, n_units, n_out):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(None, n_units)
            self.l2 = L.Linear(None, n_units)
            self.l3 = L.Linear(None, n_out)

    def forward(self, x):
        return self.l3(F.relu(self.l2(F.relu(self.l1(x)))))


def init():
    global model
    model = MLP(20, 10)
    chainer.serializers.load_npz(os.path.join(os.environ["AZUREML_MODEL_DIR"], "model.npz"), model)
    chainer.config.train = False


def run(data):
    pixels = np.array(json.loads(data)["data"], np.float32)
    if chainer.config.train:
        raise RuntimeError("run() is in another thread than init()")
    found = F.softmax(model(pixels)).array
    return {"label": found.argmax(axis=1).tolist(), "probability": found.max(axis=1).tolist()}
