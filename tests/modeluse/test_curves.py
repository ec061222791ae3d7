"""Learning curves and pictures."""

import math
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trainer.errors import MissingExtraError, UsageError
from trainer.modeluse import ClassScore, Evaluation, check_picture, curves_text, plot_confusion, plot_curves
from trainer.modeluse.curves import number, panels, ticks
from trainer.records import Metric

LOSSES = [0.78, 0.29, 0.22, 0.18, 0.15]


def logged(name: str, values: list[float | None], first: float | None = 1) -> list[Metric]:
    return [
        Metric(name=name, value=value, step=None if first is None else first + index)
        for index, value in enumerate(values)
    ]


RUN = [
    *logged("Batch size", [128.0], None),
    *logged("Accuracy", [0.92, 0.94, 0.95, 0.96, 0.97]),
    *logged("Loss", list(LOSSES)),
    *logged("Validation loss", [0.29, 0.22, 0.17, 0.15, 0.13]),
]


def test_what_a_terminal_shows() -> None:
    text = curves_text(RUN, width=60, height=5)
    assert text.splitlines()[:8] == [
        "        Accuracy",
        "0.9700 ┤                                   ⢀⣀⣀⡠⠤⠤⠔⠒⠒⠊⠉ 0.97",
        "       │                        ⢀⣀⣀⡠⠤⠤⠒⠒⠒⠉⠉⠁",
        "0.9450 ┤           ⣀⣀⡠⠤⠤⠤⠔⠒⠒⠒⠊⠉⠉⠁",
        "       │     ⢀⡠⠤⠒⠊⠉",
        "0.9200 ┤⣀⠤⠔⠒⠉⠁",
        "       └┬──────────┬──────────┬───────────┬──────────┬",
        "        1          2          3           4          5 epoch",
    ]
    assert [line.split()[-1] for line in text.splitlines()[13:15]] == ["0.15", "0.13"]
    assert "⠤⠤⠤⠤ Loss   ⠤ ⠤  Validation loss" in text
    assert "Batch size" not in text


def test_curves_of_one_kind_share_axes() -> None:
    assert [panel.title for panel in panels(RUN)] == ["Accuracy", "Loss, Validation loss"]
    other = logged("lr", [0.1, 0.01], None)
    assert [panel.step_label for panel in panels([*RUN, *other])] == ["epoch", "epoch", "value"]


def test_a_resumed_run_counts_the_later_value() -> None:
    (panel,) = panels([*logged("Loss", [3.0, 2.0, 9.0]), *logged("Loss", [1.0, 0.5], first=3)])
    assert panel.series[0].steps == (1, 2, 3, 4)
    assert panel.series[0].values == (3.0, 2.0, 1.0, 0.5)


def test_nothing_to_draw_is_no_text() -> None:
    assert curves_text([]) == ""
    assert curves_text(logged("Loss", [1.0])) == ""
    assert curves_text(logged("Loss", [None, None, 1.0])) == ""


def test_a_gap_stays_a_gap() -> None:
    text = curves_text(logged("Loss", [1.0, 1.0, None, None, None, None, 1.0, 1.0]), width=60)
    (line,) = [line for line in text.splitlines() if "⣀" in line or "⠤" in line or "⠒" in line or "⠉" in line]
    curve = line.split("│" if "│" in line else "┤")[1].rsplit(" ", 1)[0]
    assert "   " in curve.strip()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.builds(
            Metric,
            name=st.sampled_from(
                ["Loss", "Validation loss", "third loss", "4th loss", "x" * 99, "\x1b[31m\nred", "漢字"]
            ),
            value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
            step=st.none() | st.floats(-1e9, 1e9) | st.integers(0, 50).map(float),
        ),
        max_size=40,
    ),
    st.integers(40, 200),
    st.integers(3, 20),
)
def test_any_metrics_are_drawn_within_their_width(metrics: list[Metric], width: int, height: int) -> None:
    text = curves_text(metrics, width, height)
    for line in text.splitlines():
        wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in line)
        assert len(line) - wide <= width
        assert line.isprintable()


@given(st.integers(-1000, 10**6), st.integers(0, 10**6), st.integers(2, 30))
def test_ticks_are_whole_rising_and_few(low: int, span: int, most: int) -> None:
    found = ticks(low, low + span, most)
    assert found[0] == low
    assert found[-1] == low + span
    assert found == sorted(found)
    assert len(found) <= most + 2
    assert all(tick == int(tick) for tick in found)


@given(st.floats(-1e5, 1e5), st.floats(1e-3, 1e5))
def test_labels_tell_apart_what_the_axis_shows(low: float, span: float) -> None:
    texts = [number(low + span * part, span) for part in (0, 0.5, 1)]
    values = [float(text) for text in texts]
    assert values == sorted(values)
    assert all(
        math.isclose(value, low + span * part, abs_tol=span / 20, rel_tol=0.01)
        for value, part in zip(values, (0, 0.5, 1), strict=True)
    )


def evaluation(classes: int) -> Evaluation:
    rows = tuple(tuple(90 if row == column else row % 3 for column in range(classes)) for row in range(classes))
    scores = tuple(
        ClassScore(label=label, name=str(label), count=100, recall=0.9, precision=0.9) for label in range(classes)
    )
    return Evaluation(
        model="chainer-dnn-mnist:3",
        dataset="cost $5 and $6",
        trained_on="mnist",
        count=sum(map(sum, rows)),
        accuracy=0.9,
        loss=0.3,
        confusion=rows,
        classes=scores,
    )


def test_pictures_are_written(tmp_path: Path) -> None:
    plot_confusion(evaluation(10), tmp_path / "matrix.png")
    plot_confusion(evaluation(40), tmp_path / "many.png")
    plot_curves(RUN, tmp_path / "curves.png", title="20261123-180501-k3xq2m")
    for path in tmp_path.iterdir():
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 400
            dark = sum(picture.convert("L").histogram()[:128])
            assert dark > 1000, "there is ink on it"
    plot_curves(RUN, tmp_path / "curves.svg")
    assert b"<svg" in (tmp_path / "curves.svg").read_bytes()


def test_a_picture_that_cannot_be_is_refused_first(tmp_path: Path) -> None:
    for path in (tmp_path / "picture.txt", tmp_path / "absent" / "a.png", tmp_path / "file"):
        with pytest.raises(UsageError):
            check_picture(path)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UsageError):
        plot_curves(RUN, tmp_path / "folder.png")
    with pytest.raises(UsageError, match="no learning curves"):
        plot_curves([], tmp_path / "a.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.png"]


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError) as caught:
        plot_curves(RUN, tmp_path / "a.png")
    assert "--extra plot" in caught.value.hint


def test_text_curves_need_neither_numpy_nor_matplotlib() -> None:
    script = (
        "import sys; from trainer.modeluse import curves_text; from trainer.records import Metric\n"
        "assert curves_text([Metric(name='a', value=v, step=v) for v in (1.0, 2.0)])\n"
        "assert not {'numpy', 'matplotlib', 'PIL', 'chainer'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
