"""Kill a supervisor between any two file operations of a run's end, kill whoever takes over as well, and look.

Usage: kill_finish.py SCRATCH SCENE. Prints how many were killed.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from backends import local_supervisor as supervisor
from backends.local import LocalBackend
from backends.local_workdir import make_workdir, working_directory
from tests.artifacts.kill_everywhere import survives
from trainer.finish import Outcome
from trainer.home import Home
from trainer.job import TrainingJob
from trainer.listing import list_infos
from trainer.records import RunFailure, RunStatus
from trainer.runfolder import NEW_PREFIX, RunFolder, clean_new

DONE = Outcome(RunStatus.COMPLETED)
FAILED = Outcome(RunStatus.FAILED, RunFailure(message="ValueError: its own reason", exit_code=1))
_LARGE = np.random.default_rng(0).bytes(3 << 20)


def plain(work: Path) -> list[str]:
    """A model, a folder with a file, and a file beside the outputs."""
    made = work / "outputs"
    np.savez(made / "model.npz", w=np.arange(3))
    (made / "more").mkdir()
    (made / "more" / "x").write_bytes(_LARGE)
    (work / "result").mkdir()
    (work / "result" / "log").write_text("epoch 1")
    return ["model.npz", "more/x", "result/log"]


def links(work: Path) -> list[str]:
    """A model that is a link to a checkpoint beside the outputs, and links to folders there, one within another."""
    made = work / "outputs"
    (work / "snapshots" / "deep").mkdir(parents=True)
    np.savez(work / "snapshots" / "best.npz", w=np.arange(3))
    (work / "snapshots" / "deep" / "x").write_bytes(_LARGE)
    (work / "elsewhere").mkdir()
    (work / "elsewhere" / "y").write_text("y")
    (work / "snapshots" / "inner").symlink_to("../elsewhere")
    (work / "snapshots" / "self").symlink_to(".")
    (made / "model.npz").symlink_to("../snapshots/best.npz")
    (made / "folder").symlink_to(work / "snapshots")
    (made / "again").symlink_to("../snapshots/deep")
    (made / "absolute").symlink_to(made / "folder")
    return ["model.npz", "folder/best.npz", "folder/deep/x", "folder/inner/y", "again/x", "absolute/deep/x"]


def moved(work: Path) -> list[str]:
    """Outputs that the script put elsewhere, with a link in their place."""
    made = work / "outputs"
    kept = plain(work)
    made.rename(work / "results")
    made.symlink_to("results")
    return kept


def started(home: Home) -> RunFolder:
    folder = RunFolder.create(home.runs, TrainingJob(script="x.py"), backend="local", snapshot="0" * 64)
    make_workdir(folder)
    folder.update(status=RunStatus.RUNNING)
    return folder


def digests(top: Path, names: list[str]) -> dict[str, str]:
    """What files hold that are in the outputs, or lie beside them as long as the job works."""
    places = {name: top / name if (top / name).exists() else top.parent / name for name in names}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in places.items()}


def check(home: Home, folder: RunFolder, outcome: Outcome, files: dict[str, str]) -> None:
    """The run has ended truthfully, and nothing is lost, doubled, cut or left over."""
    backend = LocalBackend(home, {})
    info = backend.refresh(folder)
    assert info.status in (outcome.status, RunStatus.FAILED), info
    if outcome.failure and info.failure:
        assert info.failure == outcome.failure or "supervised" in info.failure.message, info
    assert (info.model is not None) == (info.status is RunStatus.COMPLETED), info
    assert len(backend.store().versions()) == (1 if info.model else 0), info
    assert not folder.outputs.is_symlink()
    assert digests(folder.outputs, list(files)) == files
    assert all((folder.outputs / name).exists() for name in files)
    assert list(folder.outputs.rglob("*~*")) == []
    assert not working_directory(folder).exists()
    assert sorted(path.name for path in folder.path.glob(".*") if path.suffix not in (".lock", ".tmp")) == []
    assert backend.refresh(folder) == info
    assert list_infos(home).problems == ()


def finishing(scratch: Path, scene: Callable[[Path], list[str]], outcome: Outcome) -> int:
    """Kill at the first operation, the second, ..., until one lives to the end."""
    count = 1
    while True:
        home = Home(scratch / "home", scratch)
        folder = started(home)
        work = working_directory(folder)
        files = digests(work / "outputs", scene(work))
        store = LocalBackend(home, {}).store()
        through = survives(lambda: supervisor._finish(folder, store, outcome), count)  # noqa: B023  # called at once
        if not through:
            survives(lambda: supervisor.take_over(folder, store), 1 + count // 2)  # noqa: B023
        check(home, folder, outcome, files)
        shutil.rmtree(home.path)
        if through:
            return count - 1
        count += 1


def submitting(scratch: Path) -> int:
    """Kill whoever makes a run's folder."""
    count = 1
    while True:
        home = Home(scratch / "home", scratch)

        def make(home: Home = home) -> object:
            return RunFolder.create(home.runs, TrainingJob(script="x.py"), backend="local", snapshot="0" * 64)

        through = survives(make, count)
        # A run has both its records, or there is none.
        listing = list_infos(home, refresh=False)
        assert listing.problems == ()
        for info in listing.infos:
            RunFolder(home.runs / info.run_id).job()
        make()
        clean_new(home.runs)
        assert list(home.runs.glob(f"{NEW_PREFIX}*")) == []
        assert len(list_infos(home, refresh=False).infos) == len(listing.infos) + 1
        shutil.rmtree(home.path)
        if through:
            return count - 1
        count += 1


def no_hard_links(*_: object, **__: object) -> None:
    """In the place of ``os.link``, as on a file system that has none."""
    raise PermissionError(1, "Operation not permitted")


def main(scratch: Path, scene: str) -> int:
    """Run one scene. ``links-copied`` is ``links`` without hard links, ``plain-failed`` a script that failed."""
    if scene == "submit":
        return submitting(scratch)
    name, _, variant = scene.partition("-")
    if variant == "copied":
        os.link = no_hard_links  # type: ignore[assignment]
    makers = {"plain": plain, "links": links, "moved": moved}
    return finishing(scratch, makers[name], FAILED if variant == "failed" else DONE)


SCENES = ("plain", "plain-failed", "links", "links-copied", "links-failed", "moved", "submit")

if __name__ == "__main__":
    print(main(Path(sys.argv[1]), sys.argv[2]))
