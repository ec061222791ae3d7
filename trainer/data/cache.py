"""This machine's data sets on disk.

::

    <root>/mnist/        the four files of a data set, as a mirror gave them or as they were made
    <root>/decoded/      decompressed copies, mapped into memory by runs
    <root>/verified/     stamps of files whose digests have been computed
    <root>/mnist.lock    held while a data set is fetched

The root is ``TRAINER_DATA_DIR``, else the user's cache directory. If ``TRAINER_DATA_DIR`` itself holds the
four files, it is somebody's data: it is read, never written, and the root is the user's cache directory.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trainer.data.catalogue import CatalogueEntry, CatalogueFile
from trainer.data.progress import Progress
from trainer.data.verified import Stamps
from trainer.errors import ConfigError
from trainer.locks import locked
from trainer.runtime.datasets.files import FILES, find_file
from trainer.runtime.faults import RuntimeFault

DATA_DIR = "TRAINER_DATA_DIR"


@dataclass(frozen=True)
class FileState:
    """One file of a known data set as it lies on disk.

    Attributes:
        expected: What it must be.
        path: Where it lies, or None if it is missing.
        sha256: Of its decompressed content, or None if it has none.
        fault: What is wrong with it, one line, or None.
    """

    expected: CatalogueFile
    path: Path | None
    sha256: str | None = None
    fault: str | None = None


class Cache:
    """The data sets of one root.

    Args:
        root: Where this program writes.
        given: A directory of the user's that itself holds the four files, or None.
    """

    def __init__(self, root: Path, given: Path | None = None) -> None:
        self.root = root
        self.given = given

    @classmethod
    def from_environment(cls) -> Cache:
        """The cache of this user."""
        import platformdirs

        default = platformdirs.user_cache_path("trainer") / "data"
        named = os.environ.get(DATA_DIR)
        if not named:
            return cls(default)
        directory = Path(named).expanduser().absolute()
        return cls(default, directory) if _holds_files(directory) else cls(directory)

    @property
    def decoded(self) -> Path:
        """Where decompressed copies lie."""
        return self.root / "decoded"

    @cached_property
    def stamps(self) -> Stamps:
        """The digests computed so far."""
        return Stamps(self.root / "verified")

    def folder(self, entry: CatalogueEntry) -> Path:
        """Where a data set lies, or would."""
        return self.root / entry.name

    def find(self, entry: CatalogueEntry) -> tuple[Path, dict[str, Path]] | None:
        """A data set's directory and its verified files by name, or None if it isn't whole here."""
        for directory in (self.given, self.folder(entry)):
            if directory is not None:
                states = self.inspect(entry, directory)
                files = {state.expected.name: state.path for state in states if state.path and not state.fault}
                if len(files) == len(entry.files):
                    return directory, files
        return None

    def inspect(self, entry: CatalogueEntry, directory: Path, *, afresh: bool = False) -> list[FileState]:
        """Every file of a data set in a directory.

        Args:
            entry: What the files must be.
            directory: Where they should lie.
            afresh: Read every byte, whatever the stamps say.
        """
        return [self._inspect(expected, directory, afresh) for expected in entry.files]

    def _inspect(self, expected: CatalogueFile, directory: Path, afresh: bool) -> FileState:
        path = find_file(directory, expected.name)
        if path is None:
            return FileState(expected, None, fault="missing")
        try:
            sha256 = self.stamps.digest(path, largest=expected.size, afresh=afresh)
        except RuntimeFault as fault:
            return FileState(expected, path, fault=fault.message)
        if sha256 != expected.sha256:
            return FileState(expected, path, sha256, f"{path} has the SHA-256 {sha256}, not {expected.sha256}.")
        return FileState(expected, path, sha256)

    def set_aside(self, entry: CatalogueEntry, progress: Progress) -> dict[str, Path]:
        """Rename what is damaged in a data set's folder, and give what is sound, by name.

        Raises:
            ConfigError: The cache can't be written.
        """
        sound = {}
        for expected in entry.files:
            # Behind a damaged plain file there may be a sound gzipped one.
            while (state := self._inspect(expected, self.folder(entry), afresh=False)).path:
                if not state.fault:
                    sound[expected.name] = state.path
                    break
                aside = state.path.with_name(f"{state.path.name}.corrupt-{time.time_ns()}")
                try:
                    state.path.rename(aside)
                except OSError as error:
                    raise unwritable(aside, error) from error
                progress.say(f"{state.fault} It is set aside as {aside.name}.")
        return sound

    @contextlib.contextmanager
    def locked(self, entry: CatalogueEntry, progress: Progress) -> Iterator[Path]:
        """Hold a data set's lock and give its folder, which exists then.

        Raises:
            ConfigError: The cache can't be written.
        """
        folder, lock = self.folder(entry), self.root / f"{entry.name}.lock"
        with contextlib.ExitStack() as stack:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                try:
                    stack.enter_context(locked(lock, blocking=False))
                except BlockingIOError:
                    progress.say(f"Waiting for another process that fetches {entry.name}.")
                    stack.enter_context(locked(lock))
            except OSError as error:
                raise unwritable(folder, error) from error
            yield folder


def unwritable(path: Path, error: OSError) -> ConfigError:
    """The error for a cache that can't be written."""
    return ConfigError(
        f"Can't write the data cache {path}: {error.strerror or error}.",
        f"Free some space, or set {DATA_DIR} to a directory that can be written.",
    )


def _holds_files(directory: Path) -> bool:
    return all(find_file(directory, name) for name in FILES)
