"""The device and the threads that a training script uses."""

from __future__ import annotations

import chainer

from trainer.runtime import devices, reporting, threads


def use_device(name: str = "auto", *, blas_threads: int | None = None) -> chainer.backend.Device:
    """Make a device the current one and limit BLAS's threads; say so, and record it with the run.

    Args:
        name: ``cpu``, ``cuda`` (the first usable GPU), ``cuda:N``, or ``auto`` (the first usable GPU, else
            the CPU).
        blas_threads: Threads of BLAS; None for what the environment says, else one.

    Raises:
        RuntimeFault: The device can't be used, or the environment's number of threads is none.
    """
    limited = threads.limit(blas_threads)
    selected = devices.select(name)
    device = chainer.get_device(selected.chainer_name)
    device.use()
    print(f"device: {selected.description}; BLAS threads: {limited}")  # noqa: T201  # the script's log
    reporting.record(device=selected.description, blas_threads=limited.count, blas_threads_from=limited.reason)
    return device
