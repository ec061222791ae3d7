"""What a script logs with MLflow or TensorBoard, also recorded as metrics of its run.

Nothing of this happens unless the script imports ``mlflow``, ``tensorboardX`` or ``torch.utils.tensorboard`` itself:

* ``mlflow.log_metric`` and ``log_metrics`` record under the same names and steps, ``log_param`` and ``log_params`` what
  is a number. MLflow itself keeps its files in ``outputs/mlruns``, unless the job says where it is to track.
* ``SummaryWriter.add_scalar`` and ``add_scalars`` record under their tags, with their step.

They go beside what Chainer measures (:mod:`trainer.runtime.recording`), at the same bounded rate.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from trainer.runtime import reporting, sinks
from trainer.runtime.compat import hook
from trainer.runtime.compat.hook import Patch
from trainer.runtime.layout import OUTPUTS_DIR
from trainer.runtime.series import Thinned, guarded

# Name, value, step of each value that one call logs.
_Values = Iterable[tuple[str, object, object]]


def install() -> None:
    """Arrange for it, in the main process of a job."""
    here = Path.cwd()
    record = _Record()

    @contextlib.contextmanager
    def tracked() -> Iterator[None]:
        # As variables, so that the processes which the script starts track there too. Version 3.7 and later refuse a
        # store of plain files unless they are told that it is meant.
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            os.environ["MLFLOW_TRACKING_URI"] = (here / OUTPUTS_DIR / "mlruns").as_uri()
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        yield

    reason = "what a script logs there is a metric of its run"
    hook.install(
        (
            Patch("mlflow-store", "mlflow", reason, "any", around=tracked),
            Patch("mlflow-metrics", "mlflow.tracking.fluent", reason, "any", after=record.patch_mlflow),
            Patch("tensorboardx-scalars", "tensorboardX.writer", reason, "any", after=record.patch_writer),
            Patch("tensorboard-scalars", "torch.utils.tensorboard.writer", reason, "any", after=record.patch_writer),
        )
    )


class _Record:
    def __init__(self) -> None:
        self._thinned: dict[bool, Thinned] = {}
        self._owner = os.getpid()

    def patch_mlflow(self, module: ModuleType) -> None:
        for name in ("log_metric", "log_metrics", "log_param", "log_params"):
            self._also(module, name, _of_mlflow)

    def patch_writer(self, module: ModuleType) -> None:
        for name in ("add_scalar", "add_scalars"):
            self._also(module.SummaryWriter, name, _of_writer)

    def _also(self, owner: Any, name: str, values: Callable[..., _Values]) -> None:  # noqa: ANN401  # module or class
        """Make a function record what it was given, once it has done what it does."""
        original = getattr(owner, name, None)  # not every version has all of them
        if original is None:
            return
        method = isinstance(owner, type)

        @functools.wraps(original)
        def logged(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
            result = original(*arguments, **named)
            self._take(name, values, arguments[method:], named)
            return result

        setattr(owner, name, logged)

    @guarded
    def _take(
        self, function: str, values: Callable[..., _Values], arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        if self._owner != os.getpid() or sinks.is_worker():
            return
        # On Azure ML, what MLflow logs is the service's already. (MLFLOW_RUN_ID is not asked for: MLflow removes it.)
        sent = function.startswith("log_") and reporting.on_azure() and bool(os.environ.get("MLFLOW_TRACKING_TOKEN"))
        for name, value, step in values(function, *arguments, **named):
            with contextlib.suppress(TypeError, ValueError):
                found = sinks.number(value)
                if isinstance(found, str):
                    continue
                if sent not in self._thinned:
                    self._thinned[sent] = Thinned(reporting.start(automatic=True, sent_already=sent))
                    atexit.register(self._thinned[sent].close)
                self._thinned[sent].log(name, found, None if step is None else float(sinks.number(step)))


def _of_mlflow(
    function: str, key: object = None, value: object = None, step: object = None, **named: object
) -> _Values:
    """Return what a call logs. In the plural the mapping comes first, and then, of metrics, the step."""
    if not function.endswith("s"):
        return [(str(key), value, step if function == "log_metric" else None)]
    given = named.get(function.removeprefix("log_"), key)
    at = (value if step is None else step) if function == "log_metrics" else None
    return [(str(name), each, at) for name, each in given.items()] if isinstance(given, Mapping) else []


def _of_writer(
    function: str, tag: object = None, value: object = None, global_step: object = None, *_: object, **named: object
) -> _Values:
    if function == "add_scalar":
        given = named.get("scalar_value", value)
        return [(str(tag), given, global_step)]
    main, scalars = named.get("main_tag", tag), named.get("tag_scalar_dict", value)
    return (
        [(f"{main}/{name}", each, global_step) for name, each in scalars.items()]
        if isinstance(scalars, Mapping)
        else []
    )
