"""What can be asked of a run, and what is refused at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.artifacts import check_model_name
from trainer.errors import UsageError, must_be
from trainer.job import DEFAULT_EXPERIMENT, DEFAULT_MODEL_NAME
from trainer.runtime.flags import TRAINING
from trainer.snapshot import DEFAULT_SCRIPT, is_default_script

if TYPE_CHECKING:
    from trainer.config import Config

NO_DATASET = "none"
# Azure ML's own rule (azureml/_base_sdk_common/common.py), so that a name that works here works there.
_EXPERIMENT = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,254}")


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """Everything that can be asked of a run. None means the script's own default.

    Attributes:
        script: The training script; None for the one that ships with this package.
        source: Directory that travels with it; None for the script's own.
        script_args: Arguments for the script, after those made from the fields below.
        training: Values of the training flags (``trainer.runtime.flags.TRAINING``) by name, for the script that ships
            with this package.
        dataset: ``auto``, a data set's name, a directory, or ``none``.
        experiment: Groups runs; empty for one named after the script.
        model_name: Register the model under this name; empty for one named after the script, None doesn't register it.
        tags: Recorded on the run and its model version.
        max_minutes: Stop the run after so long; None for no cap.
    """

    script: Path | None = None
    source: Path | None = None
    script_args: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    dataset: str = "auto"
    experiment: str = ""
    model_name: str | None = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    max_minutes: int | None = None

    @classmethod
    def from_config(
        cls,
        config: Config,
        *,
        script_args: tuple[str, ...] = (),
        tags: Mapping[str, str] | None = None,
        register: bool = True,
    ) -> JobRequest:
        """Return what the configuration in force asks for.

        Args:
            config: The configuration.
            script_args: Arguments for the script.
            tags: Recorded on the run and its model version.
            register: Whether the model is registered.
        """
        return cls(
            script=config["script"],
            source=config["source"],
            script_args=script_args,
            # Flags of our script that a file or a variable sets are not meant for another script.
            training=config.training(flags_only=config["script"] is not None),
            dataset=config["dataset"],
            experiment=config["experiment"] or "",
            model_name=(config["model_name"] or "") if register else None,
            tags=tags or {},
            max_minutes=config["max_minutes"],
        )

    def named(self, script: Path) -> JobRequest:
        """Return the request with the names that it leaves to the script.

        Args:
            script: The script that it means.
        """
        ours = is_default_script(script)
        # What both names can be made of, on Azure ML too.
        own = re.sub(r"[^A-Za-z0-9_-]+", "-", script.stem).strip("-_")[:200] or "script"
        experiment = self.experiment or (DEFAULT_EXPERIMENT if ours else own)
        model_name = self.model_name
        if model_name == "":
            model_name = DEFAULT_MODEL_NAME if ours else own
        return replace(self, experiment=experiment, model_name=model_name)


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
    if request.training and not is_default_script(script):
        given = " ".join(f"--{name} {value}" for name, value in request.training.items())
        raise UsageError(
            f"{', '.join('--' + name for name in request.training)}: flags of {DEFAULT_SCRIPT}, not of {script.name}.",
            f"Pass the script its own after two dashes: trainer run --script {script} -- {given}",
        )
    if request.dataset == NO_DATASET and is_default_script(script):
        raise UsageError(f"{DEFAULT_SCRIPT} needs a data set.", "Leave out --dataset, or name one.")
    _check_training(request.training)
    if request.max_minutes is not None and request.max_minutes < 1:
        raise UsageError(must_be("--max-minutes", "a whole number of at least 1", request.max_minutes), "Give another.")
    if not _EXPERIMENT.fullmatch(request.experiment):
        raise UsageError(
            f"{request.experiment[:60]!r} can't name an experiment.",
            "Use up to 255 letters, digits, '_' and '-', beginning with a letter or digit.",
        )
    if request.model_name is not None:
        check_model_name(request.model_name)
    if any("\0" in word for word in (*request.script_args, *request.tags, *request.tags.values())):
        raise UsageError("An argument or a tag holds a NUL character.", "Leave it out.")


def _check_training(values: Mapping[str, Any]) -> None:
    known = {flag.name: flag for flag in TRAINING}
    for name, value in values.items():
        if name not in known:
            raise UsageError(f"{DEFAULT_SCRIPT} has no flag --{name}.", f"It has: {', '.join(known)}.")
        try:
            known[name].check(value)
        except ValueError:
            raise UsageError(must_be(f"--{name}", known[name].expected, value), "Give another.") from None
