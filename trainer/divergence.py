"""Whether a training ended in values that are not numbers: such a model is of no use, and is not registered."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import TrainerError
from trainer.modelfile import read_npz, sums_are_finite

if TYPE_CHECKING:
    from trainer.records import Metric


def in_metrics(metrics: Iterable[Metric]) -> tuple[str, ...]:
    """Warn of metrics whose last value is not a number, one sentence for all of them.

    Only names with "loss" count: a metric may well be undefined, as the recall of a class without examples.
    """
    latest = {metric.name: metric for metric in metrics}
    spoiled = [name for name, metric in latest.items() if _is_spoiled(metric) and "loss" in name.lower()]
    if not spoiled:
        return ()
    return (f"The training diverged: not a finite number at the end: {', '.join(spoiled[:3])}.",)


def _is_spoiled(metric: Metric) -> bool:
    # A text that was logged has no number, either.
    return metric.value is None and metric.text in (None, "nan", "inf", "-inf")


def in_model(path: Path) -> str | None:
    """Say that a model holds NaN; None if it doesn't, or can't be read, which its registration says better.

    Args:
        path: An npz file that exists.
    """
    with suppress(TrainerError):
        if sums_are_finite(path):
            return None
        import numpy as np  # a twentieth of a second, which few models need

        for name, array in read_npz(path).items():
            if array.dtype.kind in "fc" and np.isnan(array).any():
                return (
                    f"outputs/{path.name} was not registered: the training diverged, and {name[:60]} holds values that "
                    "are not numbers (NaN). Use a lower learning rate."
                )
    return None
