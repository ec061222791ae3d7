"""What a user may set for the Azure ML backend."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from trainer.errors import UsageError

# Azure's rule for the name of a compute target.
_COMPUTE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,22}[A-Za-z0-9]")


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The backend's options, each also a flag of ``trainer run --backend azureml``.

    Attributes:
        compute: Name of the AmlCompute cluster.
        vm_size: Its VM size where it has to be created; None lets us choose.
        max_nodes: The most nodes that a new cluster may grow to. A job uses one.
        idle_minutes: A new cluster gives a node back after it was idle this long. The SDK's default is 30.
        workspace_config: A workspace's ``config.json``, or a directory to look for one from, as the SDK does.
        emulator: Use the loopback emulator of this project, and start it if it doesn't run.
    """

    compute: str = "gpu-cluster"
    vm_size: str | None = None
    max_nodes: int = 4
    idle_minutes: int = 5
    workspace_config: Path | None = None
    emulator: bool = False


OPTION_NAMES = frozenset(field.name for field in msgspec.structs.fields(Options))


def read_options(given: Mapping[str, Any]) -> Options:
    """Check options; those that are None count as not given.

    Raises:
        UsageError: One is unknown or unusable.
    """
    try:
        options = msgspec.convert({name: value for name, value in given.items() if value is not None}, Options)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"The azureml backend can't take its options: {error}.", f"It knows: {', '.join(sorted(OPTION_NAMES))}."
        ) from error
    if not _COMPUTE_NAME.fullmatch(options.compute):
        raise UsageError(
            f"{options.compute[:40]!r} can't name a compute cluster.",
            "Use 2 to 24 letters, digits and hyphens for --compute, beginning with a letter.",
        )
    if options.vm_size is not None and not re.fullmatch(r"[A-Za-z0-9_-]{3,64}", options.vm_size):
        raise UsageError(f"{options.vm_size[:40]!r} is not a VM size.", "Write it as --vm-size Standard_NC4as_T4_v3.")
    for flag, value in (
        ("--max-nodes", options.max_nodes),
        ("--idle-minutes", options.idle_minutes),
    ):
        if not 1 <= value <= 100_000:
            raise UsageError(f"{flag} {value} is out of range.", f"Give {flag} a whole number of at least 1.")
    return options
