"""Exactly what travels with a job, and its digest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import trainer
from trainer import contentstore
from trainer.copying import clone
from trainer.errors import ConfigError, RefusedError, UsageError
from trainer.interpreter import TOP
from trainer.job import DEFAULT_SCRIPT as DEFAULT_SCRIPT
from trainer.runtime.layout import DATA_DIR, EXECUTABLES_FILE, JOB_DIR, LAUNCHER, OBJECTIVE_FILE, RESUME_DIR, STUDY_DIR
from trainer.sourcefiles import AMLIGNORE, SourceFiles, check_name, source_files

# Made of the snapshot's other files when it is staged, so no file of its own.
EXECUTABLES = f"{JOB_DIR}/{EXECUTABLES_FILE}"
_CHUNK = 1 << 20
# Copied twice for every run; more than this is a data set, not a program.
_LARGEST = 4 << 30
# More than programs come to; worth a word.
_LARGE = 100_000_000


@dataclass(frozen=True)
class SnapshotFile:
    """One file of a snapshot.

    Attributes:
        path: Where it lies in the snapshot, with forward slashes.
        source: Where it is read from.
        size: In bytes.
        sha256: In lower-case hexadecimal.
        executable: Whether its owner may execute it; no other permission travels.
    """

    path: str
    source: Path
    size: int
    sha256: str
    executable: bool


@dataclass(frozen=True)
class Limits:
    """What a service takes.

    Attributes:
        whose: Who sets them, for messages.
        files: Largest number of files.
        size: Largest total size in bytes.
    """

    whose: str
    files: int
    size: int


@dataclass(frozen=True)
class Snapshot:
    """The files of a job, sorted by path, and what the choice of them left to say.

    Attributes:
        files: The files.
        ignore_file: ``.amlignore`` or ``.gitignore`` if one chose them, else None.
        notes: What was left behind unasked, one line each.
    """

    files: tuple[SnapshotFile, ...]
    ignore_file: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        r"""SHA-256 of one line per file, in the order of their paths' UTF-8 bytes, in hexadecimal.

        The line is ``<sha256> <x or -> <path>\n``: what each file holds, whether it is executable, and where it
        lies. Times and owners don't count, so the same files give the same digest on every machine.
        """
        lines = (f"{file.sha256} {'x' if file.executable else '-'} {file.path}\n".encode() for file in self.files)
        return hashlib.sha256(b"".join(lines)).hexdigest()

    @property
    def size(self) -> int:
        """The files' total size in bytes."""
        return sum(file.size for file in self.files)

    def stage(self, target: Path, store: Path | None = None) -> None:
        """Copy the files to ``target``, which is missing or an empty directory.

        It is filled under another name and renamed, so it is either empty or complete.

        Args:
            target: The directory.
            store: Where large files are stored once and linked from (:mod:`trainer.contentstore`); None copies all.

        Raises:
            UsageError: A file changed or vanished since the snapshot was taken.
            ConfigError: It can't be written.
        """
        try:
            temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        except OSError as error:
            raise _unwritable(target, error) from error
        try:
            for folder in {os.path.dirname(file.path) for file in self.files}:  # noqa: PTH120
                os.makedirs(temporary / folder, exist_ok=True)  # noqa: PTH103
            for file in self.files:
                _place(file, temporary / file.path, store)
            if executables := self.executables():
                (temporary / EXECUTABLES).write_text(json.dumps(executables))
            temporary.chmod(0o755)
            temporary.replace(target)
        except OSError as error:
            raise _unwritable(target, error) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @classmethod
    def of(cls, files: Mapping[str, Path]) -> Snapshot:
        """Return the snapshot of files that are known: path in it to the file.

        Raises:
            UsageError: One can't be read or sent.
        """
        return cls(_digested(files))

    @classmethod
    def load(cls, staged: Path) -> Snapshot:
        """Return the snapshot that lies in a directory, read and digested again."""
        found = (path for path in staged.rglob("*") if path.is_file() and path != staged / EXECUTABLES)
        return cls(_digested({path.relative_to(staged).as_posix(): path for path in found}))

    def executables(self) -> list[str]:
        """Return which of the user's files are executable. Not every upload keeps that, so a job's launcher is told."""
        if not any(file.path == LAUNCHER for file in self.files):
            return []
        return [file.path for file in self.files if file.executable and not file.path.startswith(JOB_DIR + "/")]

    def with_resume(self, files: Mapping[str, Path]) -> Snapshot:
        """Return the same snapshot with other files to resume from.

        Args:
            files: Path below ``_trainer_job/resume/`` to the file.
        """
        return self._with(RESUME_DIR, RESUME_DIR, files)

    def with_dataset(self, name: str, files: Mapping[str, Path]) -> Snapshot:
        """Return the same snapshot with another data set.

        Args:
            name: The data set's name.
            files: The name of each of its files to the file.
        """
        return self._with(DATA_DIR, f"{DATA_DIR}/{name}", files)

    def with_objective(self, path: Path) -> Snapshot:
        """Return the same snapshot with what tells the trials of a study which epoch to keep."""
        return self._with(STUDY_DIR, STUDY_DIR, {OBJECTIVE_FILE: path})

    def _with(self, replaced: str, folder: str, files: Mapping[str, Path]) -> Snapshot:
        kept = [file for file in self.files if not file.path.startswith(replaced + "/")]
        added = _digested({f"{folder}/{name}": path for name, path in files.items()})
        return replace(self, files=_sorted([*kept, *added]))


def default_script() -> Path:
    """Return the training script that ships with this package.

    Raises:
        ConfigError: It is missing.
    """
    # Beside the package in a clone and in site-packages alike.
    script = TOP / DEFAULT_SCRIPT
    if not script.is_file():
        raise ConfigError(f"{DEFAULT_SCRIPT} is missing beside the trainer package.", "Install the package again.")
    return script


def build_snapshot(
    script: Path,
    *,
    source: Path | None = None,
    exclude: Iterable[Path] = (),
    beside: Iterable[Path] = (),
) -> Snapshot:
    """Choose and digest what travels with the script; data and what to resume from are added to the snapshot.

    Args:
        script: The script. Our own travels alone, any other with the directory it lies in.
        source: Travel with this directory instead; it holds the script.
        exclude: Directories that never travel.
        beside: Files that travel with the script, beside it.

    Raises:
        UsageError: The script can't be read or doesn't lie in ``source``, a file can't be read or sent, or
            one has a name that the job needs for itself.
    """
    top = source_directory(script, source)
    chosen = SourceFiles({script.name: script}, None) if top is None else source_files(top, exclude)
    if top is not None:
        _check_travels(script_path(script, source), chosen)
        _check_reserved(chosen.files, top)
    files = _digested({path.name: path for path in beside} | chosen.files | _own_files())
    return Snapshot(files, chosen.ignore_file, (*chosen.notes, *_note_on_size(files)))


def source_directory(script: Path, source: Path | None) -> Path | None:
    """Return the directory that travels, or None where the script travels alone."""
    if source is not None:
        return source.resolve()
    return None if is_default_script(script) else script.resolve().parent


def script_path(script: Path, source: Path | None) -> str:
    """Return the script's path inside the snapshot.

    Raises:
        UsageError: It lies outside the directory that travels.
    """
    top = source_directory(script, source)
    try:
        return script.name if top is None else script.resolve().relative_to(top).as_posix()
    except ValueError:
        raise UsageError(f"{script} does not lie in {top}.", "Give --source a directory that holds it.") from None


def is_default_script(script: Path) -> bool:
    """Return whether this is the script that ships with this package."""
    return script.resolve() == default_script()


def check_limits(snapshot: Snapshot, limits: Limits) -> None:
    """Refuse a snapshot that a service would not take, naming what fills it.

    Raises:
        RefusedError: It has too many files or bytes.
    """
    over = []
    count = len(snapshot.files) + bool(snapshot.executables())
    if count > limits.files:
        over.append(f"{count:,} files, and {limits.whose} takes {limits.files:,}")
    if snapshot.size > limits.size:
        over.append(f"{snapshot.size / 1e6:,.1f} MB, and {limits.whose} takes {limits.size / 1e6:,.1f} MB")
    if not over:
        return
    largest = sorted(snapshot.files, key=lambda file: -file.size)[:3]
    some = ", ".join(f"{file.path} ({file.size / 1e6:,.1f} MB)" for file in largest)
    data = any(file.path.startswith(DATA_DIR + "/") for file in largest)
    raise RefusedError(
        f"The snapshot has {'; '.join(over)}. Largest: {some}.",
        "Choose a smaller --dataset." if data else "List what the job doesn't need in .amlignore; see: trainer package",
    )


def _note_on_size(files: Iterable[SnapshotFile]) -> tuple[str, ...]:
    theirs = sorted((file for file in files if not file.path.startswith(JOB_DIR + "/")), key=lambda file: -file.size)
    total = sum(file.size for file in theirs)
    if total <= _LARGE:
        return ()
    some = ", ".join(f"{file.path} ({file.size / 1e6:,.1f} MB)" for file in theirs[:3])
    return (
        f"{total / 1e6:,.0f} MB beside the script travel with it, and every run keeps a copy: {some}. "
        f"List what the job doesn't need in {AMLIGNORE}.",
    )


def _own_files() -> dict[str, Path]:
    package = Path(trainer.__file__).resolve().parent
    modules = [package / "__init__.py", *(package / "runtime").rglob("*.py")]
    return {f"{JOB_DIR}/trainer/{path.relative_to(package).as_posix()}": path for path in modules}


def _check_travels(name: str, chosen: SourceFiles) -> None:
    if name not in chosen.files:
        rule = chosen.ignore_file or "what never travels (outputs/, environments, caches, links that lead outside)"
        raise UsageError(
            f"The script {name} would not travel: it falls under {rule}.", "Change the rule, or move the script."
        )


def _check_reserved(files: Iterable[str], top: Path) -> None:
    for name in files:
        first = name.partition("/")[0]
        if first == JOB_DIR:
            raise UsageError(f"{top / first} has a name that jobs need for themselves.", "Rename or ignore it.")


def _digested(files: Mapping[str, Path]) -> tuple[SnapshotFile, ...]:
    found, total = [], 0
    for name, path in files.items():
        check_name(name)
        try:
            total += path.stat().st_size
            if total > _LARGEST:
                raise UsageError(
                    f"The files to send with the script come to more than {_LARGEST >> 30} GiB.",
                    "List what it doesn't need in .amlignore, or give --source a smaller directory.",
                )
            found.append(_digest(name, path))
        except OSError as error:
            raise UsageError(
                f"Can't read {path}: {error.strerror}.", "Make it readable, or list it in .amlignore."
            ) from error
    return _sorted(found)


def _digest(name: str, path: Path) -> SnapshotFile:
    """Digest a file as it is first seen: what is appended meanwhile does not travel."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123
        status = os.fstat(stream.fileno())
        for chunk in _chunks(stream, status.st_size):
            digest.update(chunk)
    return SnapshotFile(name, path, status.st_size, digest.hexdigest(), bool(status.st_mode & 0o100))


def _chunks(stream: IO[bytes], size: int) -> Iterator[bytes]:
    """Yield the next ``size`` bytes, or fewer where there are no more."""
    while size and (chunk := stream.read(min(size, _CHUNK))):
        size -= len(chunk)
        yield chunk


def _sorted(files: Iterable[SnapshotFile]) -> tuple[SnapshotFile, ...]:
    return tuple(sorted(files, key=lambda file: file.path.encode()))


def _place(file: SnapshotFile, target: Path, store: Path | None) -> None:
    shared = store if file.size >= contentstore.LEAST and not file.executable else None
    if shared is not None and contentstore.link(shared, file.sha256, target):
        return
    _copy(file, target)
    if shared is not None:
        contentstore.add(shared, file.sha256, target)


def _copy(file: SnapshotFile, target: Path) -> None:
    digest = hashlib.sha256()
    try:
        source = open(file.source, "rb", buffering=0)  # noqa: PTH123, SIM115
    except OSError as error:
        raise UsageError(f"{file.source} can't be read any more: {error.strerror}.", "Start again.") from error
    status = os.fstat(source.fileno())
    with source, target.open("x+b") as copy:
        if cloned := clone(source, copy):
            copy.truncate(file.size)  # it may have grown
        for chunk in _chunks(copy if cloned else source, file.size):
            digest.update(chunk)
            if not cloned:
                copy.write(chunk)
        copy.flush()
        os.fchmod(copy.fileno(), 0o755 if file.executable else 0o644)
        os.utime(copy.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
    if digest.hexdigest() != file.sha256:
        raise UsageError(f"{file.source} changed while it was being copied.", "Start again when nothing writes to it.")


def _unwritable(target: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"Can't stage the snapshot in {target}: {error.strerror}.", "Free some space, or set TRAINER_HOME elsewhere."
    )
