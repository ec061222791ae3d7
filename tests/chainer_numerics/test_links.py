"""Every link that Chainer's MLP, CNN and RNN examples use, against NumPy.

Values are compared with the formula applied to the link's own parameters; the gradient of every
parameter with central differences, taken in float64, of that formula.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.chainer_numerics import reference as ref
from tests.chainer_numerics.checking import BACKWARD, FORWARD, Array, assert_close, numerical_gradients, uniform

import chainer  # isort: skip
from chainer import links as L  # isort: skip  # noqa: N812

DTYPES = ("float32", "float64")


def check_link(
    build: Callable[[], Any],
    formula: Callable[..., Array],
    x: Array,
    dtype: str,
    call: Callable[..., Any] | None = None,
) -> None:
    """Compares a link with ``formula(x, parameters by name)``, forward and backward."""
    run = call or (lambda link, x: link(x))
    np.random.seed(0)
    with chainer.using_config("dtype", np.dtype(dtype)):
        link = build()
        run(link, x.astype(dtype))  # from here on it knows its sizes
    names = sorted(name for name, _ in link.namedparams())
    parameters = dict(link.namedparams())
    for i, name in enumerate(names):  # biases start at zero, which would test nothing
        parameters[name].array[...] = uniform(*parameters[name].shape, seed=i + 10).astype(dtype)
    link.cleargrads()

    variable = chainer.Variable(x.astype(dtype))
    y = run(link, variable)
    inputs = [x.astype(dtype).astype("d"), *(parameters[name].array.astype("d") for name in names)]

    def reference(x: Array, *values: Array) -> Array:
        return formula(x, dict(zip(names, values, strict=True)))

    wanted = reference(*inputs)
    assert y.dtype == dtype
    assert_close(y.array, wanted, 4 * FORWARD[dtype])
    cotangent = uniform(*wanted.shape, seed=5).astype(dtype).astype("d")
    y.grad = cotangent.astype(dtype)
    y.backward()
    gradients = [variable.grad, *(parameters[name].grad for name in names)]
    for got, gradient in zip(gradients, numerical_gradients(reference, inputs, cotangent), strict=True):
        assert got.dtype == dtype
        assert_close(got, gradient, BACKWARD[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear(dtype: str) -> None:
    check_link(lambda: L.Linear(4, 3), lambda x, p: x @ p["/W"].T + p["/b"], uniform(2, 4), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_that_learns_its_input_size(dtype: str) -> None:
    check_link(
        lambda: L.Linear(None, 3, nobias=True), lambda x, p: x.reshape(2, -1) @ p["/W"].T, uniform(2, 3, 2), dtype
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_convolution_2d(dtype: str) -> None:
    check_link(
        lambda: L.Convolution2D(None, 3, ksize=3, stride=2, pad=1),
        lambda x, p: ref.convolution(x, p["/W"], p["/b"], 2, 1),
        uniform(2, 2, 5, 4),
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_normalization_in_training(dtype: str) -> None:
    check_link(
        lambda: L.BatchNormalization(3),
        lambda x, p: ref.batch_normalization(x, p["/gamma"], p["/beta"]),
        uniform(3, 3, 2, 2),
        dtype,
    )


def test_running_statistics_of_batch_normalization() -> None:
    link = L.BatchNormalization(2, decay=0.9)
    x = uniform(8, 2).astype("f")
    link(x)
    mean, variance = x.mean(axis=0), x.var(axis=0) * 8 / 7  # the unbiased estimate
    np.testing.assert_allclose(link.avg_mean, 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(link.avg_var, 0.9 + 0.1 * variance, rtol=1e-5)
    assert link.avg_mean.dtype == link.avg_var.dtype == np.float32
    with chainer.using_config("train", False):
        y = link(x)
    np.testing.assert_allclose(y.array, (x - link.avg_mean) / np.sqrt(link.avg_var + 2e-5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_embed_id(dtype: str) -> None:
    ids = np.array([2, 0, 2], np.int32)
    with chainer.using_config("dtype", np.dtype(dtype)):
        link = L.EmbedID(4, 3)
    link.cleargrads()
    y = link(ids)
    np.testing.assert_array_equal(y.array, link.W.array[ids])
    y.grad = np.ones((3, 3), dtype)
    y.backward()
    assert link.W.grad.dtype == dtype
    np.testing.assert_array_equal(link.W.grad, np.array([[1.0], [0], [2], [0]]) * np.ones(3))


@pytest.mark.parametrize("dtype", DTYPES)
def test_mlp_convolution_2d(dtype: str) -> None:
    def formula(x: Array, p: dict[str, Array]) -> Array:
        h = np.maximum(ref.convolution(x, p["/0/W"], p["/0/b"]), 0)
        return ref.convolution(h, p["/1/W"], p["/1/b"])

    check_link(lambda: L.MLPConvolution2D(2, (3, 2), 2), formula, uniform(2, 2, 3, 3), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_inception(dtype: str) -> None:
    def formula(x: Array, p: dict[str, Array]) -> Array:
        def conv(h: Array, name: str, pad: int = 0) -> Array:
            return ref.convolution(h, p[f"/{name}/W"], p[f"/{name}/b"], 1, pad)

        def relu(h: Array) -> Array:
            return np.maximum(h, 0)

        pool = ref.max_pooling(x, 3, 1, 1)
        parts = [
            conv(x, "conv1"),
            conv(relu(conv(x, "proj3")), "conv3", 1),
            conv(relu(conv(x, "proj5")), "conv5", 2),
            conv(pool, "projp"),
        ]
        return relu(np.concatenate(parts, axis=1))

    check_link(lambda: L.Inception(2, 1, 2, 2, 1, 2, 2), formula, uniform(1, 2, 3, 3), dtype)


def test_inception_with_batch_normalization() -> None:
    np.random.seed(0)
    with chainer.using_config("dtype", np.dtype("float64")):
        link = L.InceptionBN(2, 1, 2, 3, 2, 3, "avg", 2)
    x = uniform(2, 2, 3, 3)
    p = {name: value.array for name, value in link.namedparams()}

    def stage(h: Array, name: str, pad: int = 0) -> Array:
        y = ref.convolution(h, p[f"/{name}/W"], None, 1, pad)
        y = ref.batch_normalization(y, p[f"/{name}n/gamma"], p[f"/{name}n/beta"])
        return np.maximum(y, 0)

    wanted = np.concatenate(
        [
            stage(x, "conv1"),
            stage(stage(x, "proj3"), "conv3", 1),
            stage(stage(stage(x, "proj33"), "conv33a", 1), "conv33b", 1),
            stage(ref.average_pooling(x, 3, 1, 1), "poolp"),
        ],
        axis=1,
    )
    np.testing.assert_allclose(link(x).array, wanted, rtol=1e-9, atol=1e-12)


def test_classifier() -> None:
    model = L.Classifier(L.Linear(4, 3))
    x, t = uniform(5, 4).astype("f"), np.array([0, 1, 2, 0, 1], np.int32)
    loss = model(x, t)
    scores = x @ model.predictor.W.array.T + model.predictor.b.array
    np.testing.assert_allclose(loss.array, ref.cross_entropy(scores, t).mean(), rtol=1e-5)
    np.testing.assert_allclose(model.accuracy.array, (scores.argmax(axis=1) == t).mean())


@pytest.mark.parametrize("dtype", DTYPES)
def test_lstm_through_time(dtype: str) -> None:
    def formula(x: Array, p: dict[str, Array]) -> Array:
        h = c = np.zeros((len(x), 2))
        for t in range(x.shape[1]):
            # The first step has no lateral part, as h is zero.
            gates = x[:, t] @ p["/upward/W"].T + p["/upward/b"] + h @ p["/lateral/W"].T
            c, h = ref.lstm_step(c, gates)
        return h

    def call(link: Any, x: Any) -> Any:
        link.reset_state()
        for t in range(x.shape[1]):
            h = link(x[:, t])
        return h

    check_link(lambda: L.LSTM(3, 2), formula, uniform(2, 3, 3), dtype, call)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nstep_lstm(dtype: str) -> None:
    lengths = (3, 2)

    def formula(x: Array, p: dict[str, Array]) -> Array:
        results = []
        for k, length in enumerate(lengths):
            sequence = x[k, :length]
            for layer in range(2):
                ws = [p[f"/{layer}/w{i}"] for i in range(8)]
                bs = [p[f"/{layer}/b{i}"] for i in range(8)]
                _, _, sequence = ref.nstep_lstm_layer(np.zeros(2), np.zeros(2), ws, bs, sequence)
            results.append(sequence[-1])
        return np.array(results)

    def call(link: Any, x: Any) -> Any:
        h, _, ys = link(None, None, [x[k, :length] for k, length in enumerate(lengths)])
        assert [len(y) for y in ys] == list(lengths)
        return h[-1]

    check_link(lambda: L.NStepLSTM(2, 3, 2, 0.0), formula, uniform(2, 3, 3), dtype, call)


INITIALIZERS = {
    "LeCunNormal": (chainer.initializers.LeCunNormal(), np.sqrt(1 / 200)),
    "HeNormal": (chainer.initializers.HeNormal(), np.sqrt(2 / 200)),
    "GlorotUniform": (chainer.initializers.GlorotUniform(), np.sqrt(6 / 500) / np.sqrt(3)),
    "Normal": (chainer.initializers.Normal(0.1), 0.1),
    "Uniform": (chainer.initializers.Uniform(0.25), 0.25 / np.sqrt(3)),
}


@pytest.mark.parametrize("name", INITIALIZERS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_initializers(name: str, dtype: str) -> None:
    np.random.seed(0)
    initializer, deviation = INITIALIZERS[name]
    values = np.empty((300, 200), dtype)
    initializer(values)
    assert values.dtype == dtype
    assert abs(values.astype("d").mean()) < 0.02 * deviation
    assert abs(values.astype("d").std() / deviation - 1) < 0.02


def test_the_same_seed_gives_the_same_weights() -> None:
    weights = []
    for _ in range(2):
        np.random.seed(3)
        weights.append(L.Linear(4, 3).W.array)
    np.testing.assert_array_equal(*weights)
