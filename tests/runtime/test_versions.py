"""Versions of distributions, beside what importlib.metadata says of the same."""

from __future__ import annotations

import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from trainer.runtime.versions import installed_version


def test_every_installed_distribution() -> None:
    names = {found.metadata["Name"] for found in metadata.distributions()}
    assert len(names) > 20
    assert {name: installed_version(name) for name in names} == {name: metadata.version(name) for name in names}


@pytest.mark.parametrize("name", ["", "typing", "typing-extensions-", "trainer-without-a-name", "../numpy"])
def test_what_is_not_installed(name: str) -> None:
    assert installed_version(name) is None


def made(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_every_way_to_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, archive = tmp_path / "first", tmp_path / "second", tmp_path / "archive.zip"
    made(first, "A_b.C-1.0.dist-info/METADATA", "Metadata-Version: 2.1\r\nName: A_b.C\r\nversion:  1.0+x\r\n\r\nText")
    made(first, "eggs.egg-info/PKG-INFO", "Name: eggs\nVersion: 2\n\nVersion: 3\n")
    made(first, "late-1.dist-info/METADATA", "Name: late\nSummary: none\n\nVersion: 9\n")
    made(second, "late-4.dist-info/METADATA", "Name: late\nVersion: 4\n")
    made(second, "A_b.C-0.9.dist-info/METADATA", "Name: A_b.C\nVersion: 0.9\n")
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("zipped-5.dist-info/METADATA", "Name: zipped\nVersion: 5\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "gone"), str(first), str(second), *sys.path])
    assert [installed_version(name) for name in ("a-b_c", "A.B.C", "eggs")] == ["1.0+x", "1.0+x", "2"]
    assert installed_version("zipped") is None
    monkeypatch.setattr(sys, "path", [str(archive), str(first), *sys.path])
    assert installed_version("zipped") == "5"
    assert installed_version("a-b-c") == "1.0+x"
