"""On Azure ML, the ranks of a job go on from one checkpoint: rank 0 chooses it, and each node brings it to itself.

The ranks speak by MPI before the script begins, so MPI is initialised by then, as ``import mpi4py.MPI`` does it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from trainer.runtime import attempts, ranks
from trainer.runtime.attempts import Checkpoint
from trainer.runtime.layout import CHECKPOINT_FILE, RESUME_DIR

Bring = Callable[[str], Checkpoint]
"""Downloads the checkpoint of that name."""


def share(script: Path, attempt: int, name: str, found: Checkpoint, bring: Bring) -> tuple[int, Checkpoint]:
    """Have all nodes go on from the checkpoint that rank 0 has found. Called by every rank.

    Args:
        script: The job's script, in the working directory.
        attempt: The attempt's number, of which rank 0's counts.
        name: Of rank 0, how the checkpoint is called; empty for none.
        found: Of rank 0, the checkpoint.
        bring: Downloads it, on another node.

    Returns:
        The attempt, and what it goes on from, without files where one of the nodes could not get it; of a rank that is
        not the first of its node, files that are laid out already.
    """
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    if world.size != ranks.size():  # each rank has an MPI to itself: nothing can be agreed on
        return attempt, Checkpoint()
    attempt, name = world.bcast((attempt, name))
    first = ranks.local_rank() == 0
    root = Path.cwd()
    if name and first and world.rank:
        try:
            found = bring(name)
        except Exception as error:  # the others have to be told
            sys.stderr.write(f"warning: The checkpoint can't be downloaded: {type(error).__name__}: {error}\n")
    has_it = bool(found.files) or not first
    if not name or not world.allreduce(has_it, MPI.LAND):
        return attempt, Checkpoint()
    if first:
        attempts.lay(found, root)
    world.barrier()
    laid = root / RESUME_DIR / CHECKPOINT_FILE
    if not first and laid.is_file() and attempts.continues_by_option(script):
        found = Checkpoint({CHECKPOINT_FILE: laid})
    return attempt, found
