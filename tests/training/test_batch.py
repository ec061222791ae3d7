"""What ``SerialIterator`` returns and ``concat_examples`` makes of it are what they are without the fast layer."""

from __future__ import annotations

import json
import pickle
from typing import Any

import chainer
import numpy as np
import pytest
from chainer.dataset import concat_examples
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.runtime.fast import batches

X = np.arange(40, dtype=np.float32).reshape(10, 4)
T = np.arange(10, dtype=np.int32)


chainers_next = chainer.iterators.SerialIterator.__next__
chainers_concat = chainer.dataset.convert._concat_arrays


@pytest.fixture(autouse=True)
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The means for the length of a test: other tests see Chainer's own classes."""
    convert = chainer.dataset.convert
    serial = chainer.iterators.serial_iterator
    monkeypatch.setattr(serial.SerialIterator, "__next__", chainers_next)
    monkeypatch.setattr(serial.SerialIterator, "next", serial.SerialIterator.next)
    monkeypatch.setattr(convert, "_concat_arrays", chainers_concat)
    batches.patch_iterator(serial)
    batches.patch_convert(convert)


def iterators(dataset: Any, size: Any, **options: Any) -> Any:
    """The same iterator twice: with the means, and as Chainer's own."""
    options.setdefault("shuffle", False)
    ours = chainer.iterators.SerialIterator(dataset, size, **options)
    theirs = chainer.iterators.SerialIterator(dataset, size, **options)
    return ours.next, lambda: chainers_next(theirs)


def same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    if isinstance(theirs, tuple | list):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
    elif isinstance(theirs, np.ndarray):
        np.testing.assert_array_equal(ours, theirs, strict=True)
        assert ours.strides == theirs.strides
        assert (ours.base is None) == (theirs.base is None) or ours.flags.c_contiguous
    else:
        assert ours == theirs


def concat_as_chainer(arrays: Any) -> Any:
    return chainers_concat(arrays, None)


SOURCES = {
    "array": X,
    "labels": T,
    "floats": np.arange(10.0),
    "strings": np.array(["a", "bcd"] * 5),
    "big-endian": X.astype(">f4"),
    "images": np.arange(240, dtype=np.uint8).reshape(10, 2, 3, 4),
    "transposed": np.asfortranarray(np.arange(60.0).reshape(10, 3, 2)),
    "column": np.arange(20.0).reshape(10, 2)[:, :1],
    "none wide": np.zeros((10, 0, 3)),
    "tuple": chainer.datasets.TupleDataset(X, T),
    "one": chainer.datasets.TupleDataset(T),
    "mixed": chainer.datasets.TupleDataset(X, list(range(10)), T > 4),
    "sub": chainer.datasets.split_dataset(chainer.datasets.TupleDataset(X, T), 6)[0],
    "tail": chainer.datasets.split_dataset(chainer.datasets.TupleDataset(X, T), 6)[1],
    "random": chainer.datasets.split_dataset_random(X, 6, seed=0)[1],
    "nested": chainer.datasets.split_dataset_random(chainer.datasets.split_dataset(X, 8)[1], 1, seed=0)[0],
    "from the end": chainer.datasets.SubDataset(
        chainer.datasets.SubDataset(X, 2, 8), 0, 4, np.array([-1, 0, 2, -6, 1, 3])
    ),
    "order is a list": chainer.datasets.SubDataset(X, 0, 4, [3, 1, 2, 0, *range(4, 10)]),
    "half": chainer.datasets.TupleDataset(X.astype(np.float16), T > 4),
    "list of tuples": list(zip(X, T, strict=True)),
    "list of lists": [[1.0, float(i)] for i in range(10)],
    "list of lengths": [np.zeros(2 + i % 2) for i in range(10)],
    "list of shapes": [np.zeros((2, 2 + i % 2)) for i in range(10)],
    "list of types": [X[0], X[1].astype(np.float64)] * 5,
    "list of numbers": [np.float32(1), np.float64(2)] * 5,
    "subclass": X.view(type("Own", (np.ndarray,), {})),
    "transform": chainer.datasets.TransformDataset(X, lambda row: row * 2),
    "dict": chainer.datasets.DictDataset(x=X, t=T),
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("size", [1, 4, 15])
def test_lists_are_chainers(name: Any, size: Any) -> None:
    ours, theirs = iterators(SOURCES[name], size)
    for _ in range(4):
        batch, expected = ours(), theirs()
        assert type(batch) is list
        if name == "dict":
            batch, expected = ([tuple(each.values()) for each in examples] for examples in (batch, expected))
        same(batch, expected)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("size", [1, 4, 15])
def test_concatenates_to_the_same_arrays(name: Any, size: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = iterators(SOURCES[name], size)[0]()
    found = raised(concat_examples, batch)
    monkeypatch.setattr(chainer.dataset.convert, "_concat_arrays", chainers_concat)
    expected = raised(concat_examples, batch)
    if isinstance(expected, dict):
        found, expected = tuple(found.values()), tuple(expected.values())
    same(found, expected)


def raised(function: Any, *arguments: Any) -> Any:
    """The result, or the exception's type and text."""
    try:
        return function(*arguments)
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_arrays_concatenate_as_chainers_do(data: Any) -> None:
    """Any shapes, types and orders in memory, and now and then an array unlike the others."""
    dtype = data.draw(st.sampled_from(["f4", "f8", "u1", "?", "c8", ">i2", "U3", "O"]))
    shape = data.draw(st.lists(st.integers(0, 3), max_size=3).map(tuple))
    arrays = []
    for _ in range(data.draw(st.integers(1, 4))):
        array = np.arange(int(np.prod(shape, dtype=int))).reshape(shape).astype(dtype)
        change = data.draw(st.sampled_from(["", "", "", "transposed", "fortran", "wider", "float64", "strided"]))
        if change == "transposed":
            array = array.T
        elif change == "fortran":
            array = np.asfortranarray(array) if array.ndim else array
        elif change == "wider" and array.ndim:
            array = np.concatenate([array, array])
        elif change == "float64" and dtype not in ("U3", "O"):
            array = array.real.astype(np.float64)
        elif change == "strided" and array.ndim:
            array = np.repeat(array, 2, axis=-1)[..., ::2]
        arrays.append(array)
    concat = chainer.dataset.convert._concat_arrays
    same(raised(concat, list(arrays), None), raised(concat_as_chainer, list(arrays)))
    scalars = [array.flat[0] for array in arrays if array.size]
    if scalars and all(isinstance(scalar, np.generic) for scalar in scalars):
        same(raised(concat, scalars, None), raised(concat_as_chainer, scalars))


def test_other_samplers() -> None:
    for sampler in (lambda order, position: -1 - np.arange(10), lambda order, position: np.arange(10)[::-1]):
        ours, theirs = iterators(X, 4, shuffle=None, order_sampler=sampler)
        for _ in range(3):
            same(ours(), theirs())


def test_ends_and_raises_as_chainers() -> None:
    ours, theirs = iterators(X, 4, repeat=False)
    for _ in range(3):
        same(ours(), theirs())
    with pytest.raises(StopIteration):
        ours()
    ours, _ = iterators(X, 4, shuffle=None, order_sampler=lambda order, position: np.arange(10) + 5)
    with pytest.raises(IndexError):
        [ours() for _ in range(3)]


def test_a_label_is_what_it_was_when_the_batch_was_made() -> None:
    """A replay buffer, a relabelling step or a prefetcher changes the data set between the two."""
    labels, images = T.copy(), X.copy()
    batch = iterators(chainer.datasets.TupleDataset(images, labels), 3)[0]()
    labels[:] = -1
    images[0] = -1
    x, t = concat_examples(batch)
    np.testing.assert_array_equal(t, [0, 1, 2])
    # Rows of an array are views of it, with and without the means.
    np.testing.assert_array_equal(x, [[-1] * 4, *X[1:3]])
    batch[0][0][...] = 7
    assert images[0].min() == 7


def test_a_batch_is_a_list() -> None:
    batch = iterators(np.arange(6.0), 2)[0]()
    assert type(batch) is list
    assert json.dumps(batch) == "[0.0, 1.0]"
    assert pickle.loads(pickle.dumps(batch)) == [0.0, 1.0]


def test_what_is_concatenated_is_new() -> None:
    labels = [np.int32(1), np.int32(2)]
    array = np.arange(3)
    for arrays in (labels, [array], np.arange(4)):
        joined = chainer.dataset.convert._concat_arrays(arrays, None)
        joined[...] = 9
    assert labels == [1, 2]
    assert array.max() == 2


def test_padding_goes_through_chainer() -> None:
    batch = iterators(SOURCES["tuple"], 4)[0]()
    x, t = concat_examples(batch, padding=0)
    same((x, t), (X[:4], T[:4]))
