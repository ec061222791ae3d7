"""A resumed run ends as the uninterrupted one; a checkpoint of something else is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chainer import optimizers, training
from chainer.training import extensions
from chainer.training.updaters import StandardUpdater

from trainer.runtime import npz
from trainer.runtime.faults import RuntimeFault
from trainer.runtime.training.checkpoint import Checkpoint, resume
from trainer.runtime.training.compiled import compiled
from trainer.runtime.training.extensions import ClassifierEvaluator
from trainer.runtime.training.iterator import ArrayIterator, unit_range


@pytest.fixture
def trainer(examples: Any, make_model: Any, tmp_path: Path) -> Any:
    """Makes trainers that differ in nothing but what is asked for."""

    def make(
        epochs: Any,
        *,
        out: Any = "out",
        seed: Any = 1,
        optimizer: Any = optimizers.MomentumSGD,
        given: Any = None,
        batch_size: Any = 48,
        identity: Any = None,
        **model: Any,
    ) -> Any:
        classifier = make_model(**model)
        # 48 does not divide 512: batches span epochs.
        iterator = ArrayIterator(given or examples[0], batch_size, seed=seed)
        updater = compiled(StandardUpdater(iterator, optimizer().setup(classifier), converter=unit_range))
        trainer = training.Trainer(updater, (epochs, "epoch"), out=tmp_path / out)
        test = ArrayIterator(examples[1], 50, repeat=False, shuffle=False)
        trainer.extend(ClassifierEvaluator(test, classifier, converter=unit_range))
        trainer.extend(extensions.LogReport(filename=None))
        trainer.extend(Checkpoint(identity))
        return trainer

    return make


def result(trainer: Any) -> Any:
    optimizer = trainer.updater.get_optimizer("main")
    found = {name: param.array for name, param in optimizer.target.namedparams()}
    for name, param in optimizer.target.namedparams():
        found |= {f"{name}:{key}": value for key, value in param.update_rule.state.items()}
    log = [{k: v for k, v in entry.items() if k != "elapsed_time"} for entry in trainer.get_extension("LogReport").log]
    return found, log


@pytest.mark.parametrize("optimizer", [optimizers.MomentumSGD, optimizers.Adam], ids=lambda o: o.__name__)
@pytest.mark.parametrize("after", [1, 2, 3])
def test_equals_an_uninterrupted_run(trainer: Any, tmp_path: Path, after: Any, optimizer: Any) -> None:
    whole = trainer(4, out="whole", optimizer=optimizer)
    whole.run()
    trainer(after, out="part", optimizer=optimizer).run()
    # Another seed: all that matters must come from the file.
    rest = trainer(4, out="rest", seed=99, optimizer=optimizer)
    resume(tmp_path / "part" / "checkpoint.npz", rest)
    rest.run()
    ours, our_log = result(rest)
    theirs, their_log = result(whole)
    assert our_log == their_log
    assert ours.keys() == theirs.keys()
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_nothing_left_to_do(trainer: Any, tmp_path: Path) -> None:
    first = trainer(2)
    first.run()
    again = trainer(2, out="again")
    resume(tmp_path / "out" / "checkpoint.npz", again)
    again.run()
    for name, array in result(first)[0].items():
        np.testing.assert_array_equal(result(again)[0][name], array)


def test_has_no_pickles(trainer: Any, tmp_path: Path) -> None:
    trainer(1).run()
    with np.load(tmp_path / "out" / "checkpoint.npz", allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": 30}, r"shape of /predictor/l1/W: \[20, 784\], and this run has \[30, 784\]"),
        ({"optimizer": optimizers.Adam}, "optimizer: MomentumSGD, and this run has Adam"),
        ({"epochs": 1}, "2 epochs into training, and this run has 1"),
    ],
)
def test_another_run_is_refused(trainer: Any, tmp_path: Path, changes: Any, message: Any) -> None:
    trainer(2).run()
    options = {"epochs": 3, "out": "other", **changes}
    with pytest.raises(RuntimeFault, match=message):
        resume(tmp_path / "out" / "checkpoint.npz", trainer(options.pop("epochs"), **options))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 64}, "batch size: 48, and this run has 64"),
        ({"identity": {"dataset": "other"}}, "dataset: tiny, and this run has other"),
        ({"identity": {"dataset": "tiny", "more": 1}}, "more: None, and this run has 1"),
        ({"identity": {}}, "dataset: tiny, and this run has None"),
    ],
    ids=str,
)
def test_another_identity_is_refused(trainer: Any, tmp_path: Path, changes: Any, message: Any) -> None:
    trainer(1, identity={"dataset": "tiny"}).run()
    other = trainer(2, out="other", **{"identity": {"dataset": "tiny"}, **changes})
    with pytest.raises(RuntimeFault, match=message):
        resume(tmp_path / "out" / "checkpoint.npz", other)


@pytest.mark.parametrize("which", ["images", "labels", "number"])
def test_another_training_set_is_refused(trainer: Any, examples: Any, tmp_path: Path, which: str) -> None:
    trainer(1).run()
    images, labels = (array.copy() for array in examples[0])
    if which == "images":
        images[100, 300] ^= 1
    elif which == "labels":
        labels[7] = (labels[7] + 1) % 10
    else:
        images, labels = images[:-1], labels[:-1]
    with pytest.raises(RuntimeFault, match="checksum of the training set"):
        resume(tmp_path / "out" / "checkpoint.npz", trainer(2, out="other", given=(images, labels)))


def tampered(path: Any, change: Any) -> None:
    arrays = npz.read(path)
    change(arrays)
    npz.write(path, arrays)


def drop(arrays: Any) -> None:
    del arrays["updater/optimizer:main/predictor/l1/W/v"]


def reshape(arrays: Any) -> None:
    arrays["updater/model:main/predictor/l1/W"] = np.zeros((3, 3), np.float32)


def repeat(arrays: Any) -> None:
    arrays["updater/iterator:main/order"][0] = arrays["updater/iterator:main/order"][1]


def short_generator(arrays: Any) -> None:
    arrays["updater/iterator:main/random_keys"] = np.zeros(3, np.uint32)


def no_log(arrays: Any) -> None:
    arrays["extensions/LogReport/_log"] = np.asarray("[")


def other_format(arrays: Any) -> None:
    about = json.loads(str(arrays["about_this_checkpoint"]))
    arrays["about_this_checkpoint"] = np.asarray(json.dumps({**about, "format": 2}))


def no_about(arrays: Any) -> None:
    del arrays["about_this_checkpoint"]


def about_is_a_list(arrays: Any) -> None:
    arrays["about_this_checkpoint"] = np.asarray("[1]")


@pytest.mark.parametrize(
    "change", [drop, reshape, repeat, short_generator, no_log, other_format, no_about, about_is_a_list]
)
def test_a_tampered_file_is_refused(trainer: Any, tmp_path: Path, change: Any) -> None:
    trainer(1).run()
    path = tmp_path / "out" / "checkpoint.npz"
    tampered(path, change)
    with pytest.raises(RuntimeFault):
        resume(path, trainer(2, out="other"))
