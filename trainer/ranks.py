"""Which scripts can be run as several ranks."""

from __future__ import annotations

import re

from trainer.errors import UsageError
from trainer.job import DEFAULT_SCRIPT, TrainingJob
from trainer.runtime.flags import TRAINING
from trainer.runtime.layout import JOB_DIR
from trainer.snapshot import Snapshot

# What a script that works in ranks, or a module of its own, imports.
_DISTRIBUTES = ("chainermn", "mpi4py")
_BATCHSIZE = next(int(str(flag.default)) for flag in TRAINING if flag.name == "batchsize")


def check_ranks(job: TrainingJob, snapshot: Snapshot, *, ours: bool) -> None:
    """Refuse what would be trained as many times as there are ranks, into the same files.

    Args:
        job: A job of any number of ranks.
        snapshot: What travels with it.
        ours: Whether its script is the one that is included.

    Raises:
        UsageError: The script works alone, or there are fewer examples in a batch than ranks.
    """
    if job.ranks == 1:
        return
    if ours:
        batchsize = batchsize_of(job)
        if batchsize < job.ranks:
            raise UsageError(
                f"--batchsize {batchsize} leaves some of {job.ranks} ranks without an example.", "Give a larger one."
            )
    elif not _distributes(snapshot, job.script):
        raise UsageError(
            f"{job.script} is a script for one process: neither it nor a module that travels with it uses "
            f"{' or '.join(_DISTRIBUTES)}. Each of {job.ranks} ranks would train the whole model, into the same files.",
            "Leave out --nodes and --processes-per-node, or distribute it: trainer docs distributed",
        )


def batchsize_of(job: TrainingJob) -> int:
    """Return the batch size of a job of the included script; the last of several on its command line counts."""
    words = dict(zip(job.arguments, job.arguments[1:], strict=False))
    text = words.get("-b", words.get("--batchsize", ""))
    return int(text) if text.isdecimal() else _BATCHSIZE  # what is no number, the script itself refuses


def each_batch(job: TrainingJob) -> dict[str, str]:
    """Return the line of a plan that says what each rank gets of a batch; nothing for a script of the user's."""
    if job.script != DEFAULT_SCRIPT:
        return {}
    least, more = divmod(batchsize_of(job), job.ranks)
    each = f"{least + 1} examples for {more} of the ranks, {least} for each other" if more else f"{least} examples each"
    return {"each_batch": f"{each}; --batchsize is that of all ranks together"}


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
