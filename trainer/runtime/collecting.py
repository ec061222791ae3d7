"""What a script writes outside ``outputs``, brought there when it has ended.

Chainer's examples write to ``result/`` unless ``--out`` says otherwise. A file that is new or changed in the working
directory at the job's end lies at the same path below ``outputs`` afterwards: ``result/log`` is ``outputs/result/log``.
What the script itself put there stays; a file that would take its place is called ``log~``.

The supervisor of a run on this machine calls :func:`collect` once every process of the job has ended; on Azure ML the
job does it itself, before ``outputs`` is uploaded. What is beyond the limits is named, with its size.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from trainer.runtime.datasets.files import FILES
from trainer.runtime.layout import (
    COLLECT_DEFAULT,
    COLLECT_EXPECTED,
    COLLECT_FORM,
    JOB_DIR,
    LOGS_DIR,
    METRICS_FILE,
    OUTPUTS_DIR,
    PROGRESS_FILE,
)

State = Mapping[str, tuple[int, int]]
"""Path below a directory to size in bytes and modification time in nanoseconds."""

# At the top: ours, and what Azure ML's own programs make in a job's working directory.
_NOT_THE_SCRIPTS = (OUTPUTS_DIR, JOB_DIR, "azureml-logs", "user_logs", "system_logs", "azureml_compute_logs")
_NOT_THE_SCRIPTS_LOGS = tuple(f"{LOGS_DIR}/{name}" for name in ("azureml", METRICS_FILE, PROGRESS_FILE))
_CACHES = frozenset(
    (
        *("__pycache__", ".cache", ".ipynb_checkpoints", ".azureml", ".nv", ".cupy", ".git", ".venv", "node_modules"),
        *(".mypy_cache", ".pytest_cache", ".ruff_cache", ".config", ".local", ".ipython", ".jupyter", ".collected"),
    )
)
# What azureml.opendatasets downloads: Azure's tutorial has it written to data/mnist in every run.
_DATA = frozenset((*FILES, *(f"{name}.gz" for name in FILES)))
_IGNORED = re.compile(r"\.py[co]$|^core(\.\d+)?$")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_MOST_FILES = 1000
# Logs, plots and arguments come before snapshots of the trainer, which come newest first.
_SMALL = 1 << 20
_PARTIAL = ".collecting.tmp"
_CHUNK = 1 << 20
_NAMED = 3


class Limits(NamedTuple):
    """How much is collected: number of files, bytes in all, bytes of one file."""

    files: int
    size: int
    single: int


class _File(NamedTuple):
    name: str
    size: int
    time: int
    inode: tuple[int, int]
    is_link: bool


def limits_of(setting: str | None) -> Limits:
    """Return what a setting allows: ``off``, ``all``, or a size in all, of which one file may take half.

    Args:
        setting: It; None for the default.

    Raises:
        ValueError: It has another form.
    """
    if setting is not None and not re.search(COLLECT_FORM, setting):
        raise ValueError(f"{setting!r} is not {COLLECT_EXPECTED}")
    text = (setting or COLLECT_DEFAULT).lower().replace(" ", "")
    if text == "off":
        return Limits(0, 0, 0)
    if text == "all":
        return Limits(2**63, 2**63, 2**63)
    number, unit = re.fullmatch(r"([0-9.]+)([kmgt]?)b", text).groups()  # type: ignore[union-attr]  # COLLECT_FORM has this
    size = int(float(number) * _UNITS[unit])
    return Limits(_MOST_FILES, size, size // 2)


def state_of(directory: Path) -> State:
    """Return the state of the files below a directory, but for outputs, caches, MNIST and what is ours."""
    return {file.name: (file.size, file.time) for file in _files(directory)}


def collect(
    directory: Path, outputs: Path, before: State, setting: str | None = None, kept: Collection[str] = ()
) -> list[str]:
    """Bring what was written into the outputs. Called again after it was killed, it goes on.

    Files are linked, or copied where the file system has no hard links; they stay where they were, too.

    Args:
        directory: The working directory.
        outputs: The directory of outputs.
        before: The state of ``directory`` when the script began.
        setting: How much is collected; see :func:`limits_of`.
        kept: Absolute paths below ``directory``, links resolved, that are kept otherwise.

    Returns:
        What is not kept, one sentence per reason.
    """
    with suppress(OSError):
        (outputs / _PARTIAL).unlink(missing_ok=True)
    try:
        limits = limits_of(setting)
    except ValueError:  # it was checked before the run; a record was damaged since
        limits = limits_of(None)
    there = {_inode(status) for status in _statuses(outputs)}
    elsewhere = [*kept, os.path.realpath(outputs)]
    top = os.path.realpath(directory)
    new = [
        file
        for file in _files(directory)
        if before.get(file.name) != (file.size, file.time)
        and file.inode not in there
        and not any(_within(os.path.join(top, file.name), path) for path in elsewhere)  # noqa: PTH118  # many
    ]
    files = [file for file in new if not file.is_link]
    chosen, beyond = _choose(files, limits)
    failed: dict[str, list[_File]] = {}
    placed = set()
    for file in chosen:
        try:
            if _place(top, outputs, file) == f"{outputs}/{file.name}":
                placed.add(file.name)
        except OSError as error:
            failed.setdefault(error.strerror or str(error), []).append(file)
    for link in new:
        if link.is_link and limits.files:
            _place_link(top, outputs, link.name, placed)
    said = [_sentence(beyond, _why(limits))] if beyond else []
    return [*said, *(_sentence(lost, f"{why}.") for why, lost in failed.items())]


def _files(directory: Path) -> Iterable[_File]:
    top = str(directory)
    for folder, folders, names in os.walk(top):
        below = folder[len(top) + 1 :]
        inside = f"{below}/" if below else ""
        folders[:] = sorted(each for each in folders if each not in _CACHES and not _is_not_the_scripts(inside + each))
        # A link to a directory is in the one list, a link to a file in the other.
        for name in (*names, *folders):
            if name in _DATA or _IGNORED.search(name) or _is_not_the_scripts(inside + name):
                continue
            with suppress(OSError):
                status = os.lstat(f"{folder}/{name}")
                is_link = stat.S_ISLNK(status.st_mode)
                if is_link or stat.S_ISREG(status.st_mode):
                    yield _File(inside + name, status.st_size, status.st_mtime_ns, _inode(status), is_link)


def _is_not_the_scripts(path: str) -> bool:
    return path in _NOT_THE_SCRIPTS or path in _NOT_THE_SCRIPTS_LOGS


def _statuses(directory: Path) -> Iterable[os.stat_result]:
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):
                yield os.lstat(os.path.join(folder, name))  # noqa: PTH118  # there can be many


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _choose(files: list[_File], limits: Limits) -> tuple[list[_File], list[_File]]:
    """Divide files into what the limits allow, small ones first and then the newest, and the rest."""
    chosen: list[_File] = []
    beyond: list[_File] = []
    size = 0
    for file in sorted(files, key=lambda file: (file.size > _SMALL, -file.time, file.name)):
        fits = len(chosen) < limits.files and file.size <= limits.single and size + file.size <= limits.size
        (chosen if fits else beyond).append(file)
        size += file.size if fits else 0
    return chosen, beyond


def _place(top: str, outputs: Path, file: _File) -> str:
    """Give a file a name among the outputs, and return its path there.

    Raises:
        OSError: It can't be had.
    """
    source = f"{top}/{file.name}"
    target = _target(top, outputs, file.name, lambda path: _is_copy(path, file))
    if os.path.lexists(target):
        return target
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # a file system without hard links, or another one
        partial = outputs / _PARTIAL
        with open(source, "rb") as reader, partial.open("wb") as writer:  # noqa: PTH123  # the name may be no UTF-8
            left = file.size  # what is appended meanwhile is not waited for
            while left and (chunk := reader.read(min(left, _CHUNK))):
                writer.write(chunk)
                left -= len(chunk)
        with suppress(OSError):
            shutil.copystat(source, partial)
        partial.replace(target)
    return target


def _is_copy(path: str, file: _File) -> bool:
    """Whether a file among the outputs is the copy that was made before a kill."""
    with suppress(OSError):
        status = os.lstat(path)
        return stat.S_ISREG(status.st_mode) and (status.st_size, status.st_mtime_ns) == (file.size, file.time)
    return False


def _target(top: str, outputs: Path, name: str, is_it: Callable[[str], bool]) -> str:
    """Return where a file belongs among the outputs, in directories that are there then.

    Links among the outputs are not followed. One that leads to the very file or directory makes way for it.

    Raises:
        OSError: A directory can't be made.
    """
    outputs.mkdir(parents=True, exist_ok=True)
    path, done = str(outputs), top
    *folders, last = name.split("/")
    for folder in folders:
        path, done = f"{path}/{folder}", f"{done}/{folder}"
        _make_way(path, done)
        while os.path.lexists(path) and not _is_directory(path):
            path += "~"
        if not os.path.lexists(path):
            Path(path).mkdir()
    stem, ending = os.path.splitext(last)  # noqa: PTH122  # the name may be no UTF-8
    target = f"{path}/{last}"
    _make_way(target, f"{done}/{last}")
    while os.path.lexists(target) and not is_it(target):
        stem += "~"
        target = f"{path}/{stem}{ending}"
    return target


def _make_way(link: str, original: str) -> None:
    if os.path.islink(link) and os.path.realpath(link) == os.path.realpath(original):  # noqa: PTH114  # see above
        os.unlink(link)  # noqa: PTH108


def _is_directory(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def _place_link(top: str, outputs: Path, name: str, placed: Collection[str]) -> None:
    """Make a link such as ``latest`` again, if it leads to a file that was collected too."""
    with suppress(OSError):
        text = os.readlink(f"{top}/{name}")  # noqa: PTH115  # the name may be no UTF-8
        if not os.path.isabs(text) and os.path.normpath(f"{os.path.dirname(name)}/{text}").lstrip("/") in placed:  # noqa: PTH117, PTH120
            target = _target(top, outputs, name, lambda path: os.path.islink(path) and os.readlink(path) == text)  # noqa: PTH114, PTH115
            if not os.path.lexists(target):
                os.symlink(text, target)  # noqa: PTH211


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + os.sep)


def _why(limits: Limits) -> str:
    write = f"write below {OUTPUTS_DIR}/, for example with -- --out {OUTPUTS_DIR}"
    if not limits.files:
        return f"Collecting is off. To keep it, {write}, or leave out --collect off."
    return (
        f"A run keeps up to {limits.files:,} such files, {_size(limits.size)} in all and {_size(limits.single)} each. "
        f"To keep more, {write}, or give --collect a size or all."
    )


def _sentence(files: list[_File], why: str) -> str:
    largest = sorted(files, key=lambda file: (-file.size, file.name))
    some = ", ".join(f"{_shown(file.name)} ({_size(file.size)})" for file in largest[:_NAMED])
    many = len(files) != 1
    return (
        f"{len(files):,} file{'s' * many}, {_size(sum(file.size for file in files))}, written outside {OUTPUTS_DIR}/ "
        f"{'were' if many else 'was'} not kept: {some}{', ...' if len(files) > _NAMED else ''}. {why}"
    )


def _shown(name: str) -> str:
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _size(count: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} byte{'s' * (count != 1)}"
