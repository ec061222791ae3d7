"""This machine's data sets on disk.

::

    <root>/mnist/        the four files of a data set, as a mirror gave them or as they were made
    <root>/decoded/      decompressed copies, mapped into memory by runs
    <root>/verified/     stamps of files whose digests have been computed
    <root>/mnist.lock    held while a data set is fetched

The root is ``TRAINER_DATA_DIR``, else the user's cache directory. If ``TRAINER_DATA_DIR`` itself holds the
four files, it belongs to the user: it is read, never written, and the root is the user's cache directory.

A stamp holds the path, size, modification time and inode of the file that was read, as git's index and
make do. It says that nobody replaced or rewrote the file in the ordinary way since. It does not notice bytes
that rotted on disk or were changed under a restored modification time: ``trainer data verify``
reads every byte again, and gzip's own checksum is compared whenever a file is decompressed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from trainer import recordfile
from trainer.data.catalogue import CatalogueEntry, CatalogueFile
from trainer.errors import ConfigError, DamagedRecordError
from trainer.home import expanded, user_home
from trainer.locks import locked
from trainer.runtime.atomic import write_bytes
from trainer.runtime.datasets.files import FILES, find_file
from trainer.runtime.faults import RuntimeFault

DATA_DIR_VARIABLE = "TRAINER_DATA_DIR"
_CHUNK = 1 << 20


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
        root: Where this program writes; None for a user who has no place for it.
        given: A directory of the user's that itself holds the four files, or None.
    """

    def __init__(self, root: Path | None, given: Path | None = None) -> None:
        self._root = root
        self.given = given

    @classmethod
    def from_environment(cls) -> Cache:
        """Return the cache of this user."""
        import platformdirs

        has_place = os.environ.get("XDG_CACHE_HOME") or user_home() is not None
        default = platformdirs.user_cache_path("trainer") / "data" if has_place else None
        named = os.environ.get(DATA_DIR_VARIABLE)
        if not named:
            return cls(default)
        directory = expanded(Path(named)).absolute()
        return cls(default, directory) if _holds_files(directory) else cls(directory)

    @property
    def root(self) -> Path:
        """Where this program writes.

        Raises:
            ConfigError: There is no place for it.
        """
        if self._root is None:
            raise ConfigError(
                "There is no home directory to keep data sets in.",
                f"Set {DATA_DIR_VARIABLE} to a directory that can be written.",
            )
        return self._root

    @property
    def writable(self) -> bool:
        """Whether there is a root at all."""
        return self._root is not None

    @property
    def decoded(self) -> Path | None:
        """Where decompressed copies lie, or None."""
        return self._root / "decoded" if self._root else None

    @cached_property
    def stamps(self) -> Stamps:
        """The digests computed so far."""
        return Stamps(self._root / "verified" if self._root else None)

    def folder(self, entry: CatalogueEntry) -> Path:
        """Return where a data set lies, or would."""
        return self.root / entry.name

    def find(self, entry: CatalogueEntry) -> tuple[Path, dict[str, Path]] | None:
        """Return a data set's directory and its verified files by name, or None if it isn't whole here.

        Raises:
            ConfigError: There is no place where it could be.
        """
        directories = (self.given, self.folder(entry) if self._root or not self.given else None)
        for directory in directories:
            if directory is not None:
                states = self.inspect(entry, directory)
                files = {state.expected.name: state.path for state in states if state.path and not state.fault}
                if len(files) == len(entry.files):
                    return directory, files
        return None

    def inspect(self, entry: CatalogueEntry, directory: Path, *, afresh: bool = False) -> list[FileState]:
        """Return every file of a data set in a directory.

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

    def set_aside(self, entry: CatalogueEntry, say: Callable[[str], None]) -> dict[str, Path]:
        """Rename what is damaged in a data set's folder, and give what is sound, by name.

        Args:
            entry: The data set.
            say: Told of each file that is renamed, a line at a time.

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
                say(f"{state.fault} It is set aside as {aside.name}.")
        return sound

    @contextlib.contextmanager
    def locked(self, entry: CatalogueEntry, say: Callable[[str], None]) -> Iterator[Path]:
        """Hold a data set's lock and give its folder, which exists then.

        Args:
            entry: The data set.
            say: Told when another process holds the lock.

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
                    say(f"Waiting for another process that fetches {entry.name}.")
                    stack.enter_context(locked(lock))
            except OSError as error:
                raise unwritable(folder, error) from error
            yield folder


def unwritable(path: Path, error: OSError) -> ConfigError:
    """Return the error for a cache that can't be written."""
    return ConfigError(
        f"Can't write the data cache {path}: {error.strerror or error}.",
        f"Free some space, or set {DATA_DIR_VARIABLE} to a directory that can be written.",
    )


def _holds_files(directory: Path) -> bool:
    return all(find_file(directory, name) for name in FILES)


class _Stamp(msgspec.Struct, frozen=True):
    path: str
    size: int
    mtime_ns: int
    inode: int
    sha256: str


_STAMP = msgspec.json.Decoder(_Stamp)


class Stamps:
    """The stamps in one folder.

    Args:
        folder: Made when the first stamp is written; one that can't be written, or None, costs time only.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder or Path(os.devnull, "stamps")

    def digest(self, path: Path, *, largest: int, afresh: bool = False) -> str:
        """SHA-256 of the file's decompressed content, in hexadecimal.

        Args:
            path: The file, gzipped or not.
            largest: Read no more decompressed bytes than this; a longer file has no digest.
            afresh: Read it even if there is a stamp for it.

        Raises:
            RuntimeFault: It can't be read, its gzip stream is damaged, or it is too long.
        """
        stamp_path = self._folder / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.json"
        before = _stamp(path, "")
        if not afresh and before is not None:
            with contextlib.suppress(OSError, DamagedRecordError):
                known = recordfile.read(stamp_path, _STAMP)
                if msgspec.structs.replace(known, sha256="") == before:
                    return known.sha256
        sha256 = content_digest(path, largest)
        after = _stamp(path, sha256)
        if before is not None and after == msgspec.structs.replace(before, sha256=sha256):
            with contextlib.suppress(OSError):
                self._folder.mkdir(parents=True, exist_ok=True)
                write_bytes(stamp_path, msgspec.json.encode(after))
        return sha256


def content_digest(path: Path, largest: int) -> str:
    """SHA-256 of a file's decompressed content, in hexadecimal.

    Args:
        path: The file, gzipped or not.
        largest: In bytes; a bomb is left after this many.

    Raises:
        RuntimeFault: It can't be read, its gzip stream is damaged, or it is longer than ``largest``.
    """
    from trainer.runtime.datasets.idx import open_content

    digest, size = hashlib.sha256(), 0
    with open_content(path) as content:
        while chunk := content.read(_CHUNK):
            size += len(chunk)
            if size > largest:
                raise RuntimeFault(f"{path} has more than the expected {largest:,} bytes.")
            digest.update(chunk)
    return digest.hexdigest()


def _stamp(path: Path, sha256: str) -> _Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return _Stamp(str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino, sha256)
