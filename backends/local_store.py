"""The local model registry: plain files, no server.

    models/<name>/<version>/model.npz     the file as it was registered
    models/<name>/<version>/version.json  ModelVersion
    models/<name>/.deleted-<version>/     keeps the number of a deleted version from being used again
    models/<name>/.staging-*/             a registration under way, or one that was killed
    models/<name>/.lock                   held by whoever changes any of these

A version appears by one rename of a complete directory and disappears by another, so readers need no lock and
a kill leaves the old state or the new. Everyone who changes something holds the lock, so a staging directory
that the lock's new holder finds belongs to a process that died, and is removed.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from trainer import recordfile
from trainer.artifacts import (
    ArtifactStore,
    ModelVersion,
    check_model_name,
    describe_model,
    model_output,
)
from trainer.damage import Damage, moved
from trainer.errors import ConfigError, DamagedRecordError, IntegrityError, NotFoundError
from trainer.home import Home
from trainer.locks import locked
from trainer.runfolder import RunFolder
from trainer.runtime.atomic import make_directory, sync_directory
from trainer.runtime.layout import MODEL_FILE
from trainer.trees import remove_tree

VERSION_FILE = "version.json"
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_TOMBSTONE = re.compile(r"\.deleted-([1-9][0-9]{0,8})")
_STAGING = ".staging-"
_CHUNK = 1 << 20
_DECODER = msgspec.json.Decoder(ModelVersion)


class LocalStore(ArtifactStore):
    """A registry in a directory of its own.

    Args:
        models: The directory; made at the first registration.
    """

    name = "local"

    def __init__(self, models: Path) -> None:
        self.models = models
        self._damaged: dict[Path, str] = {}

    def register(self, folder: RunFolder, model_name: str) -> ModelVersion:
        """See :meth:`trainer.artifacts.ArtifactStore.register`.

        Raises:
            ConfigError: The registry can't be written.
        """
        directory = self.models / check_model_name(model_name)
        source = model_output(folder)
        with _explained(directory):
            make_directory(directory)
            with self._changing(directory):
                known = self._version_of_run(directory, folder.run_id)
                return known or self._commit(directory, folder, source)

    def versions(self, model_name: str | None = None) -> list[ModelVersion]:
        """See :meth:`trainer.artifacts.ArtifactStore.versions`."""
        names = self._names() if model_name is None else [check_model_name(model_name)]
        return [version for name in names for version in self._readable(self.models / name)]

    def damaged(self) -> list[str]:
        """See :meth:`trainer.artifacts.ArtifactStore.damaged`."""
        return [self._damaged[path] for path in sorted(self._damaged)]

    def get(self, model_name: str, version: int | None = None) -> ModelVersion:
        """See :meth:`trainer.artifacts.ArtifactStore.get`.

        Raises:
            ConfigError: The version's record is damaged.
        """
        directory = self.models / check_model_name(model_name)
        for number in [version] if version is not None else reversed(_numbers(directory)):
            if found := self._read(directory, number):
                return found
        raise _no_such_version(model_name, version)

    def download(self, model: ModelVersion, target: Path) -> None:
        """See :meth:`trainer.artifacts.ArtifactStore.download`.

        Raises:
            NotFoundError: The version is gone.
        """
        source = self.models / check_model_name(model.name) / str(model.version) / MODEL_FILE
        try:
            descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise _no_such_version(model.name, model.version) from error
        except OSError as error:
            raise DamagedRecordError(source, f"it can't be read ({error.strerror})") from error
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise DamagedRecordError(source, f"it is {recordfile.kind_of(mode)}, not a file")
            _copy(descriptor, target)
        finally:
            os.close(descriptor)

    def delete(self, model_name: str, version: int) -> None:
        """See :meth:`trainer.artifacts.ArtifactStore.delete`.

        Raises:
            ConfigError: The registry can't be written.
        """
        directory = self.models / check_model_name(model_name)
        if version not in _numbers(directory):
            raise _no_such_version(model_name, version)
        with _explained(directory), self._changing(directory):
            try:
                (directory / str(version)).rename(directory / f".deleted-{version}")
            except FileNotFoundError as error:
                raise _no_such_version(model_name, version) from error
            sync_directory(directory)
            _clean(directory)

    def _names(self) -> list[str]:
        try:
            return sorted(entry.name for entry in os.scandir(self.models) if not entry.name.startswith("."))
        except FileNotFoundError:
            return []
        except NotADirectoryError as error:
            hint = "Move it away, or set TRAINER_HOME to a directory."
            raise ConfigError(f"{self.models} is not a directory.", hint) from error

    @contextmanager
    def _changing(self, directory: Path) -> Iterator[None]:
        """Hold the model's lock, with what killed processes left behind cleaned away."""
        with locked(directory / ".lock"):
            _clean(directory)
            yield

    def _readable(self, directory: Path) -> Iterator[ModelVersion]:
        """Yield the versions of a model, rising, but those whose record is damaged; what is wrong is noted."""
        for number in _numbers(directory):
            path = directory / str(number) / VERSION_FILE
            try:
                version = self._read(directory, number)
            except DamagedRecordError as error:
                self._damaged[path] = error.message
            else:
                self._damaged.pop(path, None)
                if version:
                    yield version

    def _version_of_run(self, directory: Path, run_id: str) -> ModelVersion | None:
        return next((version for version in self._readable(directory) if version.run_id == run_id), None)

    def _commit(self, directory: Path, folder: RunFolder, source: Path) -> ModelVersion:
        """Stage a complete version and give it the next number. The lock is held."""
        staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=directory))
        try:
            staging.chmod(0o755)
            with source.open("rb") as stream:
                sha256, size = _copy(stream.fileno(), staging / MODEL_FILE)
            # The copy is what is checked: the script may still be writing to its own file.
            _check_copy(staging / MODEL_FILE, source)
            version = describe_model(folder, directory.name, version=_next_number(directory), sha256=sha256, size=size)
            _write(staging / VERSION_FILE, msgspec.json.format(msgspec.json.encode(version), indent=2) + b"\n")
            sync_directory(staging)
            staging.rename(directory / str(version.version))
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        sync_directory(directory)
        return version

    def _read(self, directory: Path, number: int) -> ModelVersion | None:
        """Read the record of a version; None where there is none.

        Raises:
            DamagedRecordError: It is no record of this version.
        """
        # Not a Path: a registry may hold ten thousand of these.
        path = f"{directory}/{number}/{VERSION_FILE}"
        hint = f", or remove the version: trainer delete {directory.name}:{number}"
        try:
            version = recordfile.read(path, _DECODER)
        except FileNotFoundError:
            return None
        except DamagedRecordError as error:
            raise DamagedRecordError(path, error.why, hint) from error
        if version.name != directory.name or version.version != number:
            raise DamagedRecordError(path, f"it describes {version.reference[:100]}", hint)
        return version


def find_damage(home: Home) -> Iterator[Damage]:
    """Find versions whose record or file is not what was registered; their contents are not read."""
    store = LocalStore(home.models)
    for name in store._names():
        directory = home.models / name
        for number in _numbers(directory):
            problem = _problem(store, directory, number)
            if problem:
                yield Damage(
                    f"{name}:{number}", problem, functools.partial(_set_version_aside, store, home, directory, number)
                )


def _problem(store: LocalStore, directory: Path, number: int) -> str:
    path = directory / str(number)
    try:
        version = store._read(directory, number)
    except DamagedRecordError as error:
        return error.message
    if version is None:
        return f"{path} is no version: it has no {VERSION_FILE}."
    try:
        status = (path / MODEL_FILE).lstat()
    except OSError as error:
        return f"{path / MODEL_FILE} can't be read: {error.strerror}."
    if not stat.S_ISREG(status.st_mode):
        return f"{path / MODEL_FILE} is {recordfile.kind_of(status.st_mode)}, not a file."
    if status.st_size != version.size:
        return f"{path / MODEL_FILE} has {status.st_size:,} bytes; {version.size:,} were registered."
    return ""


def _set_version_aside(store: LocalStore, home: Home, directory: Path, number: int) -> str:
    with store._changing(directory):
        # Before it goes: its number must not be used again.
        (directory / f".deleted-{number}").mkdir(exist_ok=True)
        return moved(home, directory / str(number))


def _numbers(directory: Path) -> list[int]:
    """List the numbers of the versions that are there, rising."""
    try:
        with os.scandir(directory) as entries:
            return sorted(int(entry.name) for entry in entries if _NUMBER.fullmatch(entry.name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _tombstones(directory: Path) -> dict[int, Path]:
    with os.scandir(directory) as entries:
        return {int(match[1]): Path(entry.path) for entry in entries if (match := _TOMBSTONE.fullmatch(entry.name))}


def _next_number(directory: Path) -> int:
    return max([0, *_numbers(directory), *_tombstones(directory)]) + 1


def _clean(directory: Path) -> None:
    """Remove what killed processes left, and the contents of deleted versions. The lock is held."""
    with os.scandir(directory) as entries:
        abandoned = [entry.path for entry in entries if entry.name.startswith(_STAGING)]
    for path in map(Path, abandoned):
        with suppress(OSError):
            remove_tree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    highest = _next_number(directory) - 1
    for number, tombstone in _tombstones(directory).items():
        # Whatever it is, and whatever somebody has put into it: nothing here may stop a registration.
        with suppress(OSError):
            if tombstone.is_symlink() or not tombstone.is_dir():
                tombstone.unlink()
                tombstone.mkdir()
            for entry in list(tombstone.iterdir()):
                remove_tree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            if number < highest:  # a higher number says as well that this one is spent
                tombstone.rmdir()


def _copy(source: int, target: Path) -> tuple[str, int]:
    """Copy an open file to a new one, onto the disk.

    Returns:
        SHA-256 in hexadecimal and size in bytes of what was written.
    """
    digest, size = hashlib.sha256(), 0
    with target.open("xb") as stream:
        while chunk := os.read(source, _CHUNK):
            stream.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest(), size


def _check_copy(copy: Path, source: Path) -> None:
    from trainer.modelfile import check_npz  # listing models is to be quick and needs none of it

    try:
        check_npz(copy)
    except IntegrityError as error:
        raise IntegrityError(error.message.replace(str(copy), str(source)), error.hint) from error


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """Turn an error of the file system into one with a hint."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"Can't write to the model registry {directory}: {error.strerror}.",
            "Make it writable with room to spare, or set TRAINER_HOME to a directory that is.",
        ) from error


def _no_such_version(name: str, version: int | None) -> NotFoundError:
    which = f"no model {name!r}" if version is None else f"no version {version} of {name!r}"
    return NotFoundError(f"There is {which} here.", "See: trainer models")
