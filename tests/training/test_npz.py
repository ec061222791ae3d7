"""npz files: the same bytes for the same arrays, whole or not at all, and nothing in them is trusted."""

from __future__ import annotations

import contextlib
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import chainer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trainer.runtime import npz
from trainer.runtime.faults import RuntimeFault
from trainer.runtime.training.checkpoint import save_npz

DTYPES = st.one_of(
    hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.floating_dtypes(), hnp.boolean_dtypes(), st.just("U7")
)
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
NAMES = st.from_regex(r"[a-z][a-z0-9:_]{0,9}(/[a-z0-9:_]{1,9})?", fullmatch=True)


@given(st.dictionaries(NAMES, ARRAYS, max_size=4), st.booleans())
@settings(max_examples=60, deadline=None)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, arrays: Any, compress: Any) -> None:
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    npz.write(path, arrays, compress=compress)
    first = path.read_bytes()
    npz.write(path, dict(reversed(arrays.items())), compress=compress)
    assert path.read_bytes() == first
    found = npz.read(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    with np.load(path) as numpys:
        assert set(numpys.files) == set(arrays)


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_refused_or_read(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    path.write_bytes(content)
    with pytest.raises(RuntimeFault):
        npz.read(path)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_files_are_refused_or_read(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    npz.write(path, {"x": np.arange(20.0), "y/z": np.zeros((2, 3), np.int8)}, compress=data.draw(st.booleans()))
    content = bytearray(path.read_bytes())
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    # Some bytes carry no meaning, and a file in which only they differ is sound.
    with contextlib.suppress(RuntimeFault):
        npz.read(path)


def test_loads_as_chainer_saves(tmp_path: Path, make_model: Any) -> None:
    model = make_model().predictor
    save_npz(tmp_path / "ours.npz", model)
    chainer.serializers.save_npz(str(tmp_path / "theirs.npz"), model)
    ours, theirs = npz.read(tmp_path / "ours.npz"), npz.read(tmp_path / "theirs.npz")
    assert set(ours) == set(theirs) == {f"l{i}/{name}" for i in (1, 2, 3) for name in "Wb"}
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], strict=True)
    other = make_model().predictor
    other.l1.W.array[...] = 0
    chainer.serializers.load_npz(str(tmp_path / "ours.npz"), other)
    np.testing.assert_array_equal(other.l1.W.array, model.l1.W.array)


class Trap:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was loaded",))


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "trap.npz", **{"l1/W": np.array([Trap()], dtype=object)})
    with pytest.raises(RuntimeFault, match="pickled Python objects"):
        npz.read(tmp_path / "trap.npz")
    with pytest.raises(RuntimeFault, match="Python objects"):
        npz.write(tmp_path / "new.npz", {"x": np.array([None])})
    assert not (tmp_path / "new.npz").exists()


@pytest.mark.parametrize("name", ["a//b", "/a", "../a", "a\\b", "a\nb", "a" * 300])
def test_a_name_that_would_not_be_read_again_is_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(RuntimeFault, match="can't be read again"):
        npz.write(tmp_path / "new.npz", {name: np.zeros(3)})
    assert not list(tmp_path.iterdir())


def test_bombs_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as stream:
        for _ in range(64):
            stream.write(bytes(1 << 20))
    with pytest.raises(RuntimeFault, match="unpacks to"):
        npz.read(path, npz.Limits(total=1 << 20))


def test_more_data_than_there_is_is_refused(tmp_path: Path) -> None:
    """A header that claims a shape of terabytes, which NumPy would allocate."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(RuntimeFault, match="more data than it has"):
        npz.read(tmp_path / "a.npz")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npz"
    npz.write(path, {"x": np.zeros(3)})
    before = path.read_bytes()

    def full(descriptor: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(npz.os, "fsync", full)
    with pytest.raises(RuntimeFault, match="No space left"):
        npz.write(path, {"x": np.ones(3)})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.npz"]


def test_missing_folder_and_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFault, match="cannot write"):
        npz.write(tmp_path / "none" / "a.npz", {})
    with pytest.raises(RuntimeFault, match="no file"):
        npz.read(tmp_path / "a.npz")
    with pytest.raises(RuntimeFault, match="can't be read"):
        npz.read(tmp_path)


def test_fortran_order_and_version_two(tmp_path: Path) -> None:
    stream = io.BytesIO()
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.lib.format.write_array(stream, array, version=(2, 0))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", stream.getvalue())
    np.testing.assert_array_equal(npz.read(tmp_path / "a.npz")["x"], array)
