"""On Azure ML: what a script logs with the SDK's ``Run``, also as lines that are streamed.

The service gives a run's metrics back without their steps and times, and rows and tables in another shape. The lines
have them as :class:`trainer.runtime.azureml_run.Run` writes them on this machine, so a run's record is the same
wherever it ran.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

from trainer.runtime import tracking
from trainer.runtime.compat import hook
from trainer.runtime.compat.hook import Patch
from trainer.runtime.faults import RuntimeFault
from trainer.runtime.sinks import Sink, clean_name, mark_script_reports, number

_state = threading.local()
_FLUSH_SECONDS = 30
# The run of the script, once it has logged something.
_logged: list[Any] = []


@contextlib.contextmanager
def suspended() -> Iterator[None]:
    """Mirror nothing that this thread logs while it lasts."""
    before = getattr(_state, "off", False)
    _state.off = True
    try:
        yield
    finally:
        _state.off = before


def install(lines: Callable[[], Sink | None]) -> None:
    """Mirror what ``azureml.core.Run`` logs once the script has imported it.

    Args:
        lines: Makes the sink of the lines.
    """
    hook.install((Patch("mirrored-run", "azureml.core.run", "", "any", after=lambda module: _patch(module, lines)),))


def flush() -> None:
    """Wait for what the script's run has on its way, at the script's end.

    A job of SDK v2 has no launcher of SDK v1's that does it, and at the interpreter's own end the SDK can't send any
    more.
    """
    if tracking.is_wanted():
        for run in _logged:
            with contextlib.suppress(Exception):  # the lines have what it can't send
                run.flush(timeout_seconds=_FLUSH_SECONDS)


def values_of(
    method: str, name: str, arguments: Sequence[Any], named: dict[str, Any], steps: dict[str, int]
) -> list[tuple[str, object, float | None]]:
    """Return name, value and step of what one call of a method of ``Run`` logs.

    Args:
        method: ``log``, ``log_list``, ``log_row`` or ``log_table``.
        name: The metric.
        arguments: The others, as they were given by position.
        named: And by name.
        steps: The next row of each list and table; advanced.
    """

    def following() -> int:
        steps[name] = steps.get(name, -1) + 1
        return steps[name]

    if method == "log_row":
        step = following()
        return [(f"{name}/{column}", value, step) for column, value in named.items() if column != "description"]
    value = arguments[0] if arguments else named.get("value")
    if method == "log_list":
        return [(name, element, following()) for element in value or ()]
    if method == "log_table":
        found: list[tuple[str, object, float | None]] = []
        for column, values in (value or {}).items():
            listed = values if isinstance(values, Sequence) and not isinstance(values, str) else [values]
            found += [(f"{name}/{column}", element, step) for step, element in enumerate(listed)]
        return found
    step_given = arguments[2] if len(arguments) > 2 else named.get("step")
    return [(name, value, step_given)]


def _patch(module: ModuleType, lines: Callable[[], Sink | None]) -> None:
    steps: dict[str, int] = {}
    made: list[Sink | None] = []
    for method in ("log", "log_list", "log_row", "log_table"):
        original = getattr(module.Run, method, None)  # not every version of the SDK has all of them
        if original is not None:
            setattr(module.Run, method, _mirrored(original, method, steps, made, lines))


def _mirrored(
    original: Callable[..., Any],
    method: str,
    steps: dict[str, int],
    made: list[Sink | None],
    lines: Callable[[], Sink | None],
) -> Callable[..., Any]:
    @functools.wraps(original)
    def logged(run: Any, name: str, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        if getattr(_state, "off", False):
            return original(run, name, *arguments, **named)
        mark_script_reports()
        _logged[:] = [run]
        with suspended():
            result = original(run, name, *arguments, **named)
        # The service has the values; what goes wrong here costs no more than their steps.
        with contextlib.suppress(RuntimeFault, TypeError, ValueError):
            if not made:
                made.append(lines())
            if made[0] is not None:
                for title, value, step in values_of(method, name, arguments, named, steps):
                    made[0].log(clean_name(title), number(value), step)
        return result

    return logged
