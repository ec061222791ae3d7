"""Fetch a registered version into a directory, whole and checked or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from trainer import recordfile
from trainer.artifacts.store import ArtifactStore, ModelVersion, find_model
from trainer.errors import ConfigError, DamagedRecordError, IntegrityError, UsageError
from trainer.locks import locked
from trainer.runtime.atomic import make_directory, sync_directory, write_bytes
from trainer.runtime.layout import MODEL_FILE
from trainer.trees import remove_tree

RECORD_FILE = "model.json"
_FETCHING = ".fetching-"
_RECORD = msgspec.json.Decoder(ModelVersion)


class FetchedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A version brought into a directory.

    Attributes:
        path: The npz file.
        model: What the store knows of it; also in ``model.json`` beside the file.
        written: False if the very same file was there already.
    """

    path: Path
    model: ModelVersion
    written: bool


def fetch(store: ArtifactStore, reference: str, directory: Path, *, force: bool = False) -> FetchedModel:
    """Bring a model version into a directory, as ``model.npz`` and ``model.json``.

    The file appears under its name only when its SHA-256 is the recorded one and it is a safe npz. A process
    killed on the way leaves at most a hidden directory, which the next fetch into the same place removes.

    Args:
        store: Where the model is registered.
        reference: As :func:`find_model` takes it.
        directory: Made if missing.
        force: Replace a different ``model.npz``.

    Raises:
        UsageError: A different file is in the way, or the reference is unusable.
        NotFoundError: There is no such version.
        IntegrityError: The bytes are not those that were registered, or not a safe npz.
        ConfigError: The directory can't be written.
    """
    model = find_model(store, reference)
    target, record = directory / MODEL_FILE, directory / RECORD_FILE
    try:
        _make_way(target, record, model, force=force)
        make_directory(directory)
        _clean(directory)
        with _fetching(directory) as staging:
            written = not target.is_file() or file_sha256(target) != model.sha256
            if written:
                _download(store, model, staging / MODEL_FILE)
                _place(staging / MODEL_FILE, target, force=force)
            if read_record(target) != model:
                write_bytes(staging / RECORD_FILE, msgspec.json.format(msgspec.json.encode(model), indent=2) + b"\n")
                (staging / RECORD_FILE).replace(record)
                sync_directory(directory)
    except OSError as error:
        raise ConfigError(
            f"Can't write {directory}: {error.strerror}.", "Choose a writable directory with room: -o DIRECTORY"
        ) from error
    return FetchedModel(path=target, model=model, written=written)


def read_record(path: Path) -> ModelVersion | None:
    """Return what ``model.json`` beside an npz file says of that very file, or None."""
    try:
        model = recordfile.read(path.with_name(RECORD_FILE), _RECORD)
        return model if model.sha256 == file_sha256(path) else None
    except (OSError, DamagedRecordError):
        return None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in lower-case hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _make_way(target: Path, record: Path, model: ModelVersion, *, force: bool) -> None:
    """Refuse, before anything is downloaded, to replace a file that is not the one wanted."""
    if (target.parent.exists() or target.parent.is_symlink()) and not target.parent.is_dir():
        raise UsageError(f"{target.parent} is not a directory.", "Choose another with -o DIRECTORY.")
    for path in (target, record):
        if path.is_dir():
            raise UsageError(f"{path} is a directory.", "Choose another place with -o DIRECTORY.")
    if force:
        return
    if os.path.lexists(target) and not (target.is_file() and file_sha256(target) == model.sha256):
        raise _in_the_way(target)
    if os.path.lexists(record) and not _is_record(record):
        raise _in_the_way(record)


def _is_record(path: Path) -> bool:
    try:
        recordfile.read(path, _RECORD)
    except (OSError, DamagedRecordError):
        return False
    return True


def _in_the_way(path: Path) -> UsageError:
    return UsageError(f"{path} exists and is a different file.", "Replace it with --force, or choose -o DIRECTORY.")


def _clean(directory: Path) -> None:
    """Remove what killed fetches left."""
    for leftover in directory.glob(f"{_FETCHING}*"):
        # Locked by its owner while that one lives; or gone already.
        with suppress(OSError), locked(leftover, blocking=False, create=False):
            remove_tree(leftover)
    # Those of earlier versions, which wrote the record in place; nothing does so any more.
    for leftover in directory.glob(f".{RECORD_FILE}.????????.tmp"):
        with suppress(OSError):
            leftover.unlink()


@contextmanager
def _fetching(directory: Path) -> Iterator[Path]:
    """A hidden directory in ``directory``, locked for as long as its owner lives and gone afterwards."""
    while True:
        staging = Path(tempfile.mkdtemp(prefix=_FETCHING, dir=directory))
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(staging, blocking=False, create=False))
            except (BlockingIOError, FileNotFoundError):
                continue  # between its making and its locking another fetch took it for a leftover
            if not staging.exists():
                continue
            try:
                yield staging
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            return


def _download(store: ArtifactStore, model: ModelVersion, path: Path) -> None:
    """Download to ``path`` and check it."""
    from trainer.modelfile import check_npz

    store.download(model, path)
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    sha256, size = file_sha256(path), path.stat().st_size
    if (sha256, size) != (model.sha256, model.size):
        raise IntegrityError(
            f"{model.reference} came with SHA-256 {sha256[:12]}... and {size:,} bytes; "
            f"{model.sha256[:12]}... and {model.size:,} bytes were registered.",
            "Fetch it again; if that does not help, the registry's copy is damaged.",
        )
    try:
        check_npz(path)
    except IntegrityError as error:
        raise IntegrityError(error.message.replace(str(path), model.reference), error.hint) from error


def _place(source: Path, target: Path, *, force: bool) -> None:
    if not force:
        try:
            # Unlike a rename, a link never replaces what someone else put there meanwhile.
            os.link(source, target)
        except FileExistsError as error:
            if file_sha256(target) != file_sha256(source):
                raise _in_the_way(target) from error
        except OSError:  # a file system without links
            source.replace(target)
    else:
        source.replace(target)
    sync_directory(target.parent)
