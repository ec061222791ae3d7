"""One rank of an MPI job: adds up the ranks' numbers."""

import sys

from azureml.core.run import Run
from mpi4py import MPI

run = Run.get_context(allow_offline=False)
world = MPI.COMM_WORLD
total = world.allreduce(world.rank + 1)
print(f"rank {world.rank} of {world.size} total {total} arguments {sys.argv[1:]}", flush=True)
if world.rank == 0:
    run.log("Total", total)
