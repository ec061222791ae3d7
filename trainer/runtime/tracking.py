"""Report to a job's run on Azure ML by MLflow's REST interface, for which nothing has to be installed on the node.

Azure ML sets where it is, and a token, in every job: ``MLFLOW_TRACKING_URI`` and ``MLFLOW_TRACKING_TOKEN``. (It sets
``MLFLOW_RUN_ID`` too, which is the run's own id, and which MLflow removes where the script uses that.)
Protocol: https://mlflow.org/docs/latest/rest-api.html, "Log Batch".
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from typing import Any

from trainer.runtime.layout import AZURE_RUN_ID_VARIABLE, TRACKING_VARIABLE
from trainer.runtime.sinks import is_worker

_URI, _TOKEN = "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN"
# The protocol's own limit for one request.
_BATCH = 1000
_MOST_WAITING = 20_000
_PAUSE_SECONDS = 1.0
_CLOSE_SECONDS = 30.0


def is_wanted() -> bool:
    """Return whether this job is to report in this way, and Azure ML has set it up."""
    needed = (_URI, _TOKEN, AZURE_RUN_ID_VARIABLE)
    return os.environ.get(TRACKING_VARIABLE) == "mlflow" and all(os.environ.get(name) for name in needed)


class MlflowSink:
    """Sends values in the background; nothing is raised for what can't be sent: the run's own record has it too."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._waiting: list[dict[str, Any]] = []
        self._change = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._counts: dict[str, int] = {}

    def log(self, name: str, value: float | str, step: float | None = None, iteration: int | None = None) -> None:
        """Send one number, soon; MLflow's metrics are finite numbers at whole steps."""
        if self._owner != os.getpid() or is_worker():
            return
        if isinstance(value, str) or not math.isfinite(value):
            sys.stdout.write(f"{name}: {value} (not sent: metrics on Azure ML are finite numbers)\n")
            return
        count = self._counts[name] = self._counts.get(name, -1) + 1
        at = _whole(step, iteration, count)
        metric = {"key": name, "value": float(value), "timestamp": int(time.time() * 1000), "step": at}
        with self._change:
            self._waiting.append(metric)
            del self._waiting[:-_MOST_WAITING]
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="trainer: metrics", daemon=True)
                self._thread.start()
            self._change.notify_all()

    def progress(self, state: dict[str, float | None]) -> None:
        """Send nothing: the log and the metrics say it."""

    def close(self) -> None:
        """Wait until everything is sent, for half a minute at most."""
        if self._owner != os.getpid() or self._thread is None:
            return
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive() or self._waiting:
            sys.stderr.write("warning: some metrics could not be sent to Azure ML; the run's own record has them.\n")

    def _run(self) -> None:
        from trainer.runtime import log_batch  # brings TLS and HTTP; the launcher has imported it where it is wanted

        while True:
            with self._change:
                while not self._waiting and not self._closed:
                    self._change.wait()
                batch = self._waiting[:_BATCH]
                if not batch:
                    return
            if log_batch.send(batch):
                with self._change:
                    # Those that were dropped meanwhile, because too many waited, were the oldest.
                    kept = {id(metric) for metric in batch}
                    self._waiting = [metric for metric in self._waiting if id(metric) not in kept]
            with self._change:
                if not self._closed:
                    self._change.wait(_PAUSE_SECONDS)
                    continue
            time.sleep(0.0 if not self._waiting else _PAUSE_SECONDS)


def _whole(step: float | None, iteration: int | None, count: int) -> int:
    if step is not None and math.isfinite(step) and (step == int(step) or iteration is None):
        return round(step)
    return count if iteration is None else iteration
