"""What every model registry must do. A store's test file subclasses :class:`StoreContract` and adds its fixtures."""

from __future__ import annotations

import hashlib
import io
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import msgspec
import numpy as np
import pytest

from trainer.artifacts import ArtifactStore, ModelVersion, fetch, read_record
from trainer.errors import IntegrityError, NotFoundError, UsageError
from trainer.runfolder import RunFolder

UNUSABLE_NAMES = [
    "",
    ".",
    "..",
    "../up",
    "a/b",
    "/absolute",
    "a\\b",
    "nul\0",
    "a\n",
    "a..b",
    ".hidden",
    "-flag",
    "x" * 300,
]


class MakeRun(Protocol):
    """Makes a finished run.

    Nothing needs to have been executed: a folder, or a record with the service, with these outputs is enough.

    Args:
        model: The bytes of ``outputs/model.npz``; None for a run that wrote none.
        metrics: Values logged, by name and in order.
        tags: The job's tags.
    """

    def __call__(
        self,
        model: bytes | None,
        *,
        metrics: Mapping[str, Sequence[float]] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> RunFolder: ...


class RegisterCommand(Protocol):
    """The arguments for Python of a program that registers a run's model.

    It writes ``ready`` and a line end, waits for the end of its standard input, registers, and writes the
    :class:`ModelVersion` as JSON.
    """

    def __call__(self, folder: RunFolder, name: str) -> Sequence[str | Path]: ...


RegisterAtOnce = Callable[[Sequence[RunFolder], str], list[ModelVersion]]


class Exploit:
    """What a crafted file holds: unpickling it is running ``touch``."""

    def __init__(self, evidence: Path) -> None:
        self.evidence = evidence

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.evidence,)


def npz_bytes(**arrays: Any) -> bytes:
    """An npz file as ``numpy.savez`` writes it."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def exploit_bytes(evidence: Path) -> bytes:
    """An npz that creates the file ``evidence`` when it is loaded with pickles allowed."""
    pickle.loads(pickle.dumps(Exploit(evidence)))
    assert evidence.exists(), "the exploit is harmless, so refusing it would prove nothing"
    evidence.unlink()
    bomb = np.empty((), dtype=object)
    bomb[()] = Exploit(evidence)
    return npz_bytes(**{"l1/W": bomb})


class StoreContract:
    """Subclass it, and provide the fixtures that raise here.

    The store may be shared between tests: each uses a model name of its own.

    Attributes:
        registrations: How many processes register at once.
    """

    registrations: ClassVar[int] = 4

    @pytest.fixture
    def store(self) -> ArtifactStore:
        raise NotImplementedError

    @pytest.fixture
    def make_run(self) -> MakeRun:
        raise NotImplementedError

    @pytest.fixture
    def register_command(self) -> RegisterCommand:
        raise NotImplementedError

    @pytest.fixture
    def register_at_once(self, register_command: RegisterCommand) -> RegisterAtOnce:
        """Registers each of the runs in a process of its own, all at once."""

        def register(folders: Sequence[RunFolder], name: str) -> list[ModelVersion]:
            processes = [
                subprocess.Popen(
                    [sys.executable, *register_command(folder, name)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
                for folder in folders
            ]
            for process in processes:
                assert process.stdout
                assert process.stdout.readline() == b"ready\n"
            for process in processes:
                assert process.stdin
                process.stdin.close()
                process.stdin = None
            printed = [process.communicate()[0] for process in processes]
            assert [process.returncode for process in processes] == [0] * len(processes)
            return [msgspec.json.decode(line, type=ModelVersion) for line in printed]

        return register

    @pytest.fixture
    def name(self, request: pytest.FixtureRequest) -> str:
        return "model-" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]

    def test_follows_the_protocol(self, store: ArtifactStore) -> None:
        assert isinstance(store, ArtifactStore)
        assert store.name

    def test_a_version_records_where_it_came_from(self, store: ArtifactStore, make_run: MakeRun, name: str) -> None:
        model = npz_bytes(**{"l1/W": np.arange(6, dtype="f4").reshape(2, 3)})
        folder = make_run(model, metrics={"Accuracy": [0.5, 0.75], "Loss": [1.0]}, tags={"who": "me"})
        version = store.register(folder, name)
        info = folder.info()
        assert (version.name, version.version, version.reference) == (name, 1, f"{name}:1")
        assert (version.sha256, version.size) == (hashlib.sha256(model).hexdigest(), len(model))
        assert (version.run_id, version.backend, version.snapshot) == (folder.run_id, info.backend, info.snapshot)
        assert version.dataset == folder.job().dataset
        assert version.metrics == {"Accuracy": 0.75, "Loss": 1.0}
        assert version.tags["who"] == "me"
        assert version.versions["python"]
        assert version.created >= info.created - 60  # a service has a clock of its own
        assert store.get(name) == version

    def test_numbers_rise_by_one(self, store: ArtifactStore, make_run: MakeRun, name: str) -> None:
        versions = [store.register(make_run(npz_bytes(a=np.full(3, n))), name) for n in range(3)]
        assert [version.version for version in versions] == [1, 2, 3]
        assert store.versions(name) == versions
        assert store.get(name) == versions[2]
        assert store.get(name, 2) == versions[1]

    def test_the_same_run_again_is_the_same_version(self, store: ArtifactStore, make_run: MakeRun, name: str) -> None:
        folder = make_run(npz_bytes(a=np.ones(3)))
        first = store.register(folder, name)
        assert store.register(folder, name) == first
        assert store.register(folder, f"{name}-b").version == 1
        assert [version.name for version in store.versions() if version.name.startswith(name)] == [name, f"{name}-b"]

    def test_a_deleted_number_is_never_used_again(self, store: ArtifactStore, make_run: MakeRun, name: str) -> None:
        for n in range(3):
            store.register(make_run(npz_bytes(a=np.full(3, n))), name)
        store.delete(name, 3)
        assert store.get(name).version == 2
        assert store.register(make_run(npz_bytes(a=np.full(3, 3))), name).version == 4
        store.delete(name, 1)
        store.delete(name, 4)
        assert [version.version for version in store.versions(name)] == [2]
        store.delete(name, 2)
        assert store.versions(name) == []
        assert store.register(make_run(npz_bytes(a=np.full(3, 4))), name).version == 5

    def test_a_deleted_version_is_gone(
        self, store: ArtifactStore, make_run: MakeRun, name: str, tmp_path: Path
    ) -> None:
        version = store.register(make_run(npz_bytes(a=np.ones(3))), name)
        store.delete(name, 1)
        for lookup in (lambda: store.get(name), lambda: store.get(name, 1), lambda: store.delete(name, 1)):
            with pytest.raises(NotFoundError):
                lookup()
        with pytest.raises(NotFoundError):
            fetch(store, version.reference, tmp_path / "model")
        assert not (tmp_path / "model").exists()

    def test_what_was_never_there_is_not_found(self, store: ArtifactStore, name: str) -> None:
        assert store.versions(name) == []
        for lookup in (lambda: store.get(name), lambda: store.get(name, 7), lambda: store.delete(name, 7)):
            with pytest.raises(NotFoundError) as caught:
                lookup()
            assert caught.value.hint

    def test_fetch_gives_back_the_very_bytes(
        self, store: ArtifactStore, make_run: MakeRun, name: str, tmp_path: Path
    ) -> None:
        models = [npz_bytes(a=np.full(1000, n)) for n in (1, 2)]
        for model in models:
            store.register(make_run(model), name)
        for reference, expected in ((name, models[1]), (f"{name}:1", models[0]), (f"{name}:latest", models[1])):
            directory = tmp_path / reference.replace(":", "-") / "deep"
            fetched = fetch(store, reference, directory)
            assert fetched.written
            assert fetched.path.read_bytes() == expected
            assert read_record(fetched.path) == fetched.model == store.get(name, fetched.model.version)
            assert sorted(path.name for path in directory.iterdir()) == ["model.json", "model.npz"]

    def test_fetch_never_replaces_a_different_file(
        self, store: ArtifactStore, make_run: MakeRun, name: str, tmp_path: Path
    ) -> None:
        for n in (1, 2):
            store.register(make_run(npz_bytes(a=np.full(3, n))), name)
        first = fetch(store, f"{name}:1", tmp_path)
        before = first.path.stat()
        assert not fetch(store, f"{name}:1", tmp_path).written
        assert first.path.stat().st_mtime_ns == before.st_mtime_ns
        with pytest.raises(UsageError, match="different file") as caught:
            fetch(store, f"{name}:2", tmp_path)
        assert "--force" in caught.value.hint
        assert first.path.read_bytes() == npz_bytes(a=np.full(3, 1))
        assert fetch(store, f"{name}:2", tmp_path, force=True).written
        assert first.path.read_bytes() == npz_bytes(a=np.full(3, 2))

    def test_a_run_without_a_model_is_refused(self, store: ArtifactStore, make_run: MakeRun, name: str) -> None:
        with pytest.raises(NotFoundError, match=r"model\.npz"):
            store.register(make_run(None), name)
        assert store.versions(name) == []

    def test_a_pickle_is_refused_and_never_loaded(
        self, store: ArtifactStore, make_run: MakeRun, name: str, tmp_path: Path
    ) -> None:
        with pytest.raises(IntegrityError, match="Python objects"):
            store.register(make_run(exploit_bytes(tmp_path / "evidence")), name)
        assert not (tmp_path / "evidence").exists()
        assert store.versions(name) == []
        assert store.register(make_run(npz_bytes(a=np.ones(3))), name).version == 1

    def test_unusable_names_are_refused(self, store: ArtifactStore, make_run: MakeRun) -> None:
        folder = make_run(npz_bytes(a=np.ones(3)))
        for name in UNUSABLE_NAMES:
            for use in (
                lambda name=name: store.register(folder, name),
                lambda name=name: store.versions(name),
                lambda name=name: store.get(name),
                lambda name=name: store.delete(name, 1),
            ):
                with pytest.raises(UsageError):
                    use()

    def test_runs_registered_at_once_get_consecutive_numbers(
        self,
        store: ArtifactStore,
        make_run: MakeRun,
        name: str,
        register_at_once: RegisterAtOnce,
    ) -> None:
        folders = [make_run(npz_bytes(a=np.full(100, n))) for n in range(self.registrations)]
        versions = register_at_once(folders, name)
        assert sorted(version.version for version in versions) == list(range(1, len(folders) + 1))
        assert {version.run_id for version in versions} == {folder.run_id for folder in folders}
        assert store.versions(name) == sorted(versions, key=lambda version: version.version)

    def test_one_run_registered_twice_at_once_is_one_version(
        self,
        store: ArtifactStore,
        make_run: MakeRun,
        name: str,
        register_at_once: RegisterAtOnce,
    ) -> None:
        folder = make_run(npz_bytes(a=np.ones(100)))
        versions = register_at_once([folder] * self.registrations, name)
        assert len(store.versions(name)) == 1
        assert set(map(repr, versions)) == {repr(store.get(name))}
