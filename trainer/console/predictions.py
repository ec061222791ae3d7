"""What a model takes inputs for, as ``predict`` and ``score`` print it."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.console.output import table


def judged(label: int, probability: float, probabilities: Sequence[float], classes: Sequence[str]) -> tuple[str, ...]:
    """Return an input's class, its probability, and the runner-up, as text.

    Args:
        label: The class that was predicted.
        probability: Its probability.
        probabilities: Of every class.
        classes: The names of the classes; one that has none is called by its number.
    """
    order = sorted(range(len(probabilities)), key=lambda number: -probabilities[number])
    second = f"{_named(order[1], classes)} ({probabilities[order[1]]:.4f})" if len(order) > 1 else ""
    return _named(label, classes), f"{probability:.4f}", second


def _named(label: int, classes: Sequence[str]) -> str:
    return classes[label] if 0 <= label < len(classes) else str(label)


def print_judged(what: str, rows: Sequence[tuple[str, ...]]) -> None:
    """Print one line per input.

    Args:
        what: What the inputs are, the first column's heading.
        rows: The name of each, and what :func:`judged` says of it.
    """
    table((what, "CLASS", "PROBABILITY", "NEXT"), rows, right=("CLASS", "PROBABILITY"))
