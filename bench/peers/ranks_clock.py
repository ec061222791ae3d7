"""Times the epochs of a Trainer that several ranks run together."""

from __future__ import annotations

import json
import time
from typing import Any


def run(trainer: Any, comm: Any) -> None:  # noqa: ANN401  # of packages without types
    """Run a Trainer with a log, as one of several ranks; rank 0 prints what each epoch took.

    Args:
        trainer: A ``chainer.training.Trainer``.
        comm: The ranks' ``mpi4py.MPI.Comm``.
    """
    import numpy as np
    from chainer import training
    from chainer.training import extensions

    times = [(time.perf_counter(), time.process_time())]

    @training.make_extension(trigger=(1, "epoch"))  # type: ignore[untyped-decorator]
    def clock(_: training.Trainer) -> None:
        comm.barrier()
        times.append((time.perf_counter(), time.process_time()))

    trainer.extend(clock)
    if comm.rank == 0:
        trainer.extend(extensions.LogReport(filename=None))
    trainer.run()
    walls, cpus = (np.diff(column) for column in np.asarray(times).T)
    cpus = comm.allreduce(cpus)
    if comm.rank == 0:
        print(json.dumps({"wall": walls.tolist(), "cpu": cpus.tolist()}))
