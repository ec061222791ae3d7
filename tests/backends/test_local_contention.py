"""Threads that keep one another from a core are noticed, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends import local_contention
from backends.local_contention import Watch, contending


@pytest.mark.parametrize(
    ("ran", "waited", "count"),
    [
        (1.0, 7.0, 2),  # seen on two cores at a load of 14
        (4.5, 3.5, 0),  # a busy machine, and they get more than half
        (8.0, 0.0, 0),  # idle
        (0.5, 1.0, 0),  # they sleep most of the time
        (0.0, 8.0, 0),  # stopped
    ],
)
def test_what_counts_as_contending(ran: float, waited: float, count: int) -> None:
    before = {"1": (10.0, 5.0), "2": (3.0, 9.0), "3": (2.0, 2.0)}
    after = {name: (a + ran, b + waited) for name, (a, b) in before.items() if name != "3"}
    assert contending(before, {**after, "3": (2.0, 2.0), "4": (9.0, 99.0)}, 8.0) == count


def test_it_is_said_once_and_only_where_nobody_has_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr(local_contention, "_PROC", tmp_path)
    monkeypatch.setattr(local_contention.time, "monotonic", lambda: clock)

    def pass_time(seconds: float) -> None:
        nonlocal clock
        clock += seconds
        for thread in ("7", "8"):
            folder = tmp_path / "7" / "task" / thread
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "schedstat").write_text(f"{round(clock * 0.2e9)} {round(clock * 0.8e9)} 5\n")

    watch, chosen = Watch({}), Watch({"OMP_NUM_THREADS": "2"})
    said = []
    for _ in range(4):
        pass_time(25.0)
        said.append(watch.advice(7))
        assert chosen.advice(7) == ""
    assert [bool(text) for text in said] == [False, True, False, False]
    assert said[1].startswith("2 threads of the script were never idle")
    assert Watch({}).advice(12345) == ""
