"""No float64 where a model is trained in a smaller type.

NumPy 2 promotes numpy.float64 numbers where NumPy 1 did not, so one of them in the training path would turn
every array after it into float64, silently. The models are those of Chainer's examples, made small.
"""

from typing import Any

import numpy as np
import pytest

from tests.chainer_numerics.checking import uniform

import chainer  # isort: skip
from chainer import functions as F  # isort: skip  # noqa: N812
from chainer import links as L  # isort: skip  # noqa: N812


class MLP(chainer.Chain):
    """examples/mnist."""

    def __init__(self) -> None:
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(None, 8)
            self.l2 = L.Linear(None, 3)

    def forward(self, x: Any) -> Any:
        return self.l2(F.relu(self.l1(x)))


class VGG(chainer.Chain):
    """examples/cifar: convolution, batch normalization, dropout, pooling."""

    def __init__(self) -> None:
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(None, 4, 3, pad=1, nobias=True)
            self.bn = L.BatchNormalization(4)
            self.fc = L.Linear(None, 3)

    def forward(self, x: Any) -> Any:
        h = F.dropout(F.relu(self.bn(self.conv(x))), ratio=0.3)
        return self.fc(F.max_pooling_2d(h, ksize=2, stride=2))


class Alex(chainer.Chain):
    """examples/imagenet: local response normalization."""

    def __init__(self) -> None:
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(None, 4, 3)
            self.fc = L.Linear(None, 3)

    def forward(self, x: Any) -> Any:
        return self.fc(F.average_pooling_2d(F.local_response_normalization(F.relu(self.conv(x))), 3, stride=2))


class PTB(chainer.Chain):
    """examples/ptb: an LSTM language model."""

    def __init__(self) -> None:
        super().__init__()
        with self.init_scope():
            self.embed = L.EmbedID(5, 4)
            self.lstm = L.LSTM(4, 4)
            self.out = L.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        self.lstm.reset_state()
        for t in range(x.shape[1]):
            h = self.lstm(F.dropout(self.embed(x[:, t])))
        return self.out(F.dropout(h))


class TextClassifier(chainer.Chain):
    """examples/text_classification: an NStepLSTM encoder."""

    def __init__(self) -> None:
        super().__init__()
        with self.init_scope():
            self.embed = L.EmbedID(5, 4)
            self.encoder = L.NStepLSTM(2, 4, 4, 0.4)
            self.out = L.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        sections = np.cumsum([len(row) for row in x[:-1]])
        embedded = F.split_axis(self.embed(F.concat(list(x), axis=0)), sections, 0)
        last, _, _ = self.encoder(None, None, list(embedded))
        return self.out(last[-1])


IMAGES = uniform(6, 2, 6, 6, low=0)
WORDS = np.random.default_rng(0).integers(0, 5, (6, 4)).astype("i")
LABELS = (np.arange(6) % 3).astype("i")
MODELS = {"MLP": (MLP, IMAGES), "VGG": (VGG, IMAGES), "Alex": (Alex, IMAGES), "PTB": (PTB, WORDS)}
MODELS |= {"TextClassifier": (TextClassifier, WORDS)}
OPTIMIZERS = {
    "SGD": lambda: chainer.optimizers.SGD(0.05),
    "MomentumSGD": lambda: chainer.optimizers.MomentumSGD(0.05),
    "Adam": lambda: chainer.optimizers.Adam(eps=1e-4),
}


class Watch(chainer.FunctionHook):
    """Notes the type of every array that a function receives, forward and backward."""

    name = "Watch"

    def __init__(self) -> None:
        self.types: set[str] = set()
        self.outputs: set[str] = set()

    def forward_postprocess(self, function: Any, in_data: Any) -> None:
        self._note(in_data)

    def backward_postprocess(self, function: Any, in_data: Any, out_grad: Any) -> None:
        self._note(in_data)
        self._note(out_grad)

    def _note(self, arrays: Any) -> None:
        self.types.update(a.dtype.name for a in arrays if a is not None and a.dtype.kind == "f")


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "mixed16"])
@pytest.mark.parametrize("name", MODELS)
def test_no_silent_float64(name: str, dtype: str, optimizer_name: str) -> None:
    np.random.seed(0)
    mixed = dtype == "mixed16"
    computes = "float16" if mixed else dtype
    # Batch normalization keeps its statistics and scale in float32 where the rest is mixed16.
    allowed = {computes, "float32"} if mixed else {computes}
    build, data = MODELS[name]
    x = data.astype(computes) if data.dtype.kind == "f" else data
    watch = Watch()
    with chainer.using_config("dtype", chainer.mixed16 if mixed else np.dtype(dtype)):
        model = L.Classifier(build())
        optimizer = OPTIMIZERS[optimizer_name]()
        if mixed:
            optimizer.use_fp32_update()
        optimizer.setup(model)
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(5e-4))
        optimizer.add_hook(chainer.optimizer_hooks.GradientClipping(5.0))
        for _ in range(3):
            with watch:
                loss = model(x, LABELS)
                model.cleargrads()
                loss.backward()
            optimizer.update()
    assert loss.dtype.name in allowed
    assert np.isfinite(loss.array)
    assert watch.types <= allowed
    for path, parameter in model.namedparams():
        assert parameter.dtype.name in allowed, path
        assert parameter.grad.dtype == parameter.dtype, path
        state = {k: v.dtype.name for k, v in parameter.update_rule.state.items() if isinstance(v, np.ndarray)}
        in_float32 = parameter.update_rule._fp32_param is not None
        assert set(state.values()) <= {"float32" if in_float32 else parameter.dtype.name}, (path, state)
        assert in_float32 == (mixed and parameter.dtype == np.float16), path
    for path, value in ((p, v) for link in model.links() for p, v in vars(link).items()):
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            assert value.dtype.name in allowed, path  # running means and variances


def test_the_watch_would_notice() -> None:
    watch = Watch()
    with watch:
        F.sum(F.cast(np.ones(2, "f"), "d") * 2)
    assert watch.types == {"float32", "float64"}


def test_reported_values_are_averaged_in_float64() -> None:
    reporter = chainer.DictSummary()
    for _ in range(79):
        reporter.add({"accuracy": chainer.Variable(np.array(0.98, "f"))})
    mean = reporter.compute_mean()["accuracy"]
    assert mean.dtype == np.float64
    assert mean == pytest.approx(float(np.float32(0.98)), abs=1e-12)
