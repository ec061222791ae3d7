"""Pictures of digits: real ones drawn again in other sizes, colours and formats, and files that are no pictures."""

import contextlib
import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from trainer.errors import NotFoundError, TrainerError, UsageError
from trainer.modeluse import LoadedModel, Network, predict
from trainer.modeluse.prediction import read_digit

COUNT = 200
Digits = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def enlarged(image: NDArray[np.uint8], times: int) -> Image.Image:
    return Image.fromarray(image).resize((28 * times, 28 * times), Image.Resampling.BICUBIC)


def inverted(image: Image.Image) -> Image.Image:
    return Image.fromarray(255 - np.asarray(image))


def on_a_page(image: NDArray[np.uint8]) -> Image.Image:
    page = Image.new("L", (400, 250), 255)
    page.paste(inverted(enlarged(image, 4)), (170, 20))
    return page


def transparent(image: NDArray[np.uint8]) -> Image.Image:
    picture = Image.new("RGB", (140, 140), "navy")
    picture.putalpha(enlarged(image, 5))
    return picture


def white_on_transparent(image: NDArray[np.uint8]) -> Image.Image:
    picture = Image.new("RGB", (140, 140), "white")
    picture.putalpha(enlarged(image, 5))
    return picture


def pale(image: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray((200 - np.asarray(enlarged(image, 3)) * (120 / 255)).astype(np.uint8))


def sixteen_bits(image: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.asarray(enlarged(image, 3)).astype(np.uint16) * 257)


def twelve_bits(image: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.asarray(enlarged(image, 3)).astype(np.uint16) * 16)


def ten_bits_as_mnist_has_it(image: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(image.astype(np.uint16) * 4)


def faint_as_mnist_has_it(image: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.round(image * (20 / 255)).astype(np.uint8))


def faint(image: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray((230 - np.round(np.asarray(enlarged(image, 3)) * (24 / 255))).astype(np.uint8))


def palette(image: NDArray[np.uint8]) -> Image.Image:
    return inverted(enlarged(image, 3)).convert("RGB").quantize(16)


RENDERINGS: dict[str, tuple[Callable[[NDArray[np.uint8]], Image.Image], str]] = {
    "inverted": (lambda image: inverted(Image.fromarray(image)), "png"),
    "ten times as large": (lambda image: enlarged(image, 10), "png"),
    "dark on a page": (on_a_page, "png"),
    "jpeg": (lambda image: inverted(enlarged(image, 5)), "jpg"),
    "cmyk jpeg": (lambda image: inverted(enlarged(image, 5)).convert("CMYK"), "jpg"),
    "pale": (pale, "png"),
    "transparent": (transparent, "png"),
    "white on transparent": (white_on_transparent, "png"),
    "16 bits": (sixteen_bits, "png"),
    "12 bits": (twelve_bits, "png"),
    "10 bits as mnist has it": (ten_bits_as_mnist_has_it, "png"),
    "faint": (faint, "png"),
    "faint as mnist has it": (faint_as_mnist_has_it, "png"),
    "palette": (palette, "png"),
}


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_real_digits_drawn_again_are_recognised_as_well(
    digits: Digits, trained: Network, tmp_path: Path, rendering: str
) -> None:
    images, labels = digits[0][-COUNT:], digits[1][-COUNT:]
    draw, ending = RENDERINGS[rendering]
    paths = [tmp_path / f"{number}.{ending}" for number in range(COUNT)]
    for image, path in zip(images, paths, strict=True):
        draw(image).save(path)
    plain = trained.scores(images.reshape(COUNT, -1).astype("f4") / 255).argmax(axis=1)
    found = predict(LoadedModel("model", trained), paths)
    accuracy = np.mean([item.label == label for item, label in zip(found, labels, strict=True)])
    assert (plain == labels).mean() > 0.85
    assert accuracy > (plain == labels).mean() - 0.03
    for item, path in zip(found, paths, strict=True):
        assert item.path == str(path)
        assert item.probability == max(item.probabilities) == item.probabilities[item.label]
        assert sum(item.probabilities) == pytest.approx(1)
        assert [word in " ".join(item.notes) for word in ("faint", "bits")] == [
            rendering.startswith("faint"),
            rendering in ("12 bits", "10 bits as mnist has it"),
        ]


def test_what_is_too_faint_is_said_to_be(tmp_path: Path) -> None:
    for paper, ink, side in ((0, 9, 28), (200, 191, 60)):
        page = np.full((side, side), paper, np.uint8)
        page[10:18, 12:15] = ink
        Image.fromarray(page).save(tmp_path / "a.png")
        with pytest.raises(UsageError, match=r"too faint: its strongest mark differs from the paper by 9 of 255"):
            read_digit(tmp_path / "a.png")


def test_an_image_as_mnist_has_it_is_used_as_it_is(digits: Digits, tmp_path: Path) -> None:
    for image in digits[0][:50]:
        Image.fromarray(image).save(tmp_path / "a.png")
        assert (read_digit(tmp_path / "a.png") == image).all()


def test_the_box_and_the_centre_of_mass_are_those_of_mnist(tmp_path: Path) -> None:
    page = np.full((300, 500), 255, np.uint8)
    page[40:240, 300:340] = 0  # an upright bar, and a heavier foot
    page[200:240, 300:400] = 0
    Image.fromarray(page).save(tmp_path / "l.png")
    digit = read_digit(tmp_path / "l.png").astype(float)
    rows, columns = np.flatnonzero(digit.any(axis=1)), np.flatnonzero(digit.any(axis=0))
    assert (len(rows), len(columns)) == (20, 10)
    assert digit.max() == 255
    for axis in (0, 1):
        centre = digit.sum(axis=1 - axis) @ np.arange(28) / digit.sum()
        assert abs(centre - 14) <= 0.5


def test_a_thin_line_is_made_white(tmp_path: Path) -> None:
    page = np.full((600, 400), 255, np.uint8)
    page[100:500, 200] = 0
    Image.fromarray(page).save(tmp_path / "one.png")
    assert read_digit(tmp_path / "one.png").max() == 255


def test_a_photo_is_turned_as_its_exif_says(digits: Digits, tmp_path: Path) -> None:
    upright = inverted(enlarged(digits[0][0], 5))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the picture must be turned by 90 degrees clockwise
    upright.save(tmp_path / "upright.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert (read_digit(tmp_path / "turned.png") == read_digit(tmp_path / "upright.png")).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32), st.sampled_from(["L", "RGB", "RGBA", "LA", "1"]))
def test_any_picture_gives_an_image_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, rows: int, columns: int, seed: int, mode: str
) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (rows, columns, 4), np.uint8)
    path = tmp_path_factory.mktemp("noise") / "a.png"
    Image.fromarray(noise, "RGBA").convert(mode).save(path)
    if rows * columns == 1:
        with pytest.raises(UsageError, match="shows nothing"):
            read_digit(path)
        return
    with contextlib.suppress(UsageError):  # too pale to be ink
        digit = read_digit(path)
        assert digit.shape == (28, 28)
        assert digit.dtype == np.uint8
        assert digit.max() > 0


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def unusable() -> Iterator[tuple[str, bytes, str]]:
    stream = io.BytesIO()
    Image.fromarray(np.arange(10_000, dtype=np.uint8).reshape(100, 100)).save(stream, "PNG")
    yield "truncated.png", stream.getvalue()[:200], "is a damaged image"
    yield "text.png", b"hello", "is not a PNG or JPEG image"
    yield "empty.jpg", b"", "is not a PNG or JPEG image"
    yield "vast.png", png(30_000, 30_000), "has more than 64,000,000 pixels"
    yield "large.png", png(9000, 9000), "has more than 64,000,000 pixels"
    yield "hollow.png", png(800, 700), "is a damaged image"
    yield "blank.png", png(10, 10), "shows nothing"
    stream = io.BytesIO()
    Image.new("L", (9, 9)).save(stream, "GIF")
    yield "picture.gif", stream.getvalue(), "is not a PNG or JPEG image"


@pytest.mark.parametrize(("name", "content", "why"), list(unusable()), ids=lambda value: str(value)[:12])
def test_an_unusable_file_is_refused_by_name(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError, match=why) as caught:
        read_digit(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_missing_files_pipes_and_folders_are_not_found(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "absent.png", tmp_path, tmp_path / "pipe.png"):
        with pytest.raises(NotFoundError):
            read_digit(path)


def test_one_bad_image_stops_before_any_result(digits: Digits, trained: Network, tmp_path: Path) -> None:
    Image.fromarray(digits[0][0]).save(tmp_path / "good.png")
    with pytest.raises(TrainerError):
        predict(LoadedModel("model", trained), [tmp_path / "good.png", tmp_path / "absent.png"])
    assert predict(LoadedModel("model", trained), []) == []
