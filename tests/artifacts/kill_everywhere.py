"""Kill a process with SIGKILL between any two file operations that it makes, and look at what is left.

A process of its own, because it forks: each attempt is a child that works on a fresh directory and kills itself at
its n-th operation, for n = 1, 2, ... until a child lives to the end. Prints how many were killed.

Usage: kill_everywhere.py SCRATCH register|delete|fetch|replace
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from backends.local_store import LocalStore
from trainer.artifacts import fetch, file_sha256, read_record
from trainer.modelfile import check_npz
from trainer.runfolder import RunFolder

# Whatever changes a file, a directory or a lock, by the name of the C function. Reads change nothing.
OPERATIONS = {
    "open", "write", "flush", "close", "fsync", "mkdir", "rename", "replace", "link", "unlink", "remove", "rmdir",
    "chmod", "fchmod", "flock", "ftruncate", "truncate", "symlink", "sendfile", "copy_file_range", "utime", "mkdtemp",
}  # fmt: skip


def kill_at(count: int) -> Callable[[FrameType, str, Any], None]:
    """A profile function that ends this process when it is about to begin the given operation.

    On the disk, that is the same as having just ended the operation before.
    """
    left = count

    def profile(_frame: FrameType, event: str, function: Any) -> None:
        nonlocal left
        if event == "c_call" and function.__name__ in OPERATIONS:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return profile


def survives(work: Callable[[], object], kill_point: int) -> bool:
    """Do the work in a child that is to be killed; whether it was through before its end came."""
    child = os.fork()
    if child == 0:
        sys.setprofile(kill_at(kill_point))
        work()
        sys.setprofile(None)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


class Scene:
    """A registry with two versions of the model ``m``, and a run that is not registered yet."""

    def __init__(self, template: Path, place: Path) -> None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(template, place)
        self.store = LocalStore(place / "models")
        self.run = RunFolder(place / "new" / next((place / "new").iterdir()).name)
        self.target = place / "target"

    def state(self) -> dict[int, str]:
        """Digest of every version, each checked to be whole."""
        found = {}
        for version in self.store.versions():
            path = self.store.models / "m" / str(version.version) / "model.npz"
            assert file_sha256(path) == version.sha256
            check_npz(path)
            found[version.version] = version.run_id
        return found

    def leftovers(self) -> list[str]:
        names = {path.name for path in (self.store.models / "m").iterdir()}
        return sorted(name for name in names if not name.isdigit() and name != ".lock" and "deleted" not in name)


def register(scene: Scene) -> Callable[[], object]:
    return lambda: scene.store.register(scene.run, "m")


def check_register(scene: Scene, before: dict[int, str]) -> None:
    assert scene.state() in (before, {**before, 3: scene.run.run_id})
    assert scene.store.register(scene.run, "m").version == 3
    assert scene.state() == {**before, 3: scene.run.run_id}
    assert scene.leftovers() == []


def delete(scene: Scene) -> Callable[[], object]:
    return lambda: scene.store.delete("m", 2)


def check_delete(scene: Scene, before: dict[int, str]) -> None:
    after = {1: before[1]}
    assert scene.state() in (before, after)
    if 2 in scene.state():
        scene.store.delete("m", 2)
    assert scene.store.register(scene.run, "m").version == 3, "a deleted number came back"
    assert scene.state() == {**after, 3: scene.run.run_id}
    assert scene.leftovers() == []
    assert list((scene.store.models / "m" / ".deleted-2").iterdir()) == []


def fetch_new(scene: Scene) -> Callable[[], object]:
    return lambda: fetch(scene.store, "m:2", scene.target)


def fetch_over(scene: Scene) -> Callable[[], object]:
    fetch(scene.store, "m:1", scene.target)
    return lambda: fetch(scene.store, "m:2", scene.target, force=True)


def check_fetch(scene: Scene, before: dict[int, str]) -> None:
    model = scene.target / "model.npz"
    known = {version.sha256: version for version in scene.store.versions()}
    if model.exists():
        assert file_sha256(model) in known
        assert read_record(model) in (None, known[file_sha256(model)])
    again = fetch(scene.store, "m:2", scene.target, force=True)
    assert file_sha256(model) == again.model.sha256
    assert read_record(model) == again.model
    hidden = [path.name for path in scene.target.iterdir() if path.is_dir()]
    assert hidden == [], hidden
    assert scene.state() == before


CASES = {
    "register": (register, check_register),
    "delete": (delete, check_delete),
    "fetch": (fetch_new, check_fetch),
    "replace": (fetch_over, check_fetch),
}


def main(scratch: Path, case: str) -> None:
    """``scratch`` holds ``template``: models/, runs/ and new/."""
    prepare, check = CASES[case]
    kill_point = 1
    while True:
        scene = Scene(scratch / "template", scratch / "scene")
        before = scene.state()
        done = survives(prepare(scene), kill_point)
        check(scene, before)
        if done:
            break
        kill_point += 1
    print(kill_point - 1)


if __name__ == "__main__":
    import msgspec  # noqa: F401  # imported lazily it would be part of what is killed

    main(Path(sys.argv[1]), sys.argv[2])
