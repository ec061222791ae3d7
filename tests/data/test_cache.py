"""The cache: what is damaged is set aside, what is sound is not read twice, what is not ours is not written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.data import cache as caching
from trainer.data.cache import Cache
from trainer.data.catalogue import CatalogueEntry
from trainer.data.mirrors import Patience
from trainer.data.resolution import ensure
from trainer.errors import ConfigError
from trainer.runtime.datasets import FILES

QUICK = Patience(probe=5.0, connect=2.0, read=5.0, window=30.0, attempts=2)
IMAGES = "train-images-idx3-ubyte"
Write = Callable[..., Path]


def spoil(path: Path) -> None:
    """Change one byte in the middle and restore the modification time."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def from_mirror(mirrors: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    mirror = mirrors()
    monkeypatch.setenv("TRAINER_DATA_MIRRORS", mirror.url)
    return mirror


def test_what_was_fetched_once_is_not_asked_for_again(
    from_mirror: Any, entry: CatalogueEntry, cache: Cache, told: Any
) -> None:
    first = ensure(entry, cache, told, QUICK)
    asked = len(from_mirror.requests)
    assert ensure(entry, Cache.from_environment(), told, QUICK) == first
    assert len(from_mirror.requests) == asked


def test_only_the_missing_file_is_fetched(
    from_mirror: Any, entry: CatalogueEntry, cache: Cache, told: Any, contents: Any, write: Write
) -> None:
    write(cache.folder(entry), {name: contents[name] for name in FILES[1:]})
    ensure(entry, cache, told, QUICK)
    assert [name for name, _ in told.bars] == [f"{IMAGES}.gz"]


@pytest.mark.parametrize("damage", ["a byte", "the end", "everything"])
def test_a_corrupt_file_is_set_aside_and_fetched_again(
    from_mirror: Any, entry: CatalogueEntry, cache: Cache, told: Any, damage: str
) -> None:
    path = ensure(entry, cache, told, QUICK).files[f"{IMAGES}.gz"]
    good = path.read_bytes()
    bad = {"a byte": good[:5000] + bytes([good[5000] ^ 1]) + good[5001:], "the end": good[:-9], "everything": b"?"}
    path.write_bytes(bad[damage])
    assert ensure(entry, cache, told, QUICK).files[f"{IMAGES}.gz"].read_bytes() == good
    aside = next(file for file in path.parent.iterdir() if ".corrupt-" in file.name)
    assert aside.read_bytes() == bad[damage]
    assert any(aside.name in line for line in told.lines)


def test_a_sound_gzipped_file_behind_a_damaged_plain_one_is_used(
    entry: CatalogueEntry, cache: Cache, told: Any, contents: Any, write: Write
) -> None:
    write(cache.folder(entry), contents, compressed=True)
    (cache.folder(entry) / IMAGES).write_bytes(b"damaged")
    assert ensure(entry, cache, told, QUICK).files[f"{IMAGES}.gz"].is_file()


def test_a_verified_file_is_not_read_again_until_it_changes(
    entry: CatalogueEntry,
    cache: Cache,
    contents: Any,
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = write(cache.folder(entry), contents, compressed=True)
    assert cache.find(entry)
    read: list[str] = []
    real = caching.content_digest
    monkeypatch.setattr(caching, "content_digest", lambda path, largest: read.append(path.name) or real(path, largest))
    assert Cache.from_environment().find(entry)
    assert read == []
    os.utime(folder / f"{IMAGES}.gz", ns=(1, 1))
    assert Cache.from_environment().find(entry)
    assert read == [f"{IMAGES}.gz"]


def test_damage_under_a_restored_time_is_seen_by_a_fresh_look(
    entry: CatalogueEntry, cache: Cache, contents: Any, write: Write
) -> None:
    folder = write(cache.folder(entry), contents)
    assert cache.find(entry)
    spoil(folder / IMAGES)
    assert cache.find(entry), "the stamp promises no more; see trainer/data/cache.py"
    faults = [state.fault for state in cache.inspect(entry, folder, afresh=True)]
    assert [bool(fault) for fault in faults] == [True, False, False, False]


def test_a_damaged_stamp_costs_a_reading_and_no_more(
    entry: CatalogueEntry, cache: Cache, contents: Any, write: Write
) -> None:
    write(cache.folder(entry), contents)
    assert cache.find(entry)
    for stamp in (cache.root / "verified").iterdir():
        stamp.write_bytes(b'{"path": 7')
    assert Cache.from_environment().find(entry)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_directory_of_the_four_files_is_the_data_set_and_is_only_read(
    entry: CatalogueEntry,
    told: Any,
    contents: Any,
    write: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    compressed: bool,
) -> None:
    given = write(tmp_path / "given", contents, compressed=compressed)
    before = {path: path.stat().st_mtime_ns for path in (given, *given.iterdir())}
    monkeypatch.setenv("TRAINER_DATA_DIR", str(given))
    found = ensure(entry, Cache.from_environment(), told, QUICK)
    assert found.directory == given
    assert {path: path.stat().st_mtime_ns for path in (given, *given.iterdir())} == before


def test_a_directory_of_other_files_is_left_alone_and_said_so(
    from_mirror: Any,
    entry: CatalogueEntry,
    told: Any,
    contents: Any,
    write: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = write(tmp_path / "given", contents)
    spoil(given / IMAGES)
    monkeypatch.setenv("TRAINER_DATA_DIR", str(given))
    found = ensure(entry, Cache.from_environment(), told, QUICK)
    assert found.directory == tmp_path / "user-cache" / "trainer" / "data" / "mnist"
    assert sorted(path.name for path in given.iterdir()) == sorted(FILES)
    assert "does not hold mnist" in told.lines[0]


def test_a_cache_that_cannot_be_written_is_named(
    from_mirror: Any, entry: CatalogueEntry, told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TRAINER_DATA_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(ConfigError, match="Can't write the data cache") as caught:
        ensure(entry, Cache.from_environment(), told, QUICK)
    assert "TRAINER_DATA_DIR" in caught.value.hint
