"""The job's working directory: made from the snapshot, and emptied of what the job leaves when it has ended.

    work/            a copy of snapshot/, the job's working directory while it runs
    work/outputs/    a real directory, so that scripts may remove and make it
    outputs          meanwhile a link to it; afterwards the directory itself

Outputs are collected by renaming. Where a link among them would dangle once ``work/`` is removed, what it points to
takes its place: built whole under ``work/.collected/`` first, then renamed. A process that is killed on the way leaves
every output as it was or as it will be, and collecting again completes it. What the job wrote beside its outputs is
brought there last, by :mod:`trainer.runtime.collecting`.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from backends.local_bytecode import lay_compiled
from trainer.copying import copy_writable
from trainer.errors import TrainerError
from trainer.failures import reason
from trainer.recordfile import kind_of
from trainer.runfolder import RunFolder
from trainer.runtime import collecting
from trainer.runtime.atomic import sync_directory
from trainer.runtime.layout import CHECKPOINT_FILE, ENVIRONMENT_FILE, JOB_DIR, MODEL_FILE, OUTPUTS_DIR, WORK_DIR
from trainer.trees import described, open_up, remove_tree, walk

_COLLECTED = ".collected"
_PARTIAL = "partial"
# Room that is given back when a full disk would keep the end of the run from being recorded.
_RESERVE = ".reserve"
_RESERVED_BYTES = 256 << 10
# What trainer.runtime.atomic leaves of these if the job is killed while it writes them.
_OURS = (CHECKPOINT_FILE, ENVIRONMENT_FILE, MODEL_FILE)


def working_directory(folder: RunFolder) -> Path:
    """Return the directory in which the run's job works."""
    return folder.path / WORK_DIR


def make_workdir(folder: RunFolder) -> Path:
    """Copy the snapshot, show its outputs in the run's folder, and reserve room for the run's end.

    The trials of a study share one snapshot; of that, what is ours (the runtime and the data set) is linked.

    Raises:
        OSError: It can't be written.
    """
    work = working_directory(folder)
    if os.path.lexists(work) or folder.outputs.is_symlink():  # an earlier supervisor was killed while it made them
        remove_tree(work)
        if folder.outputs.is_symlink():
            folder.outputs.unlink()
        folder.outputs.mkdir(exist_ok=True)
    if folder.snapshot.is_symlink():
        copy_linked(folder.snapshot, work)
    else:
        # A file of the snapshot may be a read-only link to one that other runs share. The job gets bytes of its own.
        shutil.copytree(folder.snapshot, work, copy_function=copy_writable)
        lay_compiled(work)
    (work / OUTPUTS_DIR).mkdir()
    folder.outputs.rmdir()
    folder.outputs.symlink_to(Path(work.name) / OUTPUTS_DIR)
    (folder.path / _RESERVE).write_bytes(os.urandom(_RESERVED_BYTES))
    return work


def copy_linked(snapshot: Path, work: Path) -> None:
    """Copy a snapshot with hard links for the files that no script has a reason to write to.

    Raises:
        OSError: It can't be written.
    """
    shared = os.path.join(snapshot, JOB_DIR, "")  # noqa: PTH118  # compared with what copytree passes, a text

    def copy(source: str, target: str) -> str:
        if source.startswith(shared):
            with suppress(OSError):  # a file system without links
                os.link(source, target)
                return target
        return copy_writable(source, target)

    shutil.copytree(snapshot, work, copy_function=copy)


def release_reserve(folder: RunFolder) -> None:
    """Give back the room that :func:`make_workdir` reserved."""
    with suppress(OSError):
        (folder.path / _RESERVE).unlink()


def collect_outputs(folder: RunFolder) -> list[str]:
    """Move the outputs into the run's folder and remove the rest. Again after a kill: it goes on where it was.

    Returns:
        What could not be kept, one sentence for each.

    Raises:
        OSError: It can't be written.
    """
    work, outputs = working_directory(folder), folder.outputs
    problems: list[str] = []
    if work.is_dir() and not work.is_symlink():
        open_up(work)
        made = _made_outputs(work, problems)
        kept: list[str] = []
        if made is not None and made.is_dir():
            collector = _Collector(work, made)
            problems += collector.settle()
            kept = [str(made.resolve()), *collector.sources]
        if outputs.is_symlink():
            outputs.unlink()
        if made is not None:
            _move(made, outputs, problems)
        if os.path.lexists(outputs) and not outputs.is_dir():
            _make_way(outputs, problems)
        outputs.mkdir(exist_ok=True)
        problems += _collect_the_rest(folder, work, kept)
    elif outputs.is_symlink():
        outputs.unlink()
    if os.path.lexists(outputs) and not outputs.is_dir():
        _make_way(outputs, problems)
    outputs.mkdir(exist_ok=True)
    sync_directory(folder.path)
    _remove_halves(outputs)
    try:
        remove_tree(work)
    except OSError as error:
        problems.append(f"The working directory {described(work)} could not be removed: {reason(error)}")
    return problems


def _collect_the_rest(folder: RunFolder, work: Path, kept: list[str]) -> list[str]:
    """Keep what the job wrote outside its outputs.

    Args:
        folder: The run, with its outputs.
        work: The working directory.
        kept: Paths in it that links among the outputs, or in their place, lead to.

    Returns:
        What is not kept.
    """
    setting = None
    with suppress(TrainerError):
        setting = folder.job().collect
    # copytree() has kept the times of the snapshot's files.
    return collecting.collect(work, folder.outputs, collecting.state_of(folder.snapshot), setting, kept)


def _made_outputs(work: Path, problems: list[str]) -> Path | None:
    """Find what the job left as its outputs: a directory, or a file that it put in its place."""
    made = work / OUTPUTS_DIR
    if not made.is_symlink():
        return made if os.path.lexists(made) else None
    target = Path(os.path.realpath(made))
    if not os.path.lexists(target):
        # Moved already, before a kill, or never there.
        return None
    if target.is_relative_to(work.resolve()) and not made.is_relative_to(target) and target.is_dir():
        return target
    problems.append(
        f"The script replaced outputs by a link to {described(target)}, which is not a directory of its own within "
        "its working directory; nothing of it was kept."
    )
    return None


def _move(made: Path, outputs: Path, problems: list[str]) -> None:
    if not made.is_dir():
        outputs.mkdir(exist_ok=True)
        what = kind_of(made.lstat().st_mode)
        problems.append(f"The script replaced the directory outputs by {what}; it is kept as outputs/{OUTPUTS_DIR}.")
        outputs = outputs / OUTPUTS_DIR
    elif os.path.lexists(outputs):
        with suppress(OSError):
            outputs.rmdir()
    if os.path.lexists(outputs):
        _make_way(outputs, problems)
    made.replace(outputs)


def _make_way(path: Path, problems: list[str]) -> None:
    """Rename what the script put where the outputs belong."""
    count = 1
    while os.path.lexists(other := path.with_name(f"{path.name}.{count}")):
        count += 1
    path.rename(other)
    problems.append(f"The script put {kind_of(other.lstat().st_mode)} in the place of {path.name}; it is now {other}.")


def _remove_halves(outputs: Path) -> None:
    for name in _OURS:
        for half in outputs.glob(f".{name}.????????.tmp"):
            with suppress(OSError):
                half.unlink()


class _Collector:
    """Replaces links among the outputs that would dangle without the working directory by what they point to.

    Args:
        work: The working directory.
        outputs: The directory of outputs in it.
    """

    def __init__(self, work: Path, outputs: Path) -> None:
        self._work = work.resolve()
        self._outputs = outputs.resolve()
        self._staging = self._work / _COLLECTED
        self._placed: dict[str, str] = {}
        self._problems: list[str] = []
        self._count = 0

    @property
    def sources(self) -> list[str]:
        """Paths of what was copied from outside the outputs."""
        return list(self._placed)

    def settle(self) -> list[str]:
        """Do it. Returns what could not be kept."""
        self._go_on()
        waiting = [str(self._outputs)]
        while waiting:
            for entry in walk(Path(waiting.pop()), self._unseen):
                if not entry.is_symlink():
                    continue
                try:
                    self._settle_link(entry.path)
                except OSError as error:
                    self._lost(entry.path, f"could not be kept: {reason(error).rstrip('.')}")
                if not Path(entry.path).is_symlink() and Path(entry.path).is_dir():
                    waiting.append(entry.path)  # a copy by now, with links of its own
        return self._problems

    def _unseen(self, directory: str, error: OSError) -> None:
        self._lost(directory, f"was moved without a look at the links in it: {error.strerror}")

    def _settle_link(self, link: str) -> None:
        target = os.path.realpath(link)
        if Path(target).is_symlink():  # where realpath stops because a loop begins
            self._lost(link, "is a link that leads to itself")
            return
        if not os.path.lexists(target):
            self._lost(link, "is a link to nothing")
            return
        if _within(target, str(self._outputs)):
            if os.path.isabs(os.readlink(link)):  # noqa: PTH115, PTH117
                self._replace_by_link(link, target)
        elif _within(target, str(self._work)):
            if _within(str(self._outputs), target):
                self._lost(link, "is a link to a directory that holds the outputs; it was removed")
                os.unlink(link)  # noqa: PTH108
            elif (placed := self._place_of(target)) is not None:
                self._replace_by_link(link, placed)
            else:
                self._replace_by_copy(link, target)
        # What lies outside of the working directory stays there, and the link stays true.

    def _place_of(self, target: str) -> str | None:
        """Return where a copy of ``target`` is among the outputs by now."""
        for source, place in self._placed.items():
            if _within(target, source):
                found = place + target[len(source) :]
                return found if os.path.lexists(found) else None
        return None

    def _replace_by_link(self, link: str, target: str) -> None:
        temporary = self._temporary()
        os.symlink(os.path.relpath(target, os.path.realpath(os.path.dirname(link))), temporary)  # noqa: PTH120, PTH211
        os.replace(temporary, link)  # noqa: PTH105

    def _replace_by_copy(self, link: str, target: str) -> None:
        temporary = self._temporary()
        if os.path.isdir(target):  # noqa: PTH112
            self._copy_tree(target, temporary)
            self._swap(temporary, link)
        elif os.path.isfile(target):  # noqa: PTH113
            _copy(target, str(temporary))
            os.replace(temporary, link)  # noqa: PTH105
        else:
            self._lost(link, f"is a link to {kind_of(os.stat(target).st_mode)}, which is not kept")  # noqa: PTH116
            return
        self._placed[target] = link

    def _copy_tree(self, source: str, target: Path) -> None:
        """Copy a directory without its links' targets; they become absolute links, which are settled later."""
        target.mkdir()
        for entry in walk(Path(source), lambda path, error: self._lost(path, f"is not kept: {error.strerror}")):
            place = str(target) + entry.path[len(source) :]
            if entry.is_symlink():
                os.symlink(os.path.realpath(entry.path), place)  # noqa: PTH211
            elif entry.is_dir():
                os.mkdir(place)  # noqa: PTH102
            elif entry.is_file():
                try:
                    _copy(entry.path, place)
                except OSError as error:
                    self._lost(entry.path, f"is not kept: {error.strerror}")
            else:
                self._lost(entry.path, "is not kept: it is no file")

    def _swap(self, whole: Path, link: str) -> None:
        """Put a directory in a link's place. No system call does that at once, so it is written down before."""
        order = whole.with_suffix(".order")
        partial = whole.with_suffix(f".{_PARTIAL}")
        partial.write_bytes(os.fsencode(os.path.relpath(link, self._outputs)))
        partial.replace(order)
        self._carry_out(order)

    def _carry_out(self, order: Path) -> None:
        link = self._outputs / os.fsdecode(order.read_bytes())
        if link.is_symlink():
            link.unlink()
        whole = order.with_suffix("")
        if whole.is_dir() and not os.path.lexists(link):
            whole.rename(link)
        order.unlink()

    def _go_on(self) -> None:
        """Complete what a killed process had begun."""
        if not self._staging.is_dir():
            return
        for order in self._staging.glob("*.order"):
            self._carry_out(order)
        remove_tree(self._staging)

    def _temporary(self) -> Path:
        self._staging.mkdir(exist_ok=True)
        self._count += 1
        return self._staging / f"{self._count:08}"

    def _lost(self, path: str, why: str) -> None:
        shown = path.removeprefix(str(self._work) + os.sep)
        self._problems.append(f"{described(shown)} {why}.")


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + os.sep)


def _copy(source: str, target: str) -> None:
    """Copy a file, where possible as another name of the same one: at once, and without room."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # a file system without hard links, or another one
        shutil.copy2(source, target, follow_symlinks=False)
