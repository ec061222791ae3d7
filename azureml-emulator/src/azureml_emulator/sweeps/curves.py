"""What the children of sweeps have logged of the primary metric, read again only where something was added."""

from __future__ import annotations

from azureml_emulator.service import Service
from azureml_emulator.store.sweeps import Best, Sweep
from azureml_emulator.sweeps.policy import Curve


class Curves:
    """The curves of sweeps' children. What it remembers can be read again, so a restart loses nothing."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._known: dict[str, dict[str, tuple[int, Curve]]] = {}

    def of_children(self, run_id: str, metric: str, goal: str) -> dict[str, Curve]:
        """Return the curves of a sweep's children by run; without those that have logged nothing."""
        known = self._known.setdefault(run_id, {})
        for child, count in self._service.metrics.counts_of_children(run_id, metric).items():
            if child not in known or known[child][0] != count:
                known[child] = count, Curve(self._service.metrics.scalars(child, metric), goal)
        return {child: curve for child, (_, curve) in known.items() if len(curve)}

    def forget(self, sweep: Sweep) -> None:
        """Forget a sweep that has ended."""
        for run_id in (sweep.run_id, *(key.run_id for key in sweep.request.resume_from)):
            self._known.pop(run_id, None)


def best_of(curves: dict[str, Curve], goal: str) -> Best | None:
    """Return the best child; the one that comes first, if several are equal. None if all have logged NaN only."""
    sign = 1.0 if goal == "maximize" else -1.0
    found = max(((curve.best(len(curve)), child) for child, curve in curves.items()), key=_value, default=None)
    if found is None or found[0] == -float("inf"):
        return None
    return Best(run_id=found[1], value=sign * found[0])


def _value(pair: tuple[float, str]) -> float:
    return pair[0]
