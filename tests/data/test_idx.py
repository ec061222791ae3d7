"""The IDX reader: whatever the bytes, the right array or a fault that names the file."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trainer.runtime import datasets
from trainer.runtime.datasets import FILES, decoded, idx
from trainer.runtime.faults import RuntimeFault

IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = FILES
Write = Callable[..., Path]
HEADER = struct.pack(">BBBBI", 0, 0, 8, 1, 5)
one_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)


def images_of(shapes: tuple[int, int]) -> Any:
    return hnp.arrays(np.uint8, st.tuples(*[st.integers(1, side) for side in (6, *shapes)]))


@one_file
@given(values=images_of((9, 9)), compressed=st.booleans())
def test_what_is_written_is_read(tmp_path: Path, encode: Any, values: np.ndarray, compressed: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(encode(values)) if compressed else encode(values))
    read = idx.read(path, 3)
    np.testing.assert_array_equal(read, values)
    assert read.dtype == np.uint8
    assert read.flags.c_contiguous
    assert not read.flags.writeable


@one_file
@given(data=st.binary(max_size=64), compressed=st.booleans(), dimensions=st.sampled_from([1, 3]))
def test_no_bytes_do_worse_than_a_fault(tmp_path: Path, data: bytes, compressed: bool, dimensions: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(data) if compressed else data)
    fault = None
    try:
        read = idx.read(path, dimensions)
    except RuntimeFault as raised:
        fault = raised
    if fault is None:
        assert idx.Header(read.shape).encode() + read.tobytes() == data
    else:
        assert str(path) in fault.message
        assert "\n" not in fault.message


@one_file
@given(data=st.binary(max_size=60))
def test_no_gzip_stream_does_worse_than_a_fault(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\x1f\x8b\x08" + data)
    with pytest.raises(RuntimeFault):
        idx.read(path, 1)


@one_file
@given(where=st.integers(0, 12), compressed=st.booleans())
def test_a_file_that_ends_too_early_is_refused(tmp_path: Path, where: int, compressed: bool) -> None:
    whole = HEADER + bytes(5)
    path = tmp_path / "file"
    if compressed:
        stored = gzip.compress(whole)
        path.write_bytes(stored[: where * len(stored) // 13])
    else:
        path.write_bytes(whole[:where])
    with pytest.raises(RuntimeFault, match=str(path)):
        idx.read(path, 1)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "short header"),
        (b"\0\0\x08", "short header"),
        (HEADER[:6], "short header"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "wrong magic number 0x89504e47"),
        (b"\0\0\x0d\x01" + HEADER[4:] + bytes(20), "type 0x0d"),
        (b"\0\0\x08\x03" + bytes(20), "3 dimensions, and labels have 1"),
        (b"\0\0\x08\x01\0\0\0\0", "is empty"),
        (HEADER + bytes(4), "is cut off"),
        (HEADER + bytes(6), "bytes after its end"),
        (b"\0\0\x08\x01\xff\xff\xff\xff", "at most"),
        (gzip.compress(HEADER + bytes(4), mtime=0), "is cut off"),
        (gzip.compress(HEADER + bytes(6), mtime=0), "bytes after its end"),
        (gzip.compress(HEADER + bytes(5), mtime=0)[:-4], "cut off"),
        (gzip.compress(HEADER + bytes(5), mtime=0)[:-8] + bytes(8), "damaged"),
        (gzip.compress(b"\0\0\x08\x01\x70\0\0\0", mtime=0), "can't hold"),
    ],
)
def test_each_fault_is_named(tmp_path: Path, data: bytes, complaint: str) -> None:
    path = tmp_path / "labels"
    path.write_bytes(data)
    with pytest.raises(RuntimeFault, match=complaint) as caught:
        idx.read(path, 1)
    assert str(path) in caught.value.message


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(HEADER + bytes(30_000_000), 9))
    with idx.open_content(path) as content:
        header = idx.read_header(content, 1)
        with pytest.raises(RuntimeFault, match="bytes after its end"):
            idx.fill(content, header, memoryview(bytearray(5)))
        assert content.stream.tell() < 100


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), tmp_path / "missing"):
        with pytest.raises(RuntimeFault, match=str(path)):
            idx.read(path, 1)


def test_files_that_do_not_belong_together_are_refused(
    tmp_path: Path, contents: dict[str, bytes], write: Write, encode: Any
) -> None:
    good = write(tmp_path / "good", contents)
    assert datasets.load(good).name == "good"

    def refused(name: str, values: np.ndarray | None, complaint: str) -> None:
        changed = dict(contents)
        if values is None:
            del changed[name]
        else:
            changed[name] = encode(values)
        directory = write(tmp_path / f"bad{len(list(tmp_path.iterdir()))}", changed)
        with pytest.raises(RuntimeFault, match=complaint) as caught:
            datasets.load(directory)
        assert str(directory) in caught.value.message

    labels = np.arange(100, dtype=np.uint8) % 10
    refused(LABELS, None, f"has no {LABELS}")
    refused(TEST_LABELS, labels[:99], f"{TEST_LABELS} has 99 labels, and .*{TEST_IMAGES} has 100 images")
    refused(TEST_LABELS, np.where(np.arange(100) == 42, 10, labels).astype(np.uint8), "label 10 at position 42")
    refused(TEST_IMAGES, np.zeros((100, 28, 27), np.uint8), "images of 28x27")
    with pytest.raises(RuntimeFault, match="there are 9 classes"):
        datasets.load(good, class_count=9)


def test_dotted_names_are_understood(tmp_path: Path, contents: dict[str, bytes], write: Write) -> None:
    dotted = {name.replace("-idx", ".idx"): data for name, data in contents.items()}
    assert len(datasets.load(write(tmp_path / "dotted", dotted)).train_images) == 400


@pytest.fixture
def big(tmp_path: Path, encode: Any) -> tuple[Path, np.ndarray]:
    """A gzipped file that is large enough to be worth a decompressed copy."""
    values = np.random.default_rng(3).integers(0, 256, (2000, 28, 28), np.uint8)
    path = tmp_path / "big.gz"
    path.write_bytes(gzip.compress(encode(values), 1))
    return path, values


def test_a_copy_is_made_once_and_mapped(tmp_path: Path, big: tuple[Path, np.ndarray]) -> None:
    path, values = big
    folder = tmp_path / "decoded"
    np.testing.assert_array_equal(decoded.read(path, 3, folder), values)
    copy = next(folder.iterdir())
    made = copy.stat().st_ino
    again = decoded.read(path, 3, folder)
    np.testing.assert_array_equal(again, values)
    assert not again.flags.writeable
    assert [file.stat().st_ino for file in folder.iterdir()] == [made]


@pytest.mark.parametrize("damage", ["a bit", "the end", "everything", "another file"])
def test_a_damaged_copy_is_made_again(tmp_path: Path, big: tuple[Path, np.ndarray], damage: str, encode: Any) -> None:
    path, values = big
    folder = tmp_path / "decoded"
    decoded.read(path, 3, folder)
    copy = next(folder.iterdir())
    data = copy.read_bytes()
    copy.write_bytes(
        {
            "a bit": data[:999] + bytes([data[999] ^ 1]) + data[1000:],
            "the end": data[:-1],
            "everything": b"",
            "another file": encode(values[::-1]),
        }[damage]
    )
    np.testing.assert_array_equal(decoded.read(path, 3, folder), values)
    assert copy.read_bytes() == data


def test_a_folder_that_cannot_be_written_costs_no_more_than_time(tmp_path: Path, big: tuple[Path, np.ndarray]) -> None:
    path, values = big
    (tmp_path / "file").write_text("in the way")
    np.testing.assert_array_equal(decoded.read(path, 3, tmp_path / "file" / "decoded"), values)


def test_several_gzip_members_are_one_file(tmp_path: Path, big: tuple[Path, np.ndarray], encode: Any) -> None:
    path, values = big
    data = encode(values)
    path.write_bytes(gzip.compress(data[:900_000], 1) + gzip.compress(data[900_000:], 1))
    np.testing.assert_array_equal(decoded.read(path, 3, tmp_path / "decoded"), values)
    np.testing.assert_array_equal(decoded.read(path, 3, tmp_path / "decoded"), values)


def test_a_damaged_source_is_refused_with_copies_too(tmp_path: Path, big: tuple[Path, np.ndarray]) -> None:
    path, _ = big
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(RuntimeFault, match="cut off"):
        decoded.read(path, 3, tmp_path / "decoded")


def test_old_copies_make_room(tmp_path: Path, big: tuple[Path, np.ndarray]) -> None:
    path, _ = big
    folder = tmp_path / "decoded"
    folder.mkdir()
    for age in range(30):
        (folder / f"{age}.idx").write_bytes(b"old")
        os.utime(folder / f"{age}.idx", (1000 - age, 1000 - age))
    decoded.read(path, 3, folder)
    left = {file.name for file in folder.iterdir()}
    assert len(left) == 16
    assert "0.idx" in left
    assert "29.idx" not in left
