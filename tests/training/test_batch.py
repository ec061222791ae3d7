"""The batch that ``SerialIterator`` returns is the list that Chainer would have returned, to everyone who looks."""

from __future__ import annotations

import copy
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


@pytest.fixture(autouse=True)
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The means for the length of a test: other tests see Chainer's own classes."""
    convert = chainer.dataset.convert
    serial = chainer.iterators.serial_iterator
    monkeypatch.setattr(serial.SerialIterator, "__next__", serial.SerialIterator.__next__)
    monkeypatch.setattr(serial.SerialIterator, "next", serial.SerialIterator.next)
    monkeypatch.setattr(convert, "concat_examples_func", convert.concat_examples_func)
    monkeypatch.setattr(convert.concat_examples, "base_callable", convert.concat_examples.base_callable)
    batches.patch_iterator(serial)
    batches.patch_convert(convert)


def first(dataset: Any, size: Any = 4) -> Any:
    return chainer.iterators.SerialIterator(dataset, size, shuffle=False).next()


def same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    if isinstance(theirs, tuple):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
    else:
        np.testing.assert_array_equal(ours, theirs, strict=True)
        assert ours.flags.c_contiguous == theirs.flags.c_contiguous


SOURCES = {
    "array": X,
    "tuple": chainer.datasets.TupleDataset(X, T),
    "one": chainer.datasets.TupleDataset(T),
    "sub": chainer.datasets.split_dataset(chainer.datasets.TupleDataset(X, T), 6)[0],
    "tail": chainer.datasets.split_dataset(chainer.datasets.TupleDataset(X, T), 6)[1],
    "random": chainer.datasets.split_dataset_random(X, 6, seed=0)[1],
    "nested": chainer.datasets.split_dataset_random(chainer.datasets.split_dataset(X, 8)[1], 1, seed=0)[0],
    "half": chainer.datasets.TupleDataset(X.astype(np.float16), T > 4),
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("size", [1, 4, 15])
def test_concatenates_to_the_same_arrays(name: Any, size: Any) -> None:
    dataset = SOURCES[name]
    iterator = chainer.iterators.SerialIterator(dataset, size, shuffle=False)
    for _ in range(4):
        batch = iterator.next()
        assert type(batch) is batches.Batch
        gathered = concat_examples(batch)
        same(gathered, concat_examples(list(batch)))


OTHERS = {
    "list": list(zip(X, T, strict=True)),
    "objects": np.array([None] * 10),
    "strings": np.array(["a", "bcd"] * 5),
    "big-endian": X.astype(">f4"),
    "transposed": np.asfortranarray(np.zeros((10, 3, 2))),
    "subclass": X.view(type("Own", (np.ndarray,), {})),
    "transform": chainer.datasets.TransformDataset(X, lambda row: row * 2),
    "dict": chainer.datasets.DictDataset(x=X, t=T),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_data_sets_are_left_alone(name: Any) -> None:
    assert type(first(OTHERS[name])) is list


def test_other_samplers_are_left_alone() -> None:
    iterator = chainer.iterators.SerialIterator(X, 4, order_sampler=lambda order, position: -1 - np.arange(10))
    assert type(iterator.next()) is list


def test_is_a_list() -> None:
    batch = first(SOURCES["tuple"])
    assert isinstance(batch, list)
    assert len(batch) == 4
    assert [t for _, t in batch] == [0, 1, 2, 3]
    assert batch[-1][1] == 3
    assert [t for _, t in batch[1:3]] == [1, 2]
    assert [int(t) for t in list(zip(*batch, strict=True))[1]] == [0, 1, 2, 3]
    plain = first(T)
    assert plain == [0, 1, 2, 3]
    assert plain + [9] == [0, 1, 2, 3, 9]  # noqa: RUF005  # the operator is what is tested
    assert [9] + plain == [9, 0, 1, 2, 3]  # noqa: RUF005
    assert plain * 2 == [0, 1, 2, 3] * 2
    assert repr(plain) == repr([np.int32(i) for i in range(4)])
    assert pickle.loads(pickle.dumps(plain)) == [0, 1, 2, 3]
    assert type(copy.copy(plain)) is list
    np.testing.assert_array_equal(np.array(plain), np.arange(4))
    plain.sort(reverse=True)
    plain.append(7)
    assert plain == [3, 2, 1, 0, 7]
    with pytest.raises(TypeError, match="unhashable"):
        hash(plain)


@given(
    st.lists(st.sampled_from(["append", "pop", "reverse", "set", "delete", "insert", "extend", "clear"]), max_size=5)
)
@settings(max_examples=50, deadline=None)
def test_changes_are_concatenated(changes: Any) -> None:
    """Whatever a script does to the list, ``concat_examples`` sees."""
    batch = batches.Batch(T, np.arange(4), (T,), np.arange(4), False)
    expected = [np.int32(i) for i in range(4)]
    for each in changes:
        for target in (batch, expected):
            if each == "append":
                target.append(np.int32(8))
            elif each == "extend":
                target.extend([np.int32(5), np.int32(6)])
            elif each == "insert":
                target.insert(0, np.int32(9))
            elif each == "clear":
                target.clear()
            elif each == "reverse":
                target.reverse()
            elif target:
                if each == "pop":
                    target.pop()
                elif each == "set":
                    target[0] = np.int32(7)
                else:
                    del target[-1]
    assert len(batch) == len(expected)
    assert batch == expected
    if expected:
        same(concat_examples(batch), concat_examples(expected))


def test_rows_are_views_as_before() -> None:
    images = X.copy()
    batch = first(images)
    batch[0][...] = -1
    assert images[0].max() == -1
    assert concat_examples(batch)[0].max() == -1


def test_padding_goes_through_chainer() -> None:
    batch = first(SOURCES["tuple"])
    x, t = concat_examples(batch, padding=0)
    same((x, t), (X[:4], T[:4]))
