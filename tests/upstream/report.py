"""Turns outcomes into a table: by group, and each failure against the list of known ones."""

from __future__ import annotations

import json
import platform
import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """One test's outcome; ``error`` is a file that pytest could not import."""

    test: str
    outcome: str
    text: str = ""


@dataclass(frozen=True)
class Known:
    """A failure whose cause is known.

    Attributes:
        test: a regular expression that the whole start of the test's id must match.
        fault: where it lies: "tests", "chainer" or "library".
        cause: one sentence.
    """

    test: str
    fault: str
    cause: str


@dataclass
class Summary:
    """Counts by group and by known failure, and the failures that are not known."""

    groups: dict[str, Counter[str]] = field(default_factory=dict)
    known: dict[Known, int] = field(default_factory=dict)
    unknown: list[Outcome] = field(default_factory=list)


def load_outcomes(path: Path) -> list[Outcome]:
    """Reads the plugin's JSON lines."""
    return [Outcome(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def load_known(path: Path) -> list[Known]:
    """Reads ``known_failures.toml``."""
    return [Known(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8"))["failure"]]


def group_of(test: str) -> str:
    """``chainer_tests/functions_tests/math_tests/test_x.py::..`` is in ``functions/math``."""
    parts = test.split("::")[0].split("/")
    folders = [part.removesuffix("_tests") for part in parts if part.endswith("_tests")]
    return "/".join(folders[1:3]) or "top level"


def summarise(outcomes: Iterable[Outcome], known: Iterable[Known]) -> Summary:
    """Counts outcomes and matches failures with ``known``."""
    summary = Summary(known=dict.fromkeys(known, 0))
    for outcome in outcomes:
        summary.groups.setdefault(group_of(outcome.test), Counter())[outcome.outcome] += 1
        if outcome.outcome not in ("failed", "error", "hung"):
            continue
        for entry in summary.known:
            if re.match(entry.test, outcome.test):
                summary.known[entry] += 1
                break
        else:
            summary.unknown.append(outcome)
    return summary


def write_table(summary: Summary, *, layer: bool, minutes: float, ranks: int = 0) -> str:
    """The summary in Markdown, headed by the versions that it was measured on."""
    by = f", {ranks} ranks" if ranks else ""
    lines = [f"## {_versions()}, {'with' if layer else 'without'} the layer{by} ({minutes:.0f} min)", ""]
    kinds = ["passed", "failed", "error", "skipped", *(["hung"] if ranks else [])]
    lines += [f"| group | {' | '.join(kinds).replace('error', 'not importable')} |", "| --- " * (1 + len(kinds)) + "|"]
    total: Counter[str] = Counter()
    for group, counts in sorted(summary.groups.items()):
        lines.append(_row(group, counts, kinds))
        total += counts
    lines += [_row("**total**", total, kinds), ""]
    hit = {entry: count for entry, count in summary.known.items() if count}
    if hit:
        lines += ["| known failures | number | fault of | cause |", "| --- | --- | --- | --- |"]
        for entry, count in hit.items():
            pattern = entry.test.replace("\\", "").replace("|", "\\|")  # a bar would end the cell
            lines.append(f"| `{pattern}` | {count} | {entry.fault} | {entry.cause} |")
        lines.append("")
    if summary.unknown:
        lines += ["Failures that are not in `known_failures.toml`:", ""]
        lines += [f"- `{outcome.test}`: {outcome.text}" for outcome in summary.unknown]
    else:
        lines.append("Every failure is in `known_failures.toml`.")
    return "\n".join(lines) + "\n"


def _row(name: str, counts: Counter[str], kinds: list[str]) -> str:
    cells = (counts[kind] for kind in kinds)
    return f"| {name} | " + " | ".join(str(cell) for cell in cells) + " |"


def _versions() -> str:
    names = ("chainer", "numpy", "scipy")
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {metadata.version(name)}" for name in names)])
