"""Data of the user's own: what is read, what is refused, and what travels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.data import own, resolve
from trainer.data.own_pictures import read_picture
from trainer.data.own_table import read_rows
from trainer.errors import UsageError
from trainer.runtime.datasets import read_directory

COLOURS = {"apple": (200, 30, 30), "lime": (40, 190, 50), "plum": (90, 30, 160)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_DATA_DIR", str(tmp_path / "cache"))


def fruit(folder: Path, size: tuple[int, int] = (9, 7), count: int = 10) -> Path:
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", size, colour).save(folder / name / f"{number}.png")
    return folder


def test_pictures_travel_channels_first_with_their_classes(tmp_path: Path) -> None:
    found = resolve(str(fruit(tmp_path / "fruit")))
    assert found.data is not None
    assert (found.name, found.data.classes, found.data.shape) == ("fruit", tuple(COLOURS), (3, 7, 9))
    data = read_directory(found.directory)
    assert (data.class_count, data.classes) == (3, tuple(COLOURS))
    assert (data.train_images.shape, data.test_images.shape) == ((24, 3, 7, 9), (6, 3, 7, 9))
    assert tuple(data.test_images[data.test_labels == 1][0, :, 0, 0]) == COLOURS["lime"]
    again = resolve(str(tmp_path / "fruit"))
    assert again.digest == found.digest
    Image.new("RGB", (9, 7), "white").save(tmp_path / "fruit" / "lime" / "0.png")
    assert resolve(str(tmp_path / "fruit")).digest != found.digest


def test_pictures_that_are_split_already_stay_so(tmp_path: Path) -> None:
    fruit(tmp_path / "all" / "train", (64, 200), 3)
    fruit(tmp_path / "all" / "val", (30, 30), 2)
    arrays = own.read(tmp_path / "all")
    assert (arrays.train_x.shape, arrays.test_x.shape) == ((9, 3, 32, 32), (6, 3, 32, 32))


def test_a_table_is_scaled_by_its_training_rows(tmp_path: Path) -> None:
    rows = [f"{'ab'[number % 2]},{number},{100 - number}" for number in range(50)]
    (tmp_path / "t.csv").write_text("label,x,y2\n" + "\n".join(rows) + "\n")
    arrays = own.read(tmp_path / "t.csv")
    assert (arrays.record.columns, arrays.record.classes, len(arrays.test_y)) == (("x", "y2"), ("a", "b"), 10)
    np.testing.assert_allclose(arrays.train_x.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(arrays.train_x.std(axis=0), 1, atol=1e-5)
    (tmp_path / "rows.csv").write_text("y2,x\n100,0\n")
    row = read_rows(tmp_path / "rows.csv", arrays.record)
    np.testing.assert_allclose(row[0] * arrays.record.scale + arrays.record.mean, [0, 100], atol=1e-4)
    found = resolve(str(tmp_path / "t.csv"))
    data = read_directory(found.directory)
    assert data.train_images.dtype == np.float32
    np.testing.assert_array_equal(data.train_images, arrays.train_x)


def test_arrays_keep_their_type_and_shape(tmp_path: Path) -> None:
    x, y = np.arange(40 * 12, dtype=np.uint8).reshape(40, 2, 2, 3), np.arange(40) % 4
    np.savez(tmp_path / "a.npz", x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
    data = read_directory(resolve(str(tmp_path / "a.npz")).directory)
    np.testing.assert_array_equal(data.train_images, x[:30])
    np.testing.assert_array_equal(data.test_labels, y[30:])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a,label\n", "has no rows"),
        ("1,2\n3,4\n", "numbers in its first line"),
        ("a,label\n1,x\nno,y\n", r"line 3: a is 'no', not a number"),
        ("a,label\n1,x\nnan,y\n", r"line 3: a is 'nan', not a number"),
        ("a,label\n1,x\n1\n", "line 3, has 1 columns"),
        ("a,label\n1,x\n2,x\n", "column 'label', has one class, 'x'"),
        ("a,price\n1,3.2\n2,4.1\n", "column 'price', has one example of the class '3.2'"),
        ("a;label\n1;x\n2;y\n", "has one column"),
        ("label\nx\n", "has one column"),
    ],
)
def test_a_faulty_table_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UsageError, match=complaint) as caught:
        resolve(str(tmp_path / "t.csv"))
    assert str(tmp_path / "t.csv") in caught.value.message
    assert caught.value.hint


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    (fruit(tmp_path / "fruit") / "lime" / "3.png").write_bytes(b"\x89PNG no picture")
    np.savez(tmp_path / "a.npz", something=np.zeros(3))
    np.savez(tmp_path / "b.npz", x=np.zeros((4, 2)), y=np.array([0, 1, 2, 300]))
    np.savez(tmp_path / "c.npz", x=np.array([{}, {}], object), y=np.zeros(2, int))
    (tmp_path / "a.txt").write_text("x")
    for name in ("fruit", "a.npz", "b.npz", "c.npz", "a.txt"):
        with pytest.raises(Exception, match=str(tmp_path)) as caught:
            resolve(str(tmp_path / name))
        assert getattr(caught.value, "hint", None), name


def test_pictures_of_16_bits_keep_their_grey_levels(tmp_path: Path) -> None:
    # A camera's 12 bits in 16: read as 8 bits, all above 255 would be white.
    levels = {"dark": 1000, "light": 3000}
    for name, level in levels.items():
        (tmp_path / "deep" / name).mkdir(parents=True)
        for number in range(4):
            pixels = np.full((5, 5), level + number, np.uint16)
            Image.fromarray(pixels).save(tmp_path / "deep" / name / f"{number}.png")
    arrays = own.read(tmp_path / "deep")
    assert (arrays.record.shape, arrays.record.bits) == ((5, 5), 12)
    for label, level in enumerate(levels.values()):
        assert abs(int(arrays.test_x[arrays.test_y == label][0, 0, 0]) - level * 255 // 4095) <= 1
    again = read_picture(tmp_path / "deep" / "light" / "0.png", arrays.record)
    assert again[0, 0] == 3000 * 255 // 4095


def test_what_systems_leave_among_pictures_is_no_picture(tmp_path: Path) -> None:
    folder = fruit(tmp_path / "fruit")
    (folder / "lime" / "._3.png").write_bytes(b"macOS")
    (folder / "lime" / "Thumbs.db").write_bytes(b"Windows")
    (folder / "lime" / ".ipynb_checkpoints").mkdir()
    Image.new("RGB", (3, 3)).save(folder / "lime" / ".ipynb_checkpoints" / "3-checkpoint.png")
    (folder / ".git").mkdir()
    arrays = own.read(folder)
    assert (arrays.record.classes, len(arrays.train_y)) == (tuple(COLOURS), 24)


def _classes(folder: Path, part: str, names: tuple[str, ...]) -> None:
    for name in names:
        (folder / part / name).mkdir(parents=True)
        for number in range(2):
            Image.new("L", (4, 4), 9).save(folder / part / name / f"{number}.png")


def test_folders_that_are_no_data_set_are_named(tmp_path: Path) -> None:
    (fruit(tmp_path / "empty") / "melon").mkdir()
    _classes(tmp_path / "alone", "train", ("a", "b"))
    _classes(tmp_path / "unlearned", "train", ("a", "b"))
    _classes(tmp_path / "unlearned", "test", ("a", "c"))
    (tmp_path / "flat").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "flat" / "1.png")
    for name, complaint in {
        "empty": "has a folder 'melon' with no picture in it",
        "alone": "has a folder train, and none of test",
        "unlearned": "has no training example of the class 'c', only test examples",
        "flat": "holds no data: no pictures in a folder per class",
    }.items():
        with pytest.raises(UsageError, match=complaint) as caught:
            resolve(str(tmp_path / name))
        assert caught.value.hint


def test_labels_of_an_archive(tmp_path: Path) -> None:
    x, y = np.zeros((6, 2), np.float32), np.array([0, 1, 2] * 2)
    np.savez(tmp_path / "float.npz", x=x, y=y.astype(np.float64))
    assert set(own.read(tmp_path / "float.npz").train_y) == {0, 1, 2}
    np.savez(tmp_path / "half.npz", x=x, y=y / 2)
    with pytest.raises(UsageError, match="not whole numbers"):
        own.read(tmp_path / "half.npz")
    np.savez(tmp_path / "hot.npz", x=x, y=np.eye(3)[y])
    with pytest.raises(UsageError, match=r"labels of shape \(6, 3\)"):
        own.read(tmp_path / "hot.npz")
