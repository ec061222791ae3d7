"""The order of batches is Chainer's own, and is part of what is saved."""

from __future__ import annotations

from typing import Any

import chainer
import numpy as np
import pytest
from chainer.serializers import DictionarySerializer, NpzDeserializer
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.runtime.faults import RuntimeFault
from trainer.runtime.training.iterator import ArrayIterator, unit_range
from trainer.runtime.training.ranks import Ranks


def make(n: Any, batch_size: Any, **options: Any) -> Any:
    images = np.arange(n * 6, dtype=np.uint8).reshape(n, 2, 3)
    return ArrayIterator((images, np.arange(n) % 10), batch_size, **options), images


BOOLEANS = st.booleans()


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 2**32 - 1), BOOLEANS, BOOLEANS, BOOLEANS)
@settings(max_examples=100, deadline=None)
def test_batches_are_serial_iterators(
    n: int, batch_size: int, seed: int, repeat: bool, shuffle: bool, order_stays: bool
) -> None:
    ours, images = make(n, batch_size, seed=seed, repeat=repeat, shuffle=shuffle)
    # As on a GPU, where an epoch's order is sent once.
    ours._order_stays = order_stays
    sampler = chainer.iterators.ShuffleOrderSampler(np.random.RandomState(seed)) if shuffle else None
    theirs = chainer.iterators.SerialIterator(
        np.arange(n), batch_size, repeat=repeat, shuffle=None if shuffle else False, order_sampler=sampler
    )
    for _ in range(5):
        expected = next(theirs, None)
        found = next(ours, None)
        for name in ("epoch", "epoch_detail", "previous_epoch_detail", "is_new_epoch", "current_position"):
            assert getattr(ours, name) == getattr(theirs, name)
        if expected is None:
            assert found is None
            continue
        x, t = found
        np.testing.assert_array_equal(x, images[expected], strict=True)
        np.testing.assert_array_equal(t, (np.arange(n) % 10)[expected], strict=True)


@given(st.integers(2, 30), st.integers(1, 40), st.integers(0, 8))
@settings(max_examples=40, deadline=None)
def test_continues_where_it_was_saved(n: Any, batch_size: Any, before: Any) -> None:
    original, _ = make(n, batch_size, seed=1)
    for _ in range(before):
        next(original)
    saved = DictionarySerializer()
    original.serialize(saved)
    state = {key: np.array(value) for key, value in saved.target.items()}
    restored, _ = make(n, batch_size, seed=2)
    restored._order_stays = True
    next(restored)
    restored.serialize(NpzDeserializer(state))
    for _ in range(2 * n // batch_size + 3):
        for ours, theirs in zip(next(restored), next(original), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert restored.epoch_detail == original.epoch_detail


@pytest.mark.parametrize("order", [[0, 1, 2, 2], [0, 1, 2, 9], [-1, 0, 1, 2]])
def test_refuses_an_order_that_is_none(order: Any) -> None:
    iterator, _ = make(4, 2)
    saved = DictionarySerializer()
    iterator.serialize(saved)
    saved.target["order"] = np.array(order)
    with pytest.raises(ValueError, match="permutation"):
        iterator.serialize(NpzDeserializer(saved.target))


def test_unit_range_is_get_mnists_arithmetic() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 256)
    x, _ = unit_range((images, np.zeros(1, np.int32)), chainer.get_device("@numpy"))
    expected = images.astype(np.float32)
    expected *= 1.0 / 255.0
    np.testing.assert_array_equal(x, expected, strict=True)
    assert x.max() == 1


ARRAYS = {
    "one": np.arange(7.0),
    "tuple": (np.zeros((7, 3, 2, 2), np.float16), np.arange(7, dtype=np.int64), np.arange(7) > 3),
    "tuple data set": chainer.datasets.TupleDataset(np.arange(14).reshape(7, 2), np.array(list("abcdefg"))),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_any_arrays(name: str) -> None:
    """Whatever their number, shapes and types: the batches that ``SerialIterator`` and ``concat_examples`` make."""
    dataset = ARRAYS[name]
    ours = ArrayIterator(dataset, 3, shuffle=False)
    given = chainer.datasets.TupleDataset(*dataset) if isinstance(dataset, tuple) else dataset
    assert len(ours.dataset) == 7
    for number in range(4):
        batch = next(ours)
        rows = [(3 * number + i) % 7 for i in range(3)]
        if isinstance(given, np.ndarray):
            np.testing.assert_array_equal(batch, given[rows], strict=True)
        else:
            assert type(batch) is tuple
            for found, whole in zip(batch, given._datasets, strict=True):
                np.testing.assert_array_equal(found, whole[rows], strict=True)


@pytest.mark.parametrize(
    "dataset",
    [
        [1, 2, 3],
        np.zeros(()),
        (np.zeros(3), [1, 2, 3]),
        chainer.datasets.TransformDataset(np.zeros(3), lambda x: x),
        chainer.datasets.SubDataset(np.zeros(3), 0, 2),
    ],
    ids=lambda dataset: type(dataset).__name__,
)
def test_other_data_sets_are_refused(dataset: Any) -> None:
    with pytest.raises(TypeError, match=r"SerialIterator takes any data set"):
        ArrayIterator(dataset, 2)


class Communicator:
    """One of several ranks, as far as an iterator asks."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


@given(st.integers(5, 40), st.integers(1, 5), st.integers(1, 5), BOOLEANS)
@settings(max_examples=50, deadline=None)
def test_the_parts_of_ranks_are_the_batch(n: int, batch_size: int, size: int, order_stays: bool) -> None:
    ranks = [Ranks(Communicator(rank, size)) for rank in range(size)]
    if batch_size < size:
        with pytest.raises(RuntimeFault, match="no example for some of"):
            make(n, batch_size, ranks=ranks[0])
        return
    whole, _ = make(n, batch_size, seed=3)
    parts = []
    for each in ranks:
        each.joined = True
        part, _ = make(n, batch_size, seed=3, ranks=each)
        part._order_stays = order_stays
        parts.append(part)
    for _ in range(12):
        expected, found = next(whole), [next(part) for part in parts]
        for at in range(2):
            np.testing.assert_array_equal(np.concatenate([arrays[at] for arrays in found]), expected[at])
        sizes = [len(arrays[1]) for arrays in found]
        assert max(sizes) - min(sizes) <= 1
        assert [part.share for part in parts] == [length / batch_size for length in sizes]
        assert {(part.epoch, part.epoch_detail) for part in parts} == {(whole.epoch, whole.epoch_detail)}


def test_ranks_whose_gradients_nobody_joins_are_refused() -> None:
    iterator, _ = make(10, 4, ranks=Ranks(Communicator(0, 2)))
    with pytest.raises(RuntimeFault, match="each rank would train a model of its own"):
        next(iterator)
