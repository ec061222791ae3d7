"""Fetching: what may stand in the way, what may come over the wire, and what MODEL may say."""

import os
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

from backends.local_store import LocalStore
from tests.artifacts.local_runs import make_local_run
from tests.contract.store_contract import MakeRun, exploit_bytes, npz_bytes
from trainer.artifacts import ModelVersion, fetch, file_sha256, find_model, parse_model_reference, read_record
from trainer.errors import ConfigError, IntegrityError, NotFoundError, TrainerError, UsageError


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "models")


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    return partial(make_local_run, tmp_path / "runs")


@pytest.fixture
def version(store: LocalStore, make_run: MakeRun) -> ModelVersion:
    return store.register(make_run(npz_bytes(a=np.ones(3))), "chainer-dnn-mnist")


class TamperedStore(LocalStore):
    """Hands out other bytes than were registered, as a broken connection or a stranger might."""

    content = b""

    def download(self, model: ModelVersion, target: Path) -> None:
        target.write_bytes(self.content)


@pytest.mark.parametrize("content", [b"", b"other bytes", npz_bytes(a=np.ones(3))[:-1], npz_bytes(a=np.zeros(3))])
def test_other_bytes_never_appear(store: LocalStore, version: ModelVersion, tmp_path: Path, content: bytes) -> None:
    tampered = TamperedStore(store.models)
    tampered.content = content
    with pytest.raises(IntegrityError, match="SHA-256") as caught:
        fetch(tampered, "chainer-dnn-mnist", tmp_path / "here")
    assert version.reference in caught.value.message
    assert list((tmp_path / "here").iterdir()) == []


def test_a_registered_pickle_never_appears(store: LocalStore, version: ModelVersion, tmp_path: Path) -> None:
    # Someone replaced the file and its digest together.
    crafted = exploit_bytes(tmp_path / "evidence")
    kept, record = (store.models / version.name / "1" / name for name in ("model.npz", "version.json"))
    kept.write_bytes(crafted)
    changed = msgspec.structs.replace(version, sha256=file_sha256(kept), size=len(crafted))
    record.write_bytes(msgspec.json.encode(changed))
    with pytest.raises(IntegrityError, match="chainer-dnn-mnist:1 is not a safe npz file"):
        fetch(store, version.name, tmp_path / "here")
    assert list((tmp_path / "here").iterdir()) == []
    assert not (tmp_path / "evidence").exists()


def test_what_is_in_the_way_is_left_alone(store: LocalStore, version: ModelVersion, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for name in ("model.npz", "model.json"):
        (here / name).write_text("mine")
        with pytest.raises(UsageError, match="is a different file") as caught:
            fetch(store, version.name, here)
        assert "--force" in caught.value.hint
        assert (here / name).read_text() == "mine"
        (here / name).unlink()
    (here / "model.npz").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is a different file"):
        fetch(store, version.name, here)
    (here / "model.npz").unlink()
    assert fetch(store, version.name, here).written


def test_force_replaces_a_link_and_not_what_it_leads_to(
    store: LocalStore, version: ModelVersion, tmp_path: Path
) -> None:
    here, other = tmp_path / "here", tmp_path / "other.npz"
    here.mkdir()
    other.write_text("mine")
    (here / "model.npz").symlink_to(other)
    fetch(store, version.name, here, force=True)
    assert other.read_text() == "mine"
    assert not (here / "model.npz").is_symlink()


def test_directories_and_files_in_the_way_are_named(store: LocalStore, version: ModelVersion, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "here" / "model.npz").mkdir(parents=True)
    for force in (False, True):
        with pytest.raises(UsageError, match="is not a directory"):
            fetch(store, version.name, tmp_path / "file", force=force)
        with pytest.raises(UsageError, match="is a directory"):
            fetch(store, version.name, tmp_path / "here", force=force)
    with pytest.raises((ConfigError, UsageError)):
        fetch(store, version.name, tmp_path / "file" / "below")


def test_a_file_system_without_links_will_do(
    store: LocalStore, version: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert file_sha256(fetch(store, version.name, tmp_path / "here").path) == version.sha256


def test_the_record_belongs_to_its_file_alone(store: LocalStore, version: ModelVersion, tmp_path: Path) -> None:
    path = fetch(store, version.name, tmp_path / "here").path
    assert read_record(path) == version
    path.write_bytes(b"changed")
    assert read_record(path) is None
    path.with_name("model.json").write_text("{")
    assert read_record(path) is None
    assert read_record(tmp_path / "absent.npz") is None


def test_two_names_for_the_same_bytes_refresh_the_record(
    store: LocalStore, version: ModelVersion, make_run: MakeRun, tmp_path: Path
) -> None:
    second = store.register(make_run(npz_bytes(a=np.ones(3))), version.name)
    assert second.sha256 == version.sha256
    assert fetch(store, f"{version.name}:1", tmp_path / "here").written
    again = fetch(store, f"{version.name}:2", tmp_path / "here")
    assert not again.written
    assert read_record(again.path) == second


def test_a_model_is_found_by_what_is_unambiguous(store: LocalStore, version: ModelVersion, make_run: MakeRun) -> None:
    other = store.register(make_run(npz_bytes(a=np.zeros(3))), "chainer-cnn")
    for reference in (
        "chainer-dnn-mnist",
        "chainer-dnn-mnist:1",
        "chainer-dnn-mnist:latest",
        "chainer-d",
        "chainer-d:1",
    ):
        assert find_model(store, reference) == version
    assert find_model(store, "latest") == other
    with pytest.raises(UsageError, match="fits 2 models: chainer-cnn, chainer-dnn-mnist"):
        find_model(store, "chainer")
    for reference in ("other", "chainer-cnn:2", "chainer-d:2"):
        with pytest.raises(NotFoundError):
            find_model(store, reference)


def test_latest_of_nothing_is_not_found(store: LocalStore) -> None:
    with pytest.raises(NotFoundError, match="no models"):
        find_model(store, "latest")


@pytest.mark.parametrize(
    "reference", ["m:0", "m:-1", "m:1.5", "m:x", "m:", "m:99999999999", "", ":1", "a/b:1", "m:1:2"]
)
def test_references_that_mean_nothing_are_refused(reference: str) -> None:
    with pytest.raises(TrainerError) as caught:
        parse_model_reference(reference)
    assert isinstance(caught.value, UsageError)
    assert caught.value.hint
