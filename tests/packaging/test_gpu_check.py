"""``scripts/gpu_check.sh`` as far as it goes without a card, and the page that it makes of what it has seen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trainer.runtime import datasets, devices

ROOT = Path(__file__).resolve().parents[2]
SUITE = '<testsuites><testsuite tests="{0}" failures="{1}" errors="0" skipped="{2}"/></testsuites>'


def check(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable}
    environment.pop("OUT", None)
    command = ["bash", str(ROOT / "scripts" / "gpu_check.sh"), *words]
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)


def table(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "gpu_table.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_is_the_scripts_own_head() -> None:
    ran = check("--help")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "gpu_check.sh prepare [OPTIONS]" in ran.stdout
    assert "set -euo" not in ran.stdout


@pytest.mark.parametrize("words", [("--nonsense",), ("plan", "--folder"), ("prepare", "--data", "/nowhere")])
def test_wrong_words_are_refused(words: tuple[str, ...]) -> None:
    ran = check(*words)
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: ")


def test_the_plan_names_what_is_there_and_takes_less_than_eight_minutes(tmp_path: Path) -> None:
    ran = check("plan", "--folder", str(tmp_path / "none"))
    assert (ran.returncode, ran.stderr) == (0, "")
    seconds = [int(line.partition("(")[2].split()[0]) for line in ran.stdout.splitlines()]
    assert len(seconds) == 3
    assert sum(seconds) < 8 * 60
    for word in ran.stdout.split():
        if word.startswith(("tests/", "scripts/")):
            assert (ROOT / word).exists(), word
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(devices.probe().usable, reason="there is a card here")
def test_without_a_card_it_says_why_and_does_nothing(tmp_path: Path) -> None:
    ran = check("run", "--folder", str(tmp_path / "none"))
    assert ran.returncode == 3
    assert ran.stderr.startswith(f"error: no usable GPU: {devices.probe().reason}\nhint: ")
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing() -> None:
    subprocess.run(["shellcheck", str(ROOT / "scripts" / "gpu_check.sh")], check=True)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "steps.tsv").write_text("ours\t0\t61\nbench\t0\t40\nupstream\t0\t90\n")
    (folder / "ours.xml").write_text(SUITE.format(109, 0, 2))
    (folder / "measurements.md").write_text("# Measurements\n\n### An epoch\n\n| a | b |\n")
    (folder / "upstream.md").write_text("## Python\n\n| group | passed |\n")
    for name in ("ours", "bench", "upstream"):
        (folder / f"{name}.log").write_text("".join(f"line {number} of {name}\n" for number in range(40)))
    return folder


def test_the_page_of_a_check_that_passed(results: Path, tmp_path: Path) -> None:
    ran = table("table", results, tmp_path / "made" / "page.md")
    assert (ran.returncode, ran.stderr) == (0, "")
    page = (tmp_path / "made" / "page.md").read_text()
    assert "| tests/runtime/test_compat_gpu.py | passed: 107 passed, 0 failed, 2 skipped | 61 |\n" in page
    assert "\n### Measurements\n\n##### An epoch\n\n| a | b |\n" in page
    assert "line 39" not in page


@pytest.mark.parametrize(
    ("part", "status", "counts", "said"),
    [
        ("ours", 1, (109, 3, 0), "| exit status 1: 106 passed, 3 failed, 0 skipped |"),
        ("ours", 0, (109, 0, 109), "| nothing was tested: 0 passed, 0 failed, 109 skipped |"),
        ("bench", 124, (109, 0, 0), "| stopped: it took too long |"),
        ("upstream", 2, (109, 0, 0), "| exit status 2 |"),
    ],
)
def test_the_page_of_one_that_failed(
    results: Path, tmp_path: Path, part: str, status: int, counts: tuple[int, int, int], said: str
) -> None:
    (results / "ours.xml").write_text(SUITE.format(*counts))
    steps = (results / "steps.tsv").read_text()
    (results / "steps.tsv").write_text(steps.replace(f"{part}\t0", f"{part}\t{status}"))
    ran = table("table", results, tmp_path / "page.md")
    assert (ran.returncode, ran.stderr) == (1, "")
    page = (tmp_path / "page.md").read_text()
    assert said in page
    assert (f"line 39 of {part}" in page, f"line 24 of {part}" in page) == (bool(status), False)


def test_a_part_that_is_missing_is_no_success(results: Path, tmp_path: Path) -> None:
    (results / "steps.tsv").write_text("ours\t0\t61\nbench\t0\t40\n")
    ran = table("table", results, tmp_path / "page.md")
    assert ran.returncode == 1
    assert "| Chainer's own tests marked gpu | left out |  |" in (tmp_path / "page.md").read_text()


def test_noise_is_a_data_set(tmp_path: Path) -> None:
    program = "import gpu_table, pathlib, sys; gpu_table.write_noise(pathlib.Path(sys.argv[1]), 300, 20)"
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT / "scripts", check=True)
    found = datasets.read_directory(tmp_path)
    assert (found.train_images.shape, found.test_images.shape) == ((300, 28, 28), (20, 28, 28))
    assert set(np.unique(found.train_labels)) == set(range(10))
