"""Which scripts can be run as several ranks."""

from __future__ import annotations

import re
from pathlib import Path

from trainer.errors import UsageError
from trainer.request import JobRequest
from trainer.runtime.flags import TRAINING
from trainer.runtime.layout import JOB_DIR
from trainer.snapshot import Snapshot, is_default_script, script_path

# What a script that works in ranks, or a module of its own, imports.
_DISTRIBUTES = ("chainermn", "mpi4py")
_BATCHSIZE = next(flag.default for flag in TRAINING if flag.name == "batchsize")


def check_ranks(request: JobRequest, script: Path, snapshot: Snapshot) -> None:
    """Refuse what would be trained as many times as there are ranks, into the same files.

    Raises:
        UsageError: The script works alone, or there are fewer examples in a batch than ranks.
    """
    ranks = request.nodes * request.processes_per_node
    if is_default_script(script):
        batchsize = request.training.get("batchsize", _BATCHSIZE)
        if batchsize < ranks:
            raise UsageError(
                f"--batchsize {batchsize} leaves some of {ranks} ranks without an example.", "Give a larger one."
            )
    elif not _distributes(snapshot, script_path(script, request.source)):
        raise UsageError(
            f"{script.name} is a script for one process: neither it nor a module that travels with it uses "
            f"{' or '.join(_DISTRIBUTES)}. Each of {ranks} ranks would train the whole model, into the same files.",
            "Leave out --nodes and --processes-per-node, or distribute it: trainer docs distributed",
        )


def _distributes(snapshot: Snapshot, script: str) -> bool:
    """Whether a script, or a module that travels with it and that it names, or one that this names, uses MPI."""
    own = JOB_DIR + "/"
    sources = {
        file.path: file.source for file in snapshot.files if file.path.endswith(".py") and not file.path.startswith(own)
    }
    waiting, seen = [script], {script}
    while waiting:
        path = waiting.pop()
        words = set(re.findall(r"\w+", sources[path].read_text("utf-8", "replace"))) if path in sources else set()
        if words.intersection(_DISTRIBUTES):
            return True
        # A package is named by its folder.
        named = {each for each in sources if words.intersection(each.removesuffix(".py").split("/"))} - seen
        seen |= named
        waiting += named
    return False
