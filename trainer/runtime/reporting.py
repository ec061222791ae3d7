"""What a training script reports while it runs: values and progress.

::

    from trainer.runtime import reporting

    run = reporting.start()
    run.log("Accuracy", 0.97, step=3)
    run.progress(epoch=3.0, epochs=10, images_per_second=51_000, loss=0.09)

Reports go to the run's folder (``TRAINER_RUN_DIR``), to the Azure ML run (``AZUREML_RUN_ID``), or, with neither,
to stdout. The launcher calls :func:`install`, so that scripts which know Azure ML's ``Run`` report too.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import math
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainer.runtime import (
    azureml_checkpoints,
    azureml_mirror,
    azureml_stand_in,
    collecting,
    environment,
    output_names,
    tracking,
)
from trainer.runtime.faults import RuntimeFault
from trainer.runtime.layout import (
    AZURE_RUN_ID_VARIABLE,
    LOGS_DIR,
    NO_TELEMETRY_VARIABLE,
    NOT_KEPT,
    OUTPUTS_DIR,
    RUN_DIR_VARIABLE,
    STREAMED_DIR_VARIABLE,
)
from trainer.runtime.sinks import (
    FolderSink,
    Sink,
    clean_name,
    is_worker,
    local_sink,
    mark_script_reports,
    mpi_rank,
    number,
)

_MAIN = "TRAINER_REPORTING_MAIN"

_installed = False


class Report:
    """Sends what a script reports to every sink. Under MPI only rank 0 reports.

    Args:
        sinks: Where each value goes.
        automatic: It is not the script that reports, but we for it.
    """

    def __init__(self, sinks: list[Sink], *, automatic: bool = False) -> None:
        self._sinks = sinks if mpi_rank() == 0 else []
        self._automatic = automatic

    def log(self, name: str, value: object, step: float | None = None, iteration: int | None = None) -> None:
        """Report one value.

        Args:
            name: What it is, such as ``Accuracy``; at most 255 characters are kept.
            value: A number or an array of one element; NaN and infinities are recorded as such.
            step: When it was, in epochs.
            iteration: After how many updates, if that is known.

        Raises:
            TypeError: The value is neither a number nor a string.
            RuntimeFault: The run's folder can't be written.
        """
        checked = number(value)
        if not self._automatic:
            mark_script_reports()
        for sink in self._sinks:
            sink.log(clean_name(name), checked, step, iteration)

    def progress(
        self, *, epoch: float, epochs: float, images_per_second: float | None = None, loss: float | None = None
    ) -> None:
        """Report how far the training is; cheap enough for every iteration.

        Args:
            epoch: Epochs done, with a fraction.
            epochs: Epochs in all.
            images_per_second: Training speed.
            loss: The latest batch's.
        """
        state = {"epoch": epoch, "epochs": epochs, "images_per_second": images_per_second, "loss": loss}
        for sink in self._sinks:
            sink.progress(state)

    def close(self) -> None:
        """Write what is held back. Called at exit too."""
        for sink in self._sinks:
            sink.close()


def start(*, automatic: bool = False, sent_already: bool = False) -> Report:
    """Make the report of this process.

    Args:
        sent_already: What is reported is on its way to the service by other means: on Azure ML, the lines that are
            streamed are all that is wanted then.
        automatic: It is not the script that reports, but we for it. On Azure ML, where the SDK can't reach the run, the
            lines that are streamed are enough then.

    Raises:
        RuntimeFault: The run's folder is missing, or this is an Azure ML run and the SDK can't reach it.
    """
    sinks: list[Sink] = []
    if on_azure() and (sent_already or tracking.is_wanted()):
        sinks += _lines_and(None if sent_already else tracking.MlflowSink())
    elif on_azure():
        try:
            sinks.append(_AzureSink())
        except RuntimeFault:
            lines = streamed_lines()
            if not automatic or lines is None:
                raise
            sinks.append(lines)
    if not sinks or os.environ.get(RUN_DIR_VARIABLE):
        sinks.append(local_sink())
    report = Report(sinks, automatic=automatic)
    atexit.register(report.close)
    return report


_hand: Report | None = None


def report(
    values: Mapping[str, object],
    *,
    epoch: float | None = None,
    epochs: float | None = None,
    iteration: int | None = None,
) -> None:
    """Report what a training loop of the script's own has measured; for scripts without a ``Trainer``.

    In a job the values are metrics of the run, and epoch of epochs is how far it is. Outside one they are printed.

    Args:
        values: Name to number or array of one element; ``Loss``, ``Accuracy`` and ``Validation loss`` are the names
            that tables and pictures know best.
        epoch: Epochs done, with a fraction or without.
        epochs: Epochs in all.
        iteration: Updates done.

    Raises:
        TypeError: A value is neither a number nor a string.
        RuntimeFault: The run can't be reached or written.
    """
    global _hand
    if _hand is None:
        _hand = start()
        if epochs is not None:
            _hand.log("Epochs", epochs)
    for name, value in values.items():
        _hand.log(name, value, epoch, iteration)
    if epoch is not None and epochs is not None:
        loss = values.get("Loss")
        _hand.progress(epoch=epoch, epochs=epochs, loss=None if loss is None else float(number(loss)))


def on_azure() -> bool:
    """Return whether this process is part of an Azure ML run."""
    return bool(os.environ.get(AZURE_RUN_ID_VARIABLE))


def record(**facts: object) -> None:
    """Add facts of this run, such as ``device="NVIDIA H100"``, to ``outputs/environment.json``.

    Args:
        **facts: What JSON can hold; anything else is recorded as its text.
    """
    environment.add(facts)


def install(collect: str | None = None) -> None:
    """Arrange reporting for a script that is about to run. The launcher calls it; twice does no harm.

    Where this is no Azure ML run, ``azureml.core.Run`` becomes one that reports into the run's folder, whether
    or not the SDK is installed. ``outputs/environment.json`` is written now and at exit. On Azure ML, what the script
    has written outside ``outputs`` is brought there when it ends; here the run's supervisor does that.

    Args:
        collect: How much is brought there; see :func:`trainer.runtime.collecting.limits_of`.

    Raises:
        RuntimeFault: ``outputs`` can't be written.
    """
    global _installed
    if _installed:
        return
    _installed = True
    os.environ[NO_TELEMETRY_VARIABLE] = "true"
    if not on_azure():
        azureml_stand_in.install()
    elif not (tracking.is_wanted() and azureml_stand_in.install_where_missing(_Tracked)):
        azureml_mirror.install(streamed_lines)
    azureml_stand_in.install_open_datasets()
    if _is_main():
        environment.begin(Path.cwd() / OUTPUTS_DIR)
        before = collecting.state_of(Path.cwd()) if on_azure() else None
        end = functools.partial(_end, Path.cwd(), before, collect)
        atexit.register(end)
        if on_azure():
            _end_at_sigterm(end)


def _is_main() -> bool:
    """Whether this is the process that the launcher started, and not one that its script did."""
    if is_worker() or mpi_rank() != 0:
        return False
    run = os.environ.get(RUN_DIR_VARIABLE, "")
    process, _, of_run = os.environ.get(_MAIN, "").partition(":")
    if process and of_run == run and process != str(os.getpid()):
        return False
    os.environ[_MAIN] = f"{os.getpid()}:{run}"
    return True


def _end(directory: Path, before: collecting.State | None, collect: str | None) -> None:
    # A forked child of the script runs this too, with the parent's number in its environment.
    if os.environ.get(_MAIN, "").partition(":")[0] != str(os.getpid()):
        return
    outputs = directory / OUTPUTS_DIR
    try:
        if before is not None:
            lost = collecting.collect(directory, outputs, before, collect)
            if lost:
                environment.add({NOT_KEPT: lost})
                sys.stderr.write("".join(f"warning: {sentence}\n" for sentence in lost))
        environment.write()
        if on_azure():
            output_names.rename_unsendable(outputs)
    except (RuntimeFault, OSError) as fault:
        sys.stderr.write(f"warning: {fault.message if isinstance(fault, RuntimeFault) else fault}\n")


def _end_at_sigterm(end: Callable[[], None]) -> None:
    """Call ``end`` also where the job is cancelled, unless the script has a handler of its own.

    The process then ends by the signal, as it would have without this.
    """
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return

    def handle(number: int, frame: object) -> None:  # noqa: ARG001  # a handler's arguments
        signal.signal(number, signal.SIG_DFL)
        try:
            azureml_checkpoints.save_last()
            end()
        finally:
            os.kill(os.getpid(), number)

    # A forked child is to end at once, also by a signal that comes before it could take the handler away.
    masks: list[set[signal.Signals] | set[int]] = []

    def before() -> None:
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}))

    def in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.pop())

    def in_child() -> None:
        if signal.getsignal(signal.SIGTERM) is handle:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        in_parent()

    try:
        signal.signal(signal.SIGTERM, handle)
    except ValueError:  # only a main thread can
        return
    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)


class _AzureSink:
    """The real run on Azure ML, through the real SDK.

    The SDK gives back a run's metrics without their steps and times, so every value is also a line of
    ``logs/metrics.jsonl``; Azure ML streams what is written below ``logs``.
    """

    def __init__(self) -> None:
        self._lines = streamed_lines()
        run_id = os.environ[AZURE_RUN_ID_VARIABLE]
        try:
            from azureml.core.run import Run
        except ImportError as error:
            raise RuntimeFault(
                f"This is the Azure ML run {run_id}, and azureml-core can't be imported: {error}.",
                "Add azureml-core to the run's environment.",
            ) from error
        # allow_offline would hand out a run that only prints, and a broken environment would look like success.
        try:
            self._run: Any = Run.get_context(allow_offline=False)
        except Exception as error:
            raise RuntimeFault(
                f"The Azure ML run {run_id} can't be reached: {type(error).__name__}: {error}",
                "The run's environment lacks AZUREML_* variables, or its service does not answer.",
            ) from error

    def log(self, name: str, value: float | str, step: float | None = None, iteration: int | None = None) -> None:
        """Log one value."""
        if isinstance(value, float) and not math.isfinite(value):
            # The SDK would write NaN into its JSON; a refused request loses the values beside it too.
            sys.stdout.write(f"{name}: {value} (not sent: metrics on Azure ML are finite)\n")
        else:
            with azureml_mirror.suspended():
                self._run.log(name, value)
        if self._lines is not None:
            # The run itself has the value; a full disk costs no more than its step.
            with contextlib.suppress(RuntimeFault):
                self._lines.log(name, value, step, iteration)

    def progress(self, state: dict[str, float | None]) -> None:
        """Send nothing: the log and the metrics say it."""

    def close(self) -> None:
        """Send nothing: the service's own launcher waits for what is on its way."""


class _Tracked:
    """What ``Run`` of SDK v1 logs, where that is not installed: through MLflow, and as lines."""

    def __init__(self) -> None:
        self._sinks = _lines_and(tracking.MlflowSink())
        atexit.register(self.close)

    def log(self, name: str, value: float | str, step: float | None = None, iteration: int | None = None) -> None:
        """Log one value."""
        for sink in self._sinks:
            sink.log(name, value, step, iteration)

    def progress(self, state: dict[str, float | None]) -> None:
        """Send nothing: the log and the metrics say it."""

    def close(self) -> None:
        """Send what is on its way."""
        for sink in self._sinks:
            sink.close()


def _lines_and(other: Sink | None) -> list[Sink]:
    found: list[Sink | None] = [streamed_lines(), other]
    return [sink for sink in found if sink is not None]


def streamed_lines() -> FolderSink | None:
    """Return the sink of a job on Azure ML whose lines are streamed; None where its folder can't be made."""
    # Also for processes that the job starts in other directories.
    folder = Path(os.environ.setdefault(STREAMED_DIR_VARIABLE, str(Path(LOGS_DIR).absolute())))
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return None
    return FolderSink(folder)
