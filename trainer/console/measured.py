"""What ``trainer evaluate`` and ``predict`` print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.console.output import BOLD, DIM, facts, note, paint, say, table

if TYPE_CHECKING:
    from trainer.modeluse import Evaluation, Prediction


def print_evaluation(found: Evaluation) -> None:
    """Accuracy, loss, and the confusion matrix with true classes down and predicted ones across."""
    facts(
        [
            ("Model", found.model),
            ("Data set", f"{found.dataset}, {found.count:,} test images"),
            ("Accuracy", paint(f"{found.accuracy:.4f}", BOLD)),
            ("Loss", f"{found.loss:.4f}"),
        ]
    )
    say()
    labels = [str(score.label) for score in found.classes]
    width = max(len(f"{max(map(max, found.confusion)):,}"), *map(len, labels)) + 1
    say(paint("true \\ predicted" + "".join(label.rjust(width) for label in labels) + "   recall", BOLD))
    for score, row in zip(found.classes, found.confusion, strict=True):
        cells = "".join(_cell(count, width, hit=label == score.label) for label, count in enumerate(row))
        recall = "-" if score.recall is None else f"{score.recall:.3f}"
        say(f"{score.label:>16}{cells}{recall:>9}")
    if found.trained_on and found.trained_on != found.dataset:
        note(f"The model was trained on {found.trained_on}.")


def print_predictions(found: list[Prediction]) -> None:
    """One line an image: class, probability, and the runner-up."""
    rows = []
    for item in found:
        order = sorted(range(len(item.probabilities)), key=lambda label: -item.probabilities[label])
        second = f"{order[1]} ({item.probabilities[order[1]]:.4f})" if len(order) > 1 else ""
        rows.append((item.path, str(item.label), f"{item.probability:.4f}", second))
    table(("IMAGE", "CLASS", "PROBABILITY", "NEXT"), rows, right=("CLASS", "PROBABILITY"))


def _cell(count: int, width: int, *, hit: bool) -> str:
    text = (f"{count:,}" if count else ".").rjust(width)
    return paint(text, BOLD) if hit else paint(text, DIM) if not count else text
