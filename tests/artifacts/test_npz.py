"""Safe reading of npz files: whatever NumPy writes is read as NumPy reads it, whatever else is refused by name."""

import io
import os
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.contract.store_contract import exploit_bytes, npz_bytes
from trainer.errors import IntegrityError, NotFoundError
from trainer.modelfile import check_npz, read_npz, sums_are_finite
from trainer.runtime import npy_headers
from trainer.runtime.npz import Limits

FLOATS = np.arange(6, dtype="<f4").reshape(2, 3)


def npy(descr: str = "<f4", shape: str = "(2, 3)", data: bytes | None = None, order: str = "False") -> bytes:
    """An npy member with the header that is asked for, true or not."""
    header = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n".encode("latin-1")
    body = FLOATS.tobytes() if data is None else data
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


def zipped(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def refused(path: Path, why: str) -> None:
    for read in (check_npz, read_npz):
        with pytest.raises(IntegrityError, match=why) as caught:
            read(path)
        assert str(path) in caught.value.message
        assert caught.value.hint


def dtypes() -> st.SearchStrategy[Any]:
    return st.one_of(
        hnp.boolean_dtypes(),
        hnp.integer_dtypes(endianness="?"),
        hnp.unsigned_integer_dtypes(endianness="?"),
        hnp.floating_dtypes(endianness="?"),
        hnp.complex_number_dtypes(endianness="?"),
        hnp.byte_string_dtypes(endianness="?", max_len=8),
        hnp.unicode_string_dtypes(endianness="?", max_len=8),
    )


SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
KEYS = st.text("abcXYZ019_-/.:", min_size=1, max_size=20).filter(
    lambda key: all(part not in ("", ".", "..") for part in key.split("/"))
)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(KEYS, dtypes().flatmap(lambda dtype: hnp.arrays(dtype, SHAPES)), max_size=4),
    st.booleans(),
    st.booleans(),
)
def test_reads_what_numpy_writes_as_numpy_reads_it(
    arrays: dict[str, np.ndarray], compressed: bool, fortran: bool
) -> None:
    if fortran:
        arrays = {key: np.asfortranarray(array) for key, array in arrays.items()}
    arrays = {key: array for key, array in arrays.items() if key != "file"}  # savez's own argument
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, **arrays)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "a.npz")
        path.write_bytes(stream.getvalue())
        found, infos = read_npz(path), check_npz(path)
        with np.load(path, allow_pickle=False) as expected:
            assert list(found) == list(infos) == expected.files
            for key in expected.files:
                assert found[key].dtype == expected[key].dtype
                assert found[key].tobytes() == expected[key].tobytes()
                assert found[key].shape == expected[key].shape == infos[key].shape
                assert infos[key].nbytes == expected[key].nbytes
                assert found[key].flags.writeable or not found[key].size


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_damaged_file_is_refused_or_read_as_numpy_reads_it(data: st.DataObject) -> None:
    stream = io.BytesIO()
    save = data.draw(st.sampled_from([np.savez, np.savez_compressed]))
    save(stream, **{"l1/W": FLOATS, "text": np.array("log"), "n": np.array(3)})
    good = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(good[: data.draw(st.one_of(st.just(len(good)), st.integers(0, len(good))))])
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "a.npz")
        path.write_bytes(damaged)
        try:
            infos = check_npz(path)
        except IntegrityError:
            refused(path, "is not a safe npz file")
            return
        found = read_npz(path)
        assert list(found) == list(infos)
        with np.load(path, allow_pickle=False) as expected:
            for key, array in found.items():
                assert array.tobytes() == expected[key].tobytes()


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=200), st.text("{}'descr,fotan_hpTFalsu: ()<4L0123\n", max_size=200)))
def test_any_header_is_read_or_refused(header: str) -> None:
    text = header.encode("utf-8")
    with tempfile.TemporaryDirectory() as scratch:
        member = b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text
        with pytest.raises(IntegrityError):
            check_npz(zipped(Path(scratch, "a.npz"), {"a.npy": member}))


NUMBERS = st.one_of(st.integers(0, 40).map(str), st.sampled_from(["00", "01", "-1", "1L", "2.0", "10" * 20, ""]))
SIDES = st.lists(NUMBERS, max_size=3).flatmap(
    lambda sides: st.sampled_from([f"({', '.join(sides)}{end})" for end in ("", ",", ", ")])
)


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(st.sampled_from(["<f4", ">f8", "|b1", "|O", "<i24"]), st.text("<>|=biufcSUVO01248", max_size=4)),
    st.sampled_from(["True", "False", "0"]),
    st.one_of(st.just("(2, 3)"), SIDES),
    st.sampled_from([", }\n", "}\n", ", }", ", }  \n", ", }\n\n", ", 'x': 1, }\n"]),
)
def test_a_header_that_numpy_did_not_parse_says_what_numpy_says_of_it(
    descr: str, order: str, shape: str, end: str
) -> None:
    header = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}{end}".encode()
    head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(8)
    found = npy_headers._plain_header(head)
    if found is None:
        return
    info, offset = found
    stream = io.BytesIO(head)
    np.lib.format.read_magic(stream)
    expected_shape, expected_order, dtype = np.lib.format.read_array_header_1_0(stream)
    assert (info.shape, info.fortran_order, info.typestr, info.itemsize, offset) == (
        *(expected_shape, expected_order, dtype.str, dtype.itemsize),
        stream.tell(),
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(dtypes().flatmap(lambda dtype: hnp.arrays(dtype, SHAPES)), max_size=3))
def test_finite_sums_are_those_of_finite_values(arrays: list[np.ndarray]) -> None:
    finite = all(np.isfinite(array).all() for array in arrays if array.dtype.kind in "fc")
    plain = all(array.dtype.isnative and array.dtype.str[1:] in ("f4", "b1", "u1", "i4", "i8") for array in arrays)
    stream = io.BytesIO()
    np.savez(stream, *arrays)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "a.npz")
        path.write_bytes(stream.getvalue())
        found = sums_are_finite(path)
    assert finite or not found
    assert found or not (finite and plain)


def test_headers_of_other_writers_are_read(tmp_path: Path) -> None:
    # cnpy's spacing, another order of the keys, and the long integers of Python 2.
    for header in (
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,3), }",
        "{'shape': (2L, 3L), 'fortran_order': False, 'descr': '<f4'}",
    ):
        text = header.encode() + b"\n"
        member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + FLOATS.tobytes()
        found = read_npz(zipped(tmp_path / "a.npz", {"a.npy": member}))
        assert np.array_equal(found["a"], FLOATS)


def test_a_pickle_is_refused_and_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(exploit_bytes(tmp_path / "evidence"))
    refused(path, "Python objects")
    zipped(path, {"a.npy": b"cposix\nsystem\n(S'touch evidence'\ntR."})
    refused(path, "is not an array")
    assert not (tmp_path / "evidence").exists()


@pytest.mark.parametrize(
    ("member", "why"),
    [
        (npy(descr="|O", data=b""), "Python objects"),
        (npy(descr="<M8[s]"), "numbers or text"),
        (npy(descr="V24"), "numbers or text"),
        (npy(descr="<f3"), "numbers or text"),
        (npy(shape="(2, 4)"), "promises 32 bytes"),
        (npy(shape="(2, 2)"), "promises 16 bytes"),
        (npy(shape="(-1, 3)"), "does not describe"),
        (npy(shape="(2, 3.0)"), "does not describe"),
        (npy(shape="(999999999999999999, 9)", data=b""), "absurd"),
        (npy(shape="(0, 999999999999999999)", data=b""), "absurd"),
        (npy(shape="(" + "1, " * 33 + ")"), "absurd"),
        (npy(shape="(" + "9, " * 3000 + ")"), "absurd"),
        (npy(order="__import__('os')"), "does not describe"),
        (npy(order="1"), "does not describe"),
        (b"\x93NUMPY\x04\x00" + npy()[8:], "is not an array"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "too long"),
        (b"\x93NUM", "is not an array"),
        (b"", "is not an array"),
        (b"\x93NUMPY\x01\x00\x40\x1f" + b"{" + b" " * 8000, "does not describe"),
    ],
)
def test_a_lying_or_odd_member_is_refused(tmp_path: Path, member: bytes, why: str) -> None:
    refused(zipped(tmp_path / "a.npz", {"good.npy": npy(), "l1/W.npy": member}), why)


@pytest.mark.parametrize(
    "name", ["../a.npy", "/a.npy", "a//b.npy", "./a.npy", "a/../b.npy", "a\\b.npy", "a\n.npy", ".npy/"]
)
def test_a_name_that_is_a_way_out_is_refused(tmp_path: Path, name: str) -> None:
    refused(zipped(tmp_path / "a.npz", {name: npy()}), "a member is named|is not an array")


def test_other_names_are_refused(tmp_path: Path) -> None:
    refused(zipped(tmp_path / "long.npz", {"x" * 300 + ".npy": npy()}), "304 characters")
    refused(zipped(tmp_path / "script.npz", {"script.py": npy()}), "is not an array")
    path = zipped(tmp_path / "nul.npz", {"a@b.npy": npy()})
    path.write_bytes(path.read_bytes().replace(b"a@b.npy", b"a\0b.npy"))
    refused(path, "a member is named")
    path = zipped(tmp_path / "twice.npz", {"a.npy": npy(), "b.npy": npy()})
    path.write_bytes(path.read_bytes().replace(b"b.npy", b"a.npy"))
    refused(path, "two members named")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for index in range(3):
            with archive.open(f"a{index}.npy", "w") as member:
                member.write(npy(shape=f"({50 << 20},)", descr="|u1", data=b""))
                for _ in range(50):
                    member.write(bytes(1 << 20))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("a member was opened"))
    refused(path, "as a zip bomb does")
    with pytest.raises(IntegrityError, match="the limit is"):
        check_npz(path, Limits(total=100 << 20))
    with pytest.raises(IntegrityError, match="3 members; the limit is 2"):
        check_npz(path, Limits(members=2))


def directory_fields(path: Path) -> Iterator[int]:
    """Offsets of the entries of a zip's central directory."""
    data, at = path.read_bytes(), -1
    while (at := data.find(b"PK\x01\x02", at + 1)) >= 0:
        yield at


def patch(path: Path, offset: int, layout: str, value: int) -> None:
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, offset, value)
    path.write_bytes(bytes(data))


def test_a_size_that_is_a_lie_is_found_out(tmp_path: Path) -> None:
    # The directory promises what the header does, but the data unpacks to more, or to less.
    for data in (bytes(5 << 20), bytes(1 << 20)):
        path = zipped(tmp_path / "a.npz", {"a.npy": npy("|u1", f"({2 << 20},)", data)}, zipfile.ZIP_DEFLATED)
        at = next(directory_fields(path))
        patch(path, at + 24, "<I", len(npy("|u1", f"({2 << 20},)", bytes(2 << 20))))
        refused(path, "CRC|another size|ends too soon")


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.npz", {"a.npy": npy(), "b.npy": npy()})
    first, second = directory_fields(path)
    patch(path, second + 42, "<I", struct.unpack_from("<I", path.read_bytes(), first + 42)[0] + 1)
    refused(path, "overlap")
    path = zipped(tmp_path / "b.npz", {"a.npy": npy()})
    patch(path, next(directory_fields(path)) + 20, "<I", 10_000)
    refused(path, "more bytes than the file has")


def test_encrypted_and_oddly_compressed_members_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.npz", {"a.npy": npy()})
    patch(path, next(directory_fields(path)) + 8, "<H", 1)
    refused(path, "encrypted")
    refused(zipped(tmp_path / "b.npz", {"a.npy": npy()}, zipfile.ZIP_LZMA), "compressed in a way")


def test_a_directory_of_members_without_end_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 33, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    count = 200_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, count * len(entry), 0, 0)
    path.write_bytes(entry * count + end)
    refused(path, "list of members takes 9,200,000 bytes")


def test_what_is_no_file_or_no_zip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        check_npz(tmp_path / "absent.npz")
    refused(tmp_path, "not a regular file|can't be read")
    os.mkfifo(tmp_path / "pipe.npz")
    refused(tmp_path / "pipe.npz", "not a regular file")
    for content in (b"", b"PK", b"hello" * 100, npy(), npz_bytes(a=FLOATS)[:-10]):
        (tmp_path / "a.npz").write_bytes(content)
        refused(tmp_path / "a.npz", "not a zip file|damaged|ends too soon")


def test_what_numpy_has_written_is_checked_without_it(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(npz_bytes(a=FLOATS))
    script = (
        "import sys; from pathlib import Path; from trainer.modelfile import check_npz, sums_are_finite\n"
        "assert check_npz(Path(sys.argv[1]))['a'].shape == (2, 3) and sums_are_finite(Path(sys.argv[1]))\n"
        "assert not {'numpy', 'chainer'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", script, path], check=True)
