"""The local registry: the contract, and what only plain files can go through."""

import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

from backends.local_store import LocalStore
from tests.artifacts.local_runs import ENVIRONMENT, make_local_run
from tests.contract.store_contract import MakeRun, RegisterCommand, StoreContract, npz_bytes
from trainer.artifacts import ModelVersion
from trainer.errors import ConfigError, DamagedRecordError, IntegrityError, NotFoundError

HERE = Path(__file__).parent
ONES = npz_bytes(a=np.ones(3))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "models")


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    return partial(make_local_run, tmp_path / "runs")


class TestLocalStore(StoreContract):
    registrations = 16

    @pytest.fixture
    def store(self, store: LocalStore) -> LocalStore:
        return store

    @pytest.fixture
    def make_run(self, make_run: MakeRun) -> MakeRun:
        return make_run

    @pytest.fixture
    def register_command(self, store: LocalStore) -> RegisterCommand:
        return lambda folder, name: [HERE / "register_at_once.py", store.models, folder.path, name]


def test_files_are_plain_and_readable(store: LocalStore, make_run: MakeRun) -> None:
    version = store.register(make_run(ONES), "m")
    directory = store.models / "m" / "1"
    assert sorted(path.name for path in directory.iterdir()) == ["model.npz", "version.json"]
    assert (directory / "model.npz").read_bytes() == ONES
    assert msgspec.json.decode((directory / "version.json").read_bytes(), type=ModelVersion) == version
    assert version.versions == ENVIRONMENT
    assert directory.stat().st_mode & 0o777 == 0o755


def test_a_link_to_another_output_is_followed_and_one_that_leads_out_is_not(
    store: LocalStore, make_run: MakeRun, tmp_path: Path
) -> None:
    folder = make_run(None)
    (folder.outputs / "best.npz").write_bytes(ONES)
    (folder.outputs / "model.npz").symlink_to("best.npz")
    store.register(folder, "m")
    assert (store.models / "m" / "1" / "model.npz").read_bytes() == ONES
    outside = tmp_path / "secret.npz"
    outside.write_bytes(ONES)
    folder = make_run(None)
    (folder.outputs / "model.npz").symlink_to(outside)
    with pytest.raises(IntegrityError, match="not a file within"):
        store.register(folder, "m")
    folder = make_run(None)
    os.mkfifo(folder.outputs / "model.npz")
    with pytest.raises(IntegrityError, match="not a file within"):
        store.register(folder, "m")


@pytest.mark.parametrize(
    "environment",
    [
        b"",
        b"[]",
        b'{"python": ',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a": "' + b"x" * 100_000 + b'"}',
        b'{"python": 3, "numpy": null, "../x": "1", "x": "\\u001b[31m", "y": "a b"}',
    ],
    ids=["empty", "list", "cut", "not-utf8", "deep", "long", "odd"],
)
def test_nothing_in_environment_json_stops_a_registration(
    store: LocalStore, make_run: MakeRun, environment: bytes
) -> None:
    folder = make_run(ONES)
    (folder.outputs / "environment.json").write_bytes(environment)
    assert store.register(folder, "m").versions == {}


def test_a_pipe_for_environment_json_is_not_waited_for(store: LocalStore, make_run: MakeRun) -> None:
    folder = make_run(ONES)
    (folder.outputs / "environment.json").unlink()
    os.mkfifo(folder.outputs / "environment.json")
    assert store.register(folder, "m").versions == {}


def test_metrics_without_end_are_cut(store: LocalStore, make_run: MakeRun) -> None:
    folder = make_run(ONES, metrics={f"m{n}": [0.0] for n in range(5000)} | {"x" * 10_000: [1.0]})
    assert len(store.register(folder, "m").metrics) <= 200


def test_what_a_crash_left_is_ignored_by_readers_and_cleaned_by_the_next_writer(
    store: LocalStore, make_run: MakeRun
) -> None:
    first = store.register(make_run(ONES), "m")
    model = store.models / "m"
    (model / ".staging-dead").mkdir()
    (model / ".staging-dead" / "model.npz").write_bytes(b"half")
    (model / ".deleted-2").mkdir()
    (model / ".deleted-2" / "version.json").write_bytes(b"half")
    (model / "7").mkdir()  # a copy that was broken off
    assert store.versions() == [first]
    assert store.get("m") == first
    assert store.register(make_run(ONES), "m").version == 8
    assert sorted(path.name for path in model.iterdir()) == [".lock", "1", "7", "8"]


def test_a_damaged_record_is_named_and_can_be_deleted(store: LocalStore, make_run: MakeRun) -> None:
    store.register(make_run(ONES), "m")
    record = store.models / "m" / "1" / "version.json"
    for damage in (b"", b"{}", record.read_bytes().replace(b'"version": 1', b'"version": 2')):
        record.write_bytes(damage)
        with pytest.raises(DamagedRecordError, match=r"version\.json is damaged") as caught:
            store.get("m")
        assert "trainer delete m:1" in caught.value.hint
        assert store.versions() == []
        assert store.damaged() == [caught.value.message]
    assert store.register(make_run(ONES), "m").version == 2, "one damaged record must not stop other registrations"
    store.delete("m", 1)
    assert [version.version for version in store.versions()] == [2]
    store.models.joinpath("m", "1").mkdir()  # what remains has no record
    assert [version.version for version in store.versions()] == [2]


@pytest.mark.parametrize("place", ["1", ".deleted-1", ".deleted-7", ".staging-x", "", ".."])
@pytest.mark.parametrize("what", ["directory", "file", "link"])
def test_what_strays_into_a_registry_blocks_nothing(
    store: LocalStore, make_run: MakeRun, place: str, what: str, tmp_path: Path
) -> None:
    for _ in range(3):
        store.register(make_run(ONES), "m")
    store.delete("m", 2)
    model = store.models / "m"
    at = model / place
    if place in (".deleted-7", ".staging-x"):
        stray = at
    else:
        at.mkdir(exist_ok=True)
        stray = at / ("stray" if place else "77")
    if what == "directory":
        (stray / "sub").mkdir(parents=True)
        (stray / "sub" / "file").touch()
    elif what == "file":
        stray.touch()
    else:
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside" / "kept").touch()
        stray.symlink_to(tmp_path / "outside")
    store.delete("m", 1)
    found = store.register(make_run(ONES), "m")
    assert [version.version for version in store.versions("m")] == [3, found.version]
    assert store.damaged() == []
    assert what != "link" or (tmp_path / "outside" / "kept").exists()


def test_a_registry_that_cannot_be_written_is_a_clear_error(tmp_path: Path, make_run: MakeRun) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="Can't write to the model registry"):
        LocalStore(tmp_path / "file").register(make_run(ONES), "m")


def test_a_full_disk_leaves_no_trace(store: LocalStore, make_run: MakeRun) -> None:
    folder = make_run(npz_bytes(a=np.ones(100_000)))
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from pathlib import Path; from backends.local_store import LocalStore\n"
        "from trainer.runfolder import RunFolder\n"
        "from trainer.errors import ConfigError\n"
        "try: LocalStore(Path(sys.argv[1])).register(RunFolder(Path(sys.argv[2])), 'm')\n"
        "except ConfigError as error: print(error.message)\n"
    )
    command = [sys.executable, "-c", limited, store.models, folder.path]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Can't write to the model registry" in shown
    assert [path.name for path in (store.models / "m").iterdir()] == [".lock"]
    assert store.register(folder, "m").version == 1


def test_a_version_deleted_while_it_is_fetched(store: LocalStore, make_run: MakeRun, tmp_path: Path) -> None:
    version = store.register(make_run(ONES), "m")
    shutil.rmtree(store.models / "m" / "1")
    with pytest.raises(NotFoundError):
        store.download(version, tmp_path / "model.npz")


def test_threads_of_one_process_get_numbers_of_their_own(store: LocalStore, make_run: MakeRun) -> None:
    found: list[int] = []
    folders = [make_run(ONES) for _ in range(8)]
    threads = [
        threading.Thread(target=lambda folder=folder: found.append(store.register(folder, "m").version))
        for folder in folders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(1, 9))


def test_ten_thousand_versions_are_listed_without_numpy_and_the_latest_is_one_file_away(
    store: LocalStore, make_run: MakeRun
) -> None:
    version = store.register(make_run(ONES), "m")
    for number in range(2, 10_001):
        directory = store.models / "m" / str(number)
        directory.mkdir()
        record = msgspec.structs.replace(version, version=number)
        (directory / "version.json").write_bytes(msgspec.json.encode(record))
    script = (
        "import sys; opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(args[0]) if event == 'open' else None)\n"
        "from pathlib import Path; from backends.local_store import LocalStore\n"
        "store = LocalStore(Path(sys.argv[1])); opened.clear()\n"
        "assert store.get('m').version == 10_000; assert len(opened) <= 1, opened\n"
        "assert [v.version for v in store.versions()] == list(range(1, 10_001))\n"
        "assert not {'numpy', 'chainer'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script, store.models], check=True)
