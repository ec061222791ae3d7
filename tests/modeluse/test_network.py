"""What a model file holds, and that NumPy computes from it what Chainer does."""

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from backends.local_store import LocalStore
from tests.artifacts.local_runs import make_local_run
from tests.contract.store_contract import exploit_bytes, npz_bytes
from trainer.artifacts import file_sha256
from trainer.errors import IntegrityError, NotFoundError, RunFailedError, UsageError
from trainer.modelfile import is_path
from trainer.modeluse import Network, evaluate, open_model, predict
from trainer.modeluse.network import cross_entropy, probabilities

Arrays = dict[str, NDArray[Any]]

CHAINER = """
import sys
import trainer.runtime.compat.auto
import chainer, numpy as np
import chainer.functions as F, chainer.links as L

class MLP(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l1, self.l2, self.l3 = L.Linear(784, 20), L.Linear(20, 20), L.Linear(20, 10, nobias=True)

    def forward(self, x):
        return self.l3(F.relu(self.l2(F.relu(self.l1(x)))))

np.random.seed(0)
model = L.Classifier(MLP())
x, t = np.random.rand(64, 784).astype("f4"), np.random.randint(0, 10, 64).astype("i4")
chainer.serializers.save_npz(sys.argv[1] + "/plain.npz", model.predictor)
chainer.serializers.save_npz(sys.argv[1] + "/classifier.npz", model)
with chainer.no_backprop_mode(), chainer.using_config("train", False):
    scores = model.predictor(x)
    np.savez(sys.argv[1] + "/expected.npz", x=x, t=t, scores=scores.array, softmax=F.softmax(scores).array,
             loss=F.softmax_cross_entropy(scores, t, reduce="no").array)
"""


def test_it_computes_what_chainer_does(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", CHAINER, tmp_path], check=True)
    with np.load(tmp_path / "expected.npz") as expected:
        for name in ("plain.npz", "classifier.npz"):
            network = open_model(str(tmp_path / name), pytest.fail).network
            assert (network.inputs, network.classes, network.image_size) == (784, 10, 28)
            scores = network.scores(expected["x"])
            np.testing.assert_allclose(scores, expected["scores"], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(probabilities(scores), expected["softmax"], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(cross_entropy(scores, expected["t"]), expected["loss"], rtol=1e-5, atol=1e-5)


def test_a_checkpoint_of_a_trainer_is_read_for_its_model(arrays: Arrays) -> None:
    inside = {f"updater/model:main/predictor/{key}": array for key, array in arrays.items()}
    other = {"updater/optimizer:main/t": np.array(3), "extensions/LogReport/_log": np.array("[]")}
    assert Network.from_arrays({**inside, **other}, "checkpoint").classes == 10


def test_any_number_of_layers_and_any_float_type() -> None:
    random = np.random.default_rng(0)
    sizes = [9, 4, 7, 2, 5]
    arrays = {}
    for number, (n_in, n_out) in enumerate(itertools.pairwise(sizes), 1):
        arrays[f"l{number}/W"] = random.normal(size=(n_out, n_in)).astype(">f8")
        arrays[f"l{number}/b"] = random.normal(size=n_out).astype("f2")
    network = Network.from_arrays(arrays, "model")
    assert (network.inputs, network.classes, len(network.layers)) == (9, 5, 4)
    assert network.scores(np.ones((3, 9), np.float32)).dtype == np.float32


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"l2/W": None, "l2/b": None}, "no l2/W"),
        ({"l1/W": None}, "no l1/W"),
        ({"l3/b": np.zeros(9, "f4")}, r"l3/W has shape \(10, 16\) and l3/b \(9,\)"),
        ({"l2/W": np.zeros((16, 15), "f4")}, "l2/W takes 15 inputs and l1 gives 16"),
        ({"l1/W": np.zeros((16, 1, 28, 28), "f4")}, "l1/W is float32 of shape"),
        ({"l1/W": np.zeros((16, 784), "i4")}, "l1/W is int32"),
        ({"l1/b": np.array(["a"] * 16)}, "l1/b is <U1"),
        ({"l1/W": np.zeros((0, 784), "f4"), "l1/b": np.zeros(0, "f4")}, "l1/W has shape"),
        ({"conv1/W": np.zeros((1, 1), "f4")}, "also holds 'conv1/W'"),
        ({"bn/gamma": np.zeros(1), "bn/beta": np.zeros(1), "x": np.zeros(1), "y": np.zeros(1)}, "and 1 more"),
    ],
)
def test_another_network_is_refused_with_what_is_wrong(arrays: Arrays, change: dict[str, Any], why: str) -> None:
    arrays = {key: array for key, array in {**arrays, **change}.items() if array is not None}
    with pytest.raises(UsageError, match=why) as caught:
        Network.from_arrays(arrays, "some.npz")
    assert caught.value.message.startswith("some.npz")
    assert "l1, l2" in caught.value.hint


def test_a_diverged_model_is_said_to_be_one(arrays: Arrays) -> None:
    arrays["l2/W"][3, 3] = np.nan
    with pytest.raises(RunFailedError, match="diverged"):
        Network.from_arrays(arrays, "model")


def test_inputs_that_are_no_square_have_no_image_size(arrays: Arrays) -> None:
    arrays["l1/W"] = np.zeros((16, 783), "f4")
    with pytest.raises(UsageError, match="not a square"):
        _ = Network.from_arrays(arrays, "model").image_size


@given(hnp.arrays(np.float32, (3, 5), elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_the_softmax_is_stable(scores: NDArray[np.float32]) -> None:
    found = probabilities(scores)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found.argmax(axis=1) == scores.argmax(axis=1)).all() or len(np.unique(found)) < found.size
    losses = cross_entropy(scores, np.array([0, 1, 2]))
    assert np.isfinite(losses).all()
    assert (losses >= 0).all()


def test_what_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights").touch()
    Path("chainer-dnn-mnist").mkdir()
    assert [is_path(word) for word in ("model.npz", "./model", "a/b", "weights")] == [True] * 4
    assert [is_path(word) for word in ("chainer-dnn-mnist", "m:3", "latest")] == [False] * 3


def test_a_registered_model_is_fetched_checked_and_described(tmp_path: Path, arrays: Arrays) -> None:
    store = LocalStore(tmp_path / "models")
    version = store.register(make_local_run(tmp_path / "runs", npz_bytes(**arrays)), "digits")
    for reference in ("digits", "digits:1", "dig", "latest"):
        model = open_model(reference, lambda: store)
        assert (model.label, model.version) == ("digits:1", version)
    (store.models / "digits" / "1" / "model.npz").write_bytes(npz_bytes(**{**arrays, "l3/b": arrays["l3/b"] + 1}))
    with pytest.raises(IntegrityError, match="SHA-256"):
        open_model("digits", lambda: store)


def test_a_missing_file_or_model_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        open_model(str(tmp_path / "absent.npz"), pytest.fail)
    with pytest.raises(NotFoundError):
        open_model("absent", lambda: LocalStore(tmp_path))


@pytest.mark.parametrize("use", [evaluate, lambda model: predict(model, [])], ids=["evaluate", "predict"])
def test_a_pickle_is_refused_and_never_loaded(tmp_path: Path, use: Callable[[Any], object]) -> None:
    path, evidence = tmp_path / "model.npz", tmp_path / "evidence"
    path.write_bytes(exploit_bytes(evidence))
    with pytest.raises(IntegrityError, match="Python objects"):
        use(open_model(str(path), pytest.fail))
    # One that someone put into the registry, digest and all.
    store = LocalStore(tmp_path / "models")
    version = store.register(make_local_run(tmp_path / "runs", npz_bytes(a=np.ones(3))), "m")
    kept, record = store.models / "m" / "1" / "model.npz", store.models / "m" / "1" / "version.json"
    kept.write_bytes(path.read_bytes())
    changed = record.read_text().replace(version.sha256, file_sha256(kept))
    record.write_text(changed.replace(f'"size": {version.size}', f'"size": {kept.stat().st_size}'))
    with pytest.raises(IntegrityError, match=r"m:1 is not a safe npz file.*Python objects"):
        use(open_model("m", lambda: store))
    assert not evidence.exists()
