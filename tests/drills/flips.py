"""Records damaged in every way that a disk, a script or a person can: mutated, nested, or something else altogether.

Whatever is done to one file, every reader ends with a record or with an error that names the file, and everything else
that is in the home is still read.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from backends.local import LocalBackend
from tests.artifacts.local_runs import make_local_run
from tests.contract.store_contract import npz_bytes
from tests.drills.drill import Drill
from trainer import repair
from trainer.artifacts import describe_model, environment_versions, fetch, read_record
from trainer.console.summary import as_object, print_summary
from trainer.errors import DamagedRecordError, TrainerError
from trainer.home import Home
from trainer.listing import list_infos, open_run
from trainer.runfolder import RunFolder

FORMATS = (
    *("status.json", "job.json", "metrics.jsonl", "progress.json", "labels.json", "outputs/environment.json"),
    *("version.json", "model.json"),
)
KINDS = ("fifo", "directory", "socket", "loop", "link out", "device", "empty", "unreadable", "gigabyte")


@dataclass
class Scene:
    """A home with two runs and two versions of one model, of which one each is about to be damaged.

    Attributes:
        home: The home.
        victim: The run and, as version 1, its model.
        other: What must stay readable.
        files: Every format's file, with its content as it was.
    """

    home: Home
    victim: RunFolder
    other: RunFolder
    files: dict[str, Path] = field(default_factory=dict)
    whole: dict[str, bytes] = field(default_factory=dict)


def make_scene(top: Path) -> Scene:
    import numpy as np

    home = Home(top / ".trainer", top)
    victim, other = (
        make_local_run(
            home.runs,
            npz_bytes(a=np.full(3, number)),
            metrics={"Accuracy": [0.5, 0.75], "Loss": [2.0, 1.0]},
            tags={"k": "v"},
        )
        for number in (1, 2)
    )
    (victim.path / "progress.json").write_bytes(b'{"epoch": 1.5, "epochs": 10, "loss": 0.5, "time": 3.5}')
    (victim.path / "labels.json").write_bytes(b'{"tags": {"a": "b"}, "properties": {"c": "d"}}')
    store = LocalBackend(home, {}).store()
    for folder in (victim, other):
        folder.update(detail={"pid": 3, "flags": ["a"], "nested": {"b": [1, "c"]}}, warnings=("take care",))
        store.register(folder, "m")
    fetched = fetch(store, "m:1", top / "fetched")
    scene = Scene(home, victim, other)
    for name in FORMATS[:6]:
        scene.files[name] = victim.path / name
    scene.files["version.json"] = store.models / "m" / "1" / "version.json"
    scene.files["model.json"] = fetched.path.with_name("model.json")
    scene.whole = {name: path.read_bytes() for name, path in scene.files.items()}
    return scene


def read_everything(scene: Scene, name: str) -> bool:
    """Read all that is there, with one file damaged, as every command does.

    Returns:
        Whether some reader refused the file.

    Raises:
        AssertionError: Something else was lost with it, or the file is not named.
        Exception: An escape: a reader raised what is no error of ours.
    """
    path = scene.files[name]
    refused = False
    named: set[str] = set()

    def attempt(use: Callable[[], object]) -> None:
        nonlocal refused
        try:
            use()
        except DamagedRecordError as error:
            refused = True
            named.add(str(error.path))
        except TrainerError:
            refused = True

    listing = list_infos(scene.home)
    assert scene.other.run_id in {info.run_id for info in listing.infos}
    assert all(str(path) in problem for problem in listing.problems), listing.problems
    assert scene.victim.run_id in {info.run_id for info in listing.infos} or listing.problems
    backend = LocalBackend(scene.home, {})
    store = backend.store()
    versions = store.versions()
    assert 2 in {version.version for version in versions}
    assert all(str(path) in problem for problem in store.damaged()), store.damaged()
    assert len(versions) + len(store.damaged()) >= 2 or not path.exists()
    attempt(lambda: store.get("m", 1))
    assert store.get("m").version == 2
    attempt(lambda: _show(scene))
    attempt(lambda: describe_model(RunFolder(scene.victim.path), "m", version=3, sha256="0" * 64, size=1))
    attempt(lambda: backend.cancel(RunFolder(scene.victim.path)))
    assert named <= {str(path)}, named
    environment_versions(scene.victim)
    read_record(scene.files["model.json"].with_name("model.npz"))
    found = list(repair.find(scene.home))
    assert found or not named or name == "model.json"
    return refused


def _show(scene: Scene) -> None:
    run = open_run(scene.home, scene.victim.run_id)
    with contextlib.redirect_stdout(io.StringIO()):
        info = run.info()
        msgspec.json.encode(as_object(run, info))
        print_summary(run, info, detailed=True)
    list(run.logs())
    run.progress()


_TOKENS = (
    *(b"null", b"true", b"[]", b"{}", b'""', b"-1", b"1e999", b"-0", b"0.1", b"9" * 400, b"1e300"),
    *(b"NaN", b"Infinity"),
    *(b"[" * 3000 + b"]" * 3000, b'{"a":' * 3000 + b"1" + b"}" * 3000, b"[" * 200 + b"]" * 200),
    *(
        b'"\\ud800"',
        b'"\\u0000"',
        b'"\x1b]0;x\x07"',
        b'"' + b"x" * 5000 + b'"',
        b"18446744073709551616",
        b"\xff",
        b"\x00",
    ),
)


@st.composite
def mutated(draw: st.DrawFn, whole: bytes) -> bytes:
    """A record with one to four changes: bits, bytes, pieces, values, and both ends."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(1, 12))
        change = draw(st.sampled_from(("bit", "byte", "insert", "cut", "value", "double", "truncate", "random")))
        if change == "bit" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif change == "byte" and data:
            data[at] = draw(st.integers(0, 255))
        elif change == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif change == "cut":
            del data[at : at + length]
        elif change == "value":
            _replace_value(data, at, draw(st.sampled_from(_TOKENS)))
        elif change == "double":
            data[at:at] = data[at : at + length * 4]
        elif change == "truncate":
            del data[at:]
        elif change == "random":
            data[at : at + length] = draw(st.binary(min_size=length, max_size=length))
    return bytes(data)


def _replace_value(data: bytearray, at: int, token: bytes) -> None:
    """Put a token in the place of the value after the next colon."""
    colon = data.find(b":", at)
    if colon < 0:
        return
    ends = [end for mark in b",}\n" if (end := data.find(mark, colon)) > 0]
    data[colon + 1 : min(ends, default=len(data))] = token


def fuzz(scene: Scene, times: int) -> dict[str, int]:
    """Mutate each format's file ``times`` over the number of formats.

    Returns:
        How often each format's file was refused.
    """
    refused = dict.fromkeys(FORMATS, 0)
    for name in FORMATS:
        path, whole = scene.files[name], scene.whole[name]

        @settings(
            max_examples=times // len(FORMATS),
            database=None,
            deadline=None,
            derandomize=times < 10_000,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(mutated(whole))
        def one(data: bytes) -> None:
            path.write_bytes(data)  # noqa: B023  # called at once
            refused[name] += read_everything(scene, name)  # noqa: B023

        try:
            one()
        finally:
            path.write_bytes(whole)
    return refused


@contextlib.contextmanager
def replaced(path: Path, kind: str) -> Iterator[None]:
    """Put something in a file's place for a while."""
    kept = path.with_name(path.name + ".kept")
    path.rename(kept)
    bound = None
    try:
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "directory":
            path.mkdir()
        elif kind == "socket":
            bound = socket.socket(socket.AF_UNIX)
            here = Path.cwd()
            os.chdir(path.parent)  # its address may have a hundred bytes
            bound.bind(path.name)
            os.chdir(here)
        elif kind == "loop":
            path.symlink_to(path.name)
        elif kind == "link out":
            path.symlink_to("/etc/passwd")
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "empty":
            path.touch()
        elif kind == "unreadable":
            shutil.copy(kept, path)
            path.chmod(0)
        elif kind == "gigabyte":
            with path.open("wb") as stream:
                stream.truncate(1 << 30)
        yield
    finally:
        if bound is not None:
            bound.close()
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        kept.rename(path)


def mutations(scratch: Path, scale: float) -> dict[str, int]:
    """A scene of its own, damaged tens of thousands of times."""
    times = max(len(FORMATS), round(40_000 * scale))
    fuzz(make_scene(scratch), times)
    return {"mutations": times // len(FORMATS) * len(FORMATS)}


def kinds(scratch: Path, _: float) -> dict[str, int]:
    """Something else in each format's place."""
    scene = make_scene(scratch)
    tried = 0
    for name in FORMATS:
        for kind in KINDS:
            with replaced(scene.files[name], kind):
                read_everything(scene, name)
            tried += 1
    return {"files replaced": tried}


DRILLS = (
    Drill(
        "flips",
        "A damaged record is one line that names the file; every other run, model and command works.",
        mutations,
    ),
    Drill(
        "odd-records",
        "The same for a pipe, a device, a directory, a link or a gigabyte in a record's place; no reader waits for it.",
        kinds,
    ),
)
