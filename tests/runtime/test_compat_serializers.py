"""load_npz keeps loading everything, and warns before it unpickles what can run code."""

import io
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trainer.runtime import compat
from trainer.runtime.compat.serializers import UnsafePickleWarning, pickled_members

compat.apply()

import chainer  # noqa: E402
from chainer import links  # noqa: E402


class Marker:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def evil_array(path: Path) -> numpy.ndarray:
    array = numpy.empty((), object)
    array[()] = Marker(path)
    return array


def test_a_model_is_loaded_without_a_word(tmp_path: Path) -> None:
    saved, loaded = links.Linear(3, 2), links.Linear(3, 2)
    chainer.serializers.save_npz(tmp_path / "model.npz", saved)
    chainer.serializers.load_npz(tmp_path / "model.npz", loaded)
    assert (saved.W.array == loaded.W.array).all()


def test_parameters_that_are_not_initialised_are_no_danger(tmp_path: Path) -> None:
    # Chainer writes None as a pickled array.
    file = str(tmp_path / "model.npz")
    chainer.serializers.save_npz(file, links.Linear(None, 2))
    with numpy.load(file, allow_pickle=True) as npz:
        assert npz["W"].dtype == object
    chainer.serializers.load_npz(file, links.Linear(None, 2))
    assert pickled_members(file) == []


def test_a_file_with_pickles_is_named_and_still_loaded(tmp_path: Path) -> None:
    file, ran = tmp_path / "model.npz", tmp_path / "ran"
    saved = links.Linear(3, 2)
    numpy.savez(file, W=saved.W.array, b=saved.b.array, extra=evil_array(ran))
    loaded = links.Linear(3, 2)
    with pytest.warns(UnsafePickleWarning, match=r"model\.npz holds pickles \(extra\).*allow_pickle=False") as caught:
        chainer.serializers.load_npz(file, loaded)
    assert caught[0].filename == __file__  # points at the script's line
    assert (saved.W.array == loaded.W.array).all()


def test_the_warning_comes_before_the_code_runs(tmp_path: Path) -> None:
    file, ran = tmp_path / "model.npz", tmp_path / "ran"
    numpy.savez(file, W=evil_array(ran), b=numpy.zeros(2, "f"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnsafePickleWarning)
        with pytest.raises(UnsafePickleWarning):
            chainer.serializers.load_npz(file, links.Linear(3, 2))
    assert not ran.exists()


def test_what_the_warning_recommends_is_safe(tmp_path: Path) -> None:
    file, ran = tmp_path / "model.npz", tmp_path / "ran"
    saved, loaded = links.Linear(3, 2), links.Linear(3, 2)
    numpy.savez(file, W=saved.W.array, b=saved.b.array, extra=evil_array(ran))
    with numpy.load(file, allow_pickle=False) as npz:
        chainer.serializers.NpzDeserializer(npz).load(loaded)
    assert (saved.W.array == loaded.W.array).all()
    assert not ran.exists()


def test_open_files_are_checked_and_left_where_they_were(tmp_path: Path) -> None:
    saved, loaded = links.Linear(3, 2), links.Linear(3, 2)
    buffer = io.BytesIO()
    chainer.serializers.save_npz(buffer, saved)
    buffer.seek(0)
    chainer.serializers.load_npz(buffer, loaded)
    assert (saved.W.array == loaded.W.array).all()

    buffer = io.BytesIO()
    numpy.savez(buffer, extra=evil_array(tmp_path / "ran"))
    buffer.seek(0)
    assert pickled_members(buffer) == ["extra"]
    assert buffer.tell() == 0


def test_a_pickle_that_calls_itself_npz_is_noticed(tmp_path: Path) -> None:
    # numpy.load unpickles a file that is neither an archive nor an array.
    file, ran = tmp_path / "model.npz", tmp_path / "ran"
    file.write_bytes(pickle.dumps(Marker(ran)))
    assert pickled_members(file) == ["the whole file"]
    assert not ran.exists()


def test_a_header_too_long_to_be_checked_is_not_trusted(tmp_path: Path) -> None:
    # NumPy accepts headers of any length where pickles are allowed.
    names = [(f"field_{i:05}", "O") for i in range(1000)]
    numpy.savez(tmp_path / "a.npz", W=numpy.zeros(1, names))
    assert pickled_members(tmp_path / "a.npz") == ["W"]


def test_none_among_other_harmless_values(tmp_path: Path) -> None:
    values = numpy.array([None, "text", 1, 2.5, numpy.float32(3), numpy.zeros(2)], object)
    numpy.savez(tmp_path / "a.npz", values=values)
    assert pickled_members(tmp_path / "a.npz") == []


def test_an_object_array_of_millions_is_not_read_to_be_judged(tmp_path: Path) -> None:
    header = io.BytesIO()
    numpy.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("W.npy", header.getvalue() + b"\0" * 50_000_000)
    assert pickled_members(tmp_path / "bomb.npz") == ["W"]


def test_members_that_are_no_arrays_are_ignored(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
        archive.writestr("empty", "")
    assert pickled_members(tmp_path / "a.npz") == []


def test_a_missing_file_is_reported_by_numpy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        chainer.serializers.load_npz(tmp_path / "nowhere.npz", links.Linear(3, 2))


@given(st.binary(max_size=300))
def test_any_bytes_are_judged_without_an_error(data: bytes) -> None:
    for start in (b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00"):
        file = io.BytesIO(start + data)
        assert isinstance(pickled_members(file), list)
        assert file.tell() == 0


@given(st.data(), st.integers(0, 255))
def test_a_damaged_archive_is_judged_without_an_error(data: st.DataObject, value: int) -> None:
    buffer = io.BytesIO()
    numpy.savez_compressed(buffer, W=numpy.arange(6), none=numpy.array(None))
    content = bytearray(buffer.getvalue())
    content[data.draw(st.integers(0, len(content) - 1))] = value
    assert isinstance(pickled_members(io.BytesIO(content)), list)


@given(hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(max_dims=3, max_side=4)))
def test_plain_arrays_are_never_suspected(array: numpy.ndarray) -> None:
    buffer = io.BytesIO()
    numpy.savez(buffer, array=array)
    buffer.seek(0)
    assert pickled_members(buffer) == []
