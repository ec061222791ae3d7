"""Curves of a size that a screen can show, and nothing lost that a reader would look for."""

import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trainer.view.curves import RAW_POINTS, Curves, RunMetrics


def write(folder: Path, values: list[float | None], name: str = "Loss", first: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.jsonl").open("a") as stream:
        for step, value in enumerate(values, first):
            stream.write(json.dumps({"name": name, "value": value, "step": step, "time": 100.0 + step / 2}) + "\n")
    return folder


def together(runs: Path, ids: list[str], **options: object) -> dict[str, object]:
    given = {"by_time": False, "points": 400, "between": None, "budget": 1 << 40} | options
    return Curves(runs).together(ids, "Loss", **given)  # type: ignore[arg-type]


def test_few_steps_are_sent_as_they_are(tmp_path: Path) -> None:
    write(tmp_path / "a", [1.0, None, 3.0])
    write(tmp_path / "b", [5.0], first=7)
    assert together(tmp_path, ["a", "b", "none"]) == {
        "x": [1, 2, 3, 7],
        "series": {"a": [1, None, 3, None], "b": [None, None, None, 5]},
        "pending": [],
    }
    assert together(tmp_path, ["a"], by_time=True)["x"] == [0, 0.5, 1]


def test_a_step_logged_again_counts_with_its_later_value(tmp_path: Path) -> None:
    write(write(tmp_path / "a", [1.0, 2.0, 3.0]), [9.0, 8.0], first=2)
    assert together(tmp_path, ["a"])["series"] == {"a": [1, 9, 8]}


def test_no_peak_is_lost(tmp_path: Path) -> None:
    values = [math.sin(step / 5000) for step in range(100_000)]
    values[61_234], values[61_240] = 50.0, -50.0
    write(tmp_path / "a", list(values))
    found = together(tmp_path, ["a"])
    curve = found["series"]["a"]  # type: ignore[index]
    assert len(found["x"]) == len(curve) == 400  # type: ignore[arg-type]
    assert max(v for v in curve if v is not None) == 50
    assert min(v for v in curve if v is not None) == -50
    assert sorted(found["x"]) == found["x"]  # type: ignore[type-var,arg-type]
    near = together(tmp_path, ["a"], between=(61_200, 61_300))
    assert len(near["x"]) == 103  # type: ignore[arg-type]
    assert len(near["x"]) < RAW_POINTS  # type: ignore[arg-type]


def test_long_and_short_runs_share_an_axis(tmp_path: Path) -> None:
    write(tmp_path / "long", [0.5] * 5000)
    write(tmp_path / "short", [1.0, 2.0])
    found = together(tmp_path, ["long", "short"])
    series: dict[str, list[float | None]] = found["series"]  # type: ignore[assignment]
    assert {len(curve) for curve in series.values()} == {400}
    assert {value for value in series["short"] if value is not None} == {1, 2}


def test_reading_stops_at_the_budget_and_goes_on(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / name, [1.0] * 40_000)
    curves, pending = Curves(tmp_path), []
    for _ in range(20):
        found = curves.together(["a", "b"], "Loss", by_time=False, points=100, between=None, budget=1 << 20)
        pending.append(found["pending"])
        if not found["pending"]:
            break
    assert pending[0] == ["a", "b"]
    assert pending[-1] == []
    assert len(curves.values("b", "Loss")) == 40_000


def test_a_file_is_read_as_it_grows_or_is_replaced(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", [3.0, 1.0])
    metrics = RunMetrics(folder)
    with (folder / "metrics.jsonl").open("ab") as stream:
        stream.write(b'{"name": "Loss", "val')
    assert metrics.read()
    assert (metrics.points, metrics.summary["Loss"].best, metrics.summary["Loss"].best_step) == (2, 1, 2)
    with (folder / "metrics.jsonl").open("ab") as stream:
        stream.write(b'ue": 0.5, "step": 3, "time": 1}\nspoiled\n{"name": "Accuracy", "value": null}\n')
    metrics.read()
    assert metrics.summary["Loss"].best == 0.5
    assert metrics.summary["Accuracy"].best is None
    (folder / "new").write_text('{"name": "Loss", "value": 7, "step": 1, "time": 1}\n' * 30)
    (folder / "new").replace(folder / "metrics.jsonl")
    metrics.read()
    assert (metrics.points, metrics.summary["Loss"].last) == (30, 7)


def test_the_summary_is_that_of_lists(tmp_path: Path) -> None:
    from trainer.history import summaries
    from trainer.runfolder import RunFolder

    folder = write(write(tmp_path / "a", [3.0, None, 1.0, 2.0]), [0.1, 0.9, None], name="Accuracy")
    metrics = RunMetrics(folder)
    metrics.read()
    assert metrics.summary == summaries(RunFolder(folder).metrics())


@pytest.mark.parametrize("points", [10, 5000])
def test_one_value(tmp_path: Path, points: int) -> None:
    write(tmp_path / "a", [1.0])
    assert together(tmp_path, ["a"], points=points)["series"] == {"a": [1]}


def test_threads_may_look_at_once_at_a_run_that_grows(tmp_path: Path) -> None:
    curves, over = Curves(tmp_path), threading.Event()

    def look() -> None:
        while not over.is_set():
            found = curves.together(["a"], "Loss", by_time=False, points=400, between=None, budget=1 << 40)
            assert all(len(curve) == len(found["x"]) for curve in found["series"].values())
            assert curves.summary("a")["Loss"].count <= len(curves.values("a", "Loss"))

    write(tmp_path / "a", [0.0])
    with ThreadPoolExecutor(4) as pool:
        looking = [pool.submit(look) for _ in range(4)]
        try:
            for first in range(2, 20_000, 1000):
                write(tmp_path / "a", [1.0] * 1000, first=first)
        finally:
            over.set()
        for each in looking:
            each.result()
    assert curves.summary("a")["Loss"].count == 1 + 20 * 1000
