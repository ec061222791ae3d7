"""What can be asked of a run, and what is refused at once."""

from __future__ import annotations

import ast
import difflib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.artifacts import check_model_name
from trainer.errors import UsageError, must_be
from trainer.job import DEFAULT_EXPERIMENT, DEFAULT_MODEL_NAME
from trainer.plainname import plain_name
from trainer.runtime.attempts import is_pattern
from trainer.runtime.flags import TRAINING
from trainer.runtime.layout import COLLECT_EXPECTED, COLLECT_FORM, KERNELS, KERNELS_EXPECTED
from trainer.snapshot import DEFAULT_SCRIPT, is_default_script

if TYPE_CHECKING:
    from trainer.config import Config

NO_DATASET = "none"
BY_SCRIPT = "{script}"
"""Stands for the name of the script; where it is the one that is included, for that of the user's own data, else for
those of the tutorial."""
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
        network: ``FILE.py:NAME``, a function that makes another network, for the script that ships with this package.
        dataset: ``auto``, a data set's name, a directory or file, or ``none``.
        experiment: Groups runs.
        model_name: Register the model under this name; None doesn't register it.
        tags: Recorded on the run and its model version.
        max_minutes: Stop the run after so long; None for no cap.
        collect: How much of what the script writes outside ``outputs`` is kept: ``off``, ``all``, or a size.
        max_restarts: How many times a run whose process or node is lost is started again; None for the backend's
            default.
        checkpoints: Pattern of the outputs that it then goes on from, for a script of the user's own.
        kernels: ``torch`` for PyTorch's CPU kernels (:mod:`trainer.runtime.kernels`); ``off`` or None for Chainer's.
        nodes: How many nodes it runs on.
        processes_per_node: How many ranks each node has.
    """

    script: Path | None = None
    source: Path | None = None
    script_args: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    network: str | None = None
    dataset: str = "auto"
    experiment: str = BY_SCRIPT
    model_name: str | None = BY_SCRIPT
    tags: Mapping[str, str] = field(default_factory=dict)
    max_minutes: int | None = None
    collect: str | None = None
    max_restarts: int | None = None
    checkpoints: str | None = None
    kernels: str | None = None
    nodes: int = 1
    processes_per_node: int = 1

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
            # Likewise.
            network=config["network"] if config["script"] is None or config.is_flag("network") else None,
            dataset=config["dataset"],
            experiment=config["experiment"] or BY_SCRIPT,
            model_name=(config["model_name"] or BY_SCRIPT) if register else None,
            tags=tags or {},
            max_minutes=config["max_minutes"],
            collect=config["collect"],
            max_restarts=config["max_restarts"],
            # Like the flags of our script: a file or a variable that sets it has another script in mind.
            checkpoints=config["checkpoints"] if config["script"] or config.is_flag("checkpoints") else None,
            kernels=config["kernels"],
            nodes=config["nodes"],
            processes_per_node=config["processes_per_node"],
        )

    def named(self, script: Path) -> JobRequest:
        """Return the request with the names that it leaves to the script or the data.

        Args:
            script: The script that it means.
        """
        if BY_SCRIPT not in (self.experiment, self.model_name):
            return self
        if is_default_script(script) or script == Path(DEFAULT_SCRIPT):  # the latter inside a snapshot
            from trainer.data import own_name

            own = own_name(self.dataset)
        else:
            # What both names can be made of, on Azure ML too.
            own = plain_name(script.stem) or "script"
        left = {
            name: own or default
            for name, default in (("experiment", DEFAULT_EXPERIMENT), ("model_name", DEFAULT_MODEL_NAME))
            if getattr(self, name) == BY_SCRIPT
        }
        return replace(self, **left)  # type: ignore[arg-type]


# Programs without an ending are common on Linux.
_SCRIPT_SUFFIXES = (".py", ".pyw", "")


def check_request(request: JobRequest, script: Path) -> None:
    """Refuse what can't be run, before anything is done.

    Args:
        request: What is asked.
        script: The script that it means.

    Raises:
        UsageError: A field is unusable, or not meant for this script.
    """
    if not script.is_file():
        reason = f"{script} is a directory." if script.is_dir() else f"There is no script {script}."
        raise UsageError(reason, "Give --script the path of a Python file.")
    if script.suffix not in _SCRIPT_SUFFIXES:
        raise UsageError(f"{script} is not a Python file.", "Give --script a file whose name ends in .py.")
    if request.training and not is_default_script(script):
        given = " ".join(f"--{name} {value}" for name, value in request.training.items())
        raise UsageError(
            f"{', '.join('--' + name for name in request.training)}: only for the included script, not {script.name}.",
            f"Pass the script its own after two dashes: trainer run --script {script} -- {given}",
        )
    if request.dataset == NO_DATASET and is_default_script(script):
        raise UsageError(f"{DEFAULT_SCRIPT} needs a data set.", "Leave out --dataset, or name one.")
    if request.network is not None:
        _check_network(request.network, script)
    _check_training(request.training)
    if request.max_minutes is not None and request.max_minutes < 1:
        raise UsageError(must_be("--max-minutes", "a whole number of at least 1", request.max_minutes), "Give another.")
    if request.max_restarts is not None and request.max_restarts < 0:
        raise UsageError(
            must_be("--max-restarts", "a whole number of at least 0", request.max_restarts), "Give another."
        )
    for name, value in (("--nodes", request.nodes), ("--processes-per-node", request.processes_per_node)):
        if value < 1:
            raise UsageError(must_be(name, "a whole number of at least 1", value), "Give another.")
    if request.checkpoints is not None:
        _check_checkpoints(request.checkpoints, script)
    if request.collect is not None and not re.search(COLLECT_FORM, request.collect):
        raise UsageError(must_be("--collect", COLLECT_EXPECTED, request.collect), "Give another.")
    if request.kernels is not None and request.kernels not in KERNELS:
        raise UsageError(must_be("--kernels", KERNELS_EXPECTED, request.kernels), "Give another.")
    if not _EXPERIMENT.fullmatch(request.experiment):
        raise UsageError(
            f"{request.experiment[:60]!r} is not a valid experiment name.",
            "Use up to 255 letters, digits, '_' and '-', beginning with a letter or digit.",
        )
    if request.model_name is not None:
        check_model_name(request.model_name)
    if any("\0" in word for word in (*request.script_args, *request.tags, *request.tags.values())):
        raise UsageError("An argument or a tag holds a NUL character.", "Leave it out.")


def network_file(network: str) -> tuple[Path, str]:
    """Split ``FILE.py:NAME``."""
    path, _, name = network.rpartition(":")
    return Path(path).expanduser(), name


def _check_network(network: str, script: Path) -> None:
    path, name = network_file(network)
    if not is_default_script(script):
        raise UsageError(f"--network: a flag of {DEFAULT_SCRIPT}, not of {script.name}.", "Leave it out.")
    if path.suffix != ".py" or not name.isidentifier():
        raise UsageError(must_be("--network", "FILE.py:NAME", network), "For example: --network net.py:make")
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", "Give --network the path of a Python file, and a name in it.")
    if path.name == DEFAULT_SCRIPT or not path.stem.isidentifier() or path.stem in sys.stdlib_module_names:
        raise UsageError(f"{path.name} can't travel with {DEFAULT_SCRIPT} under that name.", "Rename it: net.py")
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise UsageError(f"{path}, line {error.lineno}, is not Python: {error.msg}.", "Correct it.") from error
    except (ValueError, OSError) as error:
        raise UsageError(f"{path} is not Python: {error}.", "Correct it.") from error
    if name not in (names := _top_names(tree)) and "*" not in names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f"Did you mean {path}:{near[0]}?" if near else "Give --network the name of a function in it."
        raise UsageError(f"{path} has no function {name!r}.", hint)


def _check_checkpoints(pattern: str, script: Path) -> None:
    if is_default_script(script):
        raise UsageError(
            f"--checkpoints: {DEFAULT_SCRIPT} writes a checkpoint after every epoch and continues from it.",
            "Leave it out.",
        )
    if not is_pattern(pattern):
        raise UsageError(
            must_be("--checkpoints", "a pattern of files below outputs/", pattern),
            "For example: --checkpoints 'checkpoints/*'",
        )


def _top_names(tree: ast.Module) -> set[str]:
    """Every name that a module may have, wherever in it it is bound."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name)
    return names


def _check_training(values: Mapping[str, Any]) -> None:
    known = {flag.name: flag for flag in TRAINING}
    for name, value in values.items():
        if name not in known:
            raise UsageError(f"{DEFAULT_SCRIPT} has no flag --{name}.", f"It has: {', '.join(known)}.")
        try:
            known[name].check(value)
        except ValueError:
            raise UsageError(must_be(f"--{name}", known[name].expected, value), "Give another.") from None
