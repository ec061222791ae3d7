"""What can be asked of a run, and what is refused at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.artifacts import check_model_name
from trainer.errors import UsageError
from trainer.job import DEFAULT_EXPERIMENT, DEFAULT_MODEL_NAME
from trainer.snapshot import DEFAULT_SCRIPT, is_default_script

NO_DATASET = "none"
# Azure ML's own rule (azureml/_base_sdk_common/common.py), so that a name that works here works there.
_EXPERIMENT = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,254}")
_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,3})?")


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """Everything that can be asked of a run. None means the script's own default.

    Attributes:
        script: The training script; None for the one that ships with this package.
        source: Directory that travels with it; None for the script's own.
        script_args: Arguments for the script, after those made from the fields below.
        epochs: Passes over the training set.
        batchsize: Images in a minibatch.
        units: Units in each hidden layer.
        lr: Learning rate.
        momentum: Of MomentumSGD.
        seed: Of every random number generator.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads.
        dataset: ``auto``, a data set's name, a directory, or ``none``.
        experiment: Groups runs.
        model_name: Register the model under this name; None doesn't register it.
        tags: Recorded on the run and its model version.
        max_minutes: Stop the run after so long; None for no cap.
    """

    script: Path | None = None
    source: Path | None = None
    script_args: tuple[str, ...] = ()
    epochs: int | None = None
    batchsize: int | None = None
    units: int | None = None
    lr: float | None = None
    momentum: float | None = None
    seed: int | None = None
    device: str | None = None
    threads: int | None = None
    dataset: str = "auto"
    experiment: str = DEFAULT_EXPERIMENT
    model_name: str | None = DEFAULT_MODEL_NAME
    tags: Mapping[str, str] = field(default_factory=dict)
    max_minutes: int | None = None

    def training_flags(self) -> dict[str, Any]:
        """The flags of our own script that were given, by name, in the order they are passed."""
        names = ("epochs", "batchsize", "units", "lr", "momentum", "seed", "device", "threads")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def check_request(request: JobRequest, script: Path) -> None:
    """Refuse what can't be run, before anything is done.

    Args:
        request: What is asked.
        script: The script that it means.

    Raises:
        UsageError: A field is unusable, or not meant for this script.
    """
    if not script.is_file():
        raise UsageError(f"There is no script {script}.", "Give --script the path of a Python file.")
    flags = request.training_flags()
    if flags and not is_default_script(script):
        given = " ".join(f"--{name} {value}" for name, value in flags.items())
        raise UsageError(
            f"{', '.join('--' + name for name in flags)}: flags of {DEFAULT_SCRIPT}, not of {script.name}.",
            f"Pass the script its own after two dashes: trainer run --script {script} -- {given}",
        )
    if request.dataset == NO_DATASET and is_default_script(script):
        raise UsageError(f"{DEFAULT_SCRIPT} needs a data set.", "Leave out --dataset, or name one.")
    for name in ("epochs", "batchsize", "units", "threads", "max_minutes"):
        value = getattr(request, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} {value}: it is a number of at least 1.", "Give one.")
    _check_number("lr", request.lr, lambda lr: 0 < lr < float("inf"), "above 0")
    _check_number("momentum", request.momentum, lambda momentum: 0 <= momentum < 1, "from 0 to below 1")
    _check_number("seed", request.seed, lambda seed: 0 <= seed < 2**32, "from 0 to 4294967295")
    if request.device is not None and not _DEVICE.fullmatch(request.device):
        raise UsageError(f"There is no device {request.device!r}.", "Use auto, cpu, cuda or cuda:N.")
    if not _EXPERIMENT.fullmatch(request.experiment):
        raise UsageError(
            f"{request.experiment[:60]!r} can't name an experiment.",
            "Use up to 255 letters, digits, '_' and '-', beginning with a letter or digit.",
        )
    if request.model_name is not None:
        check_model_name(request.model_name)
    if any("\0" in word for word in (*request.script_args, *request.tags, *request.tags.values())):
        raise UsageError("An argument or a tag holds a NUL character.", "Leave it out.")


def _check_number(name: str, value: float | None, fits: Callable[[float], bool], allowed: str) -> None:
    if value is not None and not fits(value):
        raise UsageError(f"--{name} {value}: it is a number {allowed}.", "Give one.")
