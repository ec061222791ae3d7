"""Accuracy, loss and confusion matrix, against counting by hand and for any batch size."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from backends.local_store import LocalStore
from tests.artifacts.local_runs import make_local_run
from tests.contract.store_contract import npz_bytes
from trainer.artifacts import fetch
from trainer.errors import UsageError
from trainer.modeluse import Network, evaluate, open_model
from trainer.modeluse.evaluation import measure
from trainer.runtime.datasets import read_directory

Arrays = dict[str, NDArray[Any]]


def test_a_data_set_is_measured(tiny_data: Path, arrays: Arrays, write_model: Callable[..., Path]) -> None:
    model = open_model(str(write_model(**arrays)), pytest.fail)
    found = evaluate(model, str(tiny_data))
    data = read_directory(tiny_data)
    assert (found.model, found.dataset, found.trained_on) == (model.label, "tiny", None)
    assert found.count == len(data.test_labels) == sum(map(sum, found.confusion))
    # The same thing one image at a time, in float64.
    hits, losses = 0, []
    confusion = [[0] * 10 for _ in range(10)]
    for image, label in zip(data.test_images, data.test_labels, strict=True):
        hidden = image.ravel() / 255
        for number in (1, 2):
            hidden = np.maximum(arrays[f"l{number}/W"].astype("f8") @ hidden + arrays[f"l{number}/b"], 0)
        scores = arrays["l3/W"].astype("f8") @ hidden + arrays["l3/b"]
        hits += int(scores.argmax() == label)
        confusion[label][int(scores.argmax())] += 1
        losses.append(math.log(sum(math.exp(score - scores[label]) for score in scores)))
    assert found.accuracy == hits / found.count
    assert found.confusion == tuple(map(tuple, confusion))
    assert found.loss == pytest.approx(math.fsum(losses) / len(losses), rel=1e-5)
    for score in found.classes:
        row, column = confusion[score.label], [line[score.label] for line in confusion]
        assert score.count == sum(row)
        assert score.recall == (row[score.label] / sum(row) if sum(row) else None)
        assert score.precision == (column[score.label] / sum(column) if sum(column) else None)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 2**32))
def test_the_batch_size_changes_nothing(count: int, batch_size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    network = Network(((random.normal(size=(3, 4)).astype("f4"), np.zeros(3, "f4")),))
    images = random.integers(0, 256, (count, 2, 2), np.uint8)
    labels = random.integers(0, 3, count, np.uint8)
    confusion, loss = measure(network, images, labels, batch_size)
    expected_confusion, expected_loss = measure(network, images, labels, 1)
    assert (confusion == expected_confusion).all()
    assert confusion.sum() == count
    assert loss == pytest.approx(expected_loss, rel=1e-6)


def test_the_data_set_it_was_trained_on_is_the_default(
    tmp_path: Path, arrays: Arrays, digits: object, write_model: Callable[..., Path]
) -> None:
    store = LocalStore(tmp_path / "models")
    for dataset in ("mnist-5k", "my-digits", None):
        store.register(make_local_run(tmp_path / "runs", npz_bytes(**arrays), dataset=dataset), "m")
    found = evaluate(open_model("m:1", lambda: store))
    assert (found.dataset, found.trained_on, found.count) == ("mnist-5k", "mnist-5k", 1000)
    # A fetched file brings its record along; a file that was changed since does not.
    fetched = fetch(store, "m:1", tmp_path / "model")
    assert evaluate(open_model(str(fetched.path.parent), pytest.fail)).dataset == "mnist-5k"
    fetched.path.write_bytes(npz_bytes(**{**arrays, "l3/b": arrays["l3/b"] + 1}))
    for reference, why in (
        ("m:2", "which is not here"),
        ("m:3", "not recorded"),
        (str(fetched.path), "not recorded"),
        (str(write_model(**arrays)), "not recorded"),
    ):
        with pytest.raises(UsageError, match=why) as caught:
            evaluate(open_model(reference, lambda: store))
        assert "--dataset" in caught.value.hint


def test_images_and_labels_that_do_not_fit_the_model_are_refused(
    tiny_data: Path, arrays: Arrays, write_model: Callable[..., Path]
) -> None:
    wide = {**arrays, "l1/W": np.zeros((16, 100), "f4")}
    with pytest.raises(UsageError, match="takes 100 pixels, and the images of tiny have 28x28"):
        evaluate(open_model(str(write_model(**wide)), pytest.fail), str(tiny_data))
    few = {**arrays, "l3/W": np.zeros((4, 16), "f4"), "l3/b": np.zeros(4, "f4")}
    with pytest.raises(UsageError, match="there are 4 classes"):
        evaluate(open_model(str(write_model(**few)), pytest.fail), str(tiny_data))
