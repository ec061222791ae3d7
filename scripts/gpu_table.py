"""What scripts/gpu_check.sh has seen, as one page; and a data set of noise for a machine that has no MNIST.

::

    python scripts/gpu_table.py table RESULTS FILE   # exit status 1 if a part of the check failed
    python scripts/gpu_table.py noise FOLDER
"""

from __future__ import annotations

import gzip
import os
import random
import struct
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

# Part: what it is, and what of its results is put below the table.
PARTS = {
    "ours": ("tests/runtime/test_compat_gpu.py", "ours.xml"),
    "bench": ("python -m bench --part gpu", "measurements.md"),
    "upstream": ("Chainer's own tests marked gpu", "upstream.md"),
}
_KILLED = (124, 137)  # timeout(1)
_LINES = 15
_IDX_BYTES = 0x08


@dataclass(frozen=True)
class Step:
    """A part of the check: its exit status, and how long it took in seconds."""

    name: str
    status: int
    seconds: int


def main(words: list[str]) -> int:
    """Do what the command line says; return the exit status."""
    if words[:1] == ["noise"] and len(words) == 2:
        write_noise(Path(words[1]))
        return 0
    if words[:1] != ["table"] or len(words) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    results, target = Path(words[1]), Path(words[2])
    steps = read_steps(results / "steps.tsv")
    page = write_page(results, steps)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page)
    print(page)
    print(target)
    return int(any(_outcome(results, step)[0] for step in steps) or len(steps) < len(PARTS))


def read_steps(path: Path) -> list[Step]:
    """Read what the script has kept: name, exit status and seconds, separated by tabs."""
    rows = [line.split("\t") for line in path.read_text().splitlines()] if path.exists() else []
    return [Step(name, int(status), int(seconds)) for name, status, seconds in rows]


def write_page(results: Path, steps: list[Step]) -> str:
    """Return the page: a table of the parts, then what each has left."""
    by_name = {step.name: step for step in steps}
    lines = ["# GPU check", "", "| part | outcome | seconds |", "| --- | --- | --- |"]
    for name, (what, _) in PARTS.items():
        step = by_name.get(name)
        outcome = "left out" if step is None else _outcome(results, step)[1]
        lines.append(f"| {what} | {outcome} | {step.seconds if step else ''} |")
    for name, (what, left) in PARTS.items():
        step = by_name.get(name)
        if step is None:
            continue
        found = results / left
        if found.suffix == ".md" and found.exists():
            lines += ["", f"## {what}", "", _deeper(found.read_text()).strip()]
        if step.status:
            lines += ["", f"## The end of {name}.log", "", "```", *_tail(results / f"{name}.log"), "```"]
    return "\n".join(lines) + "\n"


def _outcome(results: Path, step: Step) -> tuple[bool, str]:
    """Return whether a part failed, and what to say of it."""
    if step.status in _KILLED:
        return True, "stopped: it took too long"
    word = f"exit status {step.status}" if step.status else "passed"
    if step.name != "ours" or not (results / "ours.xml").exists():
        return bool(step.status), word
    passed, failed, skipped = _counts(results / "ours.xml")
    # They skip by themselves where no card is usable.
    word = word if passed or step.status else "nothing was tested"
    return bool(step.status) or not passed, f"{word}: {passed} passed, {failed} failed, {skipped} skipped"


def _counts(path: Path) -> tuple[int, int, int]:
    """Count the tests that passed, failed and were skipped, by pytest's own report of this run."""
    suites = list(ElementTree.parse(path).getroot().iter("testsuite"))
    total, failed, skipped = (
        sum(int(suite.get(key, "0")) for suite in suites for key in keys)
        for keys in (("tests",), ("failures", "errors"), ("skipped",))
    )
    return total - failed - skipped, failed, skipped


def _deeper(text: str) -> str:
    """Put headings two levels lower."""
    return "\n".join(f"##{line}" if line.startswith("#") else line for line in text.splitlines())


def _tail(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines()[-_LINES:] if path.exists() else []


def write_noise(folder: Path, train: int = 60_000, test: int = 10_000) -> None:
    """Write four gzipped IDX files of MNIST's numbers and shapes: images of random bytes, labels from 0 to 9.

    Speed doesn't depend on what the images show.

    Args:
        folder: Where they are written.
        train: Number of training images.
        test: Number of test images.
    """
    labels = random.Random(0)
    for part, count in (("train", train), ("t10k", test)):
        # https://web.archive.org/web/2024/http://yann.lecun.com/exdb/mnist/: magic number, then the sizes.
        images = struct.pack(">4I", _IDX_BYTES << 8 | 3, count, 28, 28) + os.urandom(count * 784)
        numbers = struct.pack(">2I", _IDX_BYTES << 8 | 1, count) + bytes(labels.choices(range(10), k=count))
        for name, data in (("images-idx3", images), ("labels-idx1", numbers)):
            with gzip.open(folder / f"{part}-{name}-ubyte.gz", "wb", compresslevel=1) as stream:
                stream.write(data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
