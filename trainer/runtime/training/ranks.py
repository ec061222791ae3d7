"""Training by several ranks as by one: what an iterator, an updater and an evaluator ask of the others.

Every rank has the same parameters and the same order of examples, and takes its part of each batch. What a batch
gives, its gradients, loss and accuracy, are sums over the ranks weighted by the sizes of the parts, so that they are
those of the whole batch, to rounding, whatever the number of ranks.
"""

from __future__ import annotations

import zlib
from typing import Any

import chainer
import numpy as np

from trainer.runtime import ranks, reporting
from trainer.runtime.faults import RuntimeFault
from trainer.runtime.training.losses import Array

# The types that ChainerMN's communicators know too.
_IN_PLACE = (np.float32, np.float64)


class Ranks:
    """The ranks of this job.

    Attributes:
        rank: This process's number, from 0. Rank 0 reports, and writes what the job leaves.
        size: How many there are.
        joined: Whether an updater joins their gradients.

    Args:
        communicator: ChainerMN's; None for a process by itself.
    """

    def __init__(self, communicator: Any = None) -> None:  # noqa: ANN401  # ChainerMN has no types
        self._communicator = communicator
        self.rank = 0 if communicator is None else int(communicator.rank)
        self.size = 1 if communicator is None else int(communicator.size)
        self.joined = self.size == 1

    def part(self, indices: Array) -> Array:
        """Return this rank's part of a batch's indices; the parts differ by one example at most."""
        least, more = divmod(len(indices), self.size)
        start = self.rank * least + min(self.rank, more)
        return indices[start : start + least + (self.rank < more)]

    def sum(self, array: Array) -> Array:
        """Return the sum of an array over all ranks, the same bits on each.

        Args:
            array: Of one shape and type on all of them. From a GPU it goes by NCCL, or else, as numbers that are not
                floating point do, through this machine's memory.
        """
        if self._communicator is None:
            return array
        device = chainer.backend.get_device_from_array(array)
        if device.xp is not np and hasattr(self._communicator, "nccl_comm") and array.dtype.kind == "f":
            return self._sum_on_card(array, device.xp)
        sent = chainer.get_device("@numpy").send(array)
        return device.send(self._communicator.allreduce(sent))

    def sum_in_place(self, array: Array) -> None:
        """Make an array its sum over all ranks; without another array of that size where MPI can do so.

        Args:
            array: As for :meth:`sum`; contiguous.
        """
        if self._communicator is None:
            return
        if type(array) is np.ndarray and array.dtype in _IN_PLACE:
            from mpi4py import MPI

            self._communicator.mpi_comm.Allreduce(MPI.IN_PLACE, array)
        else:
            array[...] = self.sum(array)

    def _sum_on_card(self, array: Array, xp: Any) -> Array:  # noqa: ANN401  # CuPy
        """Do as ChainerMN's ``PureNcclCommunicator`` does with a buffer of gradients, but for the division."""
        from chainermn import nccl
        from chainermn.communicators._communication_utility import _get_nccl_type_id

        self._communicator._init_comms()
        sent = xp.ascontiguousarray(array)
        received = xp.empty_like(sent)
        kind, stream = _get_nccl_type_id(sent.dtype), xp.cuda.get_current_stream()
        self._communicator.nccl_comm.allReduce(
            sent.data.ptr, received.data.ptr, sent.size, kind, nccl.NCCL_SUM, stream.ptr
        )
        return received

    def give_parameters(self, link: chainer.Link) -> None:
        """Copy rank 0's parameters to the others, in place; those without a shape yet are left out."""
        if self._communicator is not None:
            for _, param in sorted(link.namedparams()):
                if param.is_initialized:
                    param.array[...] = self.sum(param.array if self.rank == 0 else param.xp.zeros_like(param.array))

    def require_same(self, link: chainer.Link) -> None:
        """Check that all ranks have the same parameters.

        Raises:
            RuntimeFault: They don't.
        """
        if self._communicator is None:
            return
        checksum = 0
        for _, param in sorted(link.namedparams()):
            checksum = zlib.crc32(chainer.get_device("@numpy").send(param.array).tobytes(), checksum)
        if len(set(self._communicator.allreduce_obj([checksum]))) > 1:  # the sum of lists is all of them
            raise RuntimeFault(
                "the ranks have different parameters", "draw every rank's weights with the same seed, from NumPy"
            )


class Join:
    """Makes gradients and observations of a whole batch from those of its parts, by one ``MPI_Allreduce``.

    Args:
        optimizer: Its target's parameters have their shapes.
        ranks: Each calls this object once per batch, with the same names of observations.
    """

    def __init__(self, optimizer: chainer.GradientMethod, ranks: Ranks) -> None:
        self._optimizer = optimizer
        self._ranks = ranks
        # In the order of FusedUpdate: where an element is may decide in which order several ranks add it up.
        self._params = list(optimizer.target.params())
        self._size = sum(param.size for param in self._params)
        self._dtype = np.result_type(*(param.dtype for param in self._params))
        self._own: Array | None = None

    def __call__(self, share: float, observed: dict[str, Any], gradients: Array | None = None) -> None:
        """Replace what this rank's part gave by what the batch gives.

        Args:
            share: This rank's part of the batch, from 0 to 1.
            observed: Means over the part; numbers, and arrays and variables of one element.
            gradients: Has the parameters' gradients already, and room for observations behind
                (:attr:`FusedUpdate.gradients`).
        """
        names = [name for name in sorted(observed) if _is_scalar(observed[name])]
        length = self._size + len(names)
        if gradients is not None and length <= len(gradients):
            flat = gradients[:length]
            self._sum(flat, share, observed, names)
            return
        self._optimizer.reallocate_cleared_grads()
        if self._own is None or len(self._own) != length:
            self._own = self._params[0].device.xp.empty(length, self._dtype)
        start = 0
        for param in self._params:
            self._own[start : start + param.size] = param.grad.ravel()
            start += param.size
        self._sum(self._own, share, observed, names)
        start = 0
        for param in self._params:
            param.grad[...] = self._own[start : start + param.size].reshape(param.shape)
            start += param.size

    def _sum(self, flat: Array, share: float, observed: dict[str, Any], names: list[str]) -> None:
        for at, name in enumerate(names, self._size):
            flat[at] = _bare(observed[name])
        flat *= share  # a Python number: the type stays
        self._ranks.sum_in_place(flat)
        for at, name in enumerate(names, self._size):
            observed[name] = flat[at].copy()


def _bare(value: Any) -> Any:  # noqa: ANN401
    return getattr(value, "array", value)


def _is_scalar(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, int | float) or getattr(_bare(value), "size", 0) == 1


def join_ranks(device: chainer.backend.Device | None = None) -> Ranks:
    """Return the ranks that ``mpiexec`` has started this process with; without it, this process alone.

    Args:
        device: What this rank trains on, in use already. The sums of GPUs go by NCCL where CuPy has it.

    Raises:
        RuntimeFault: There are several, and ChainerMN can't reach them.
    """
    count = ranks.size()
    if count == 1:
        return Ranks()
    try:
        import chainermn
        from chainermn import nccl

        on_card = device is not None and device.xp is not np
        name = "pure_nccl" if on_card and nccl._available else "naive"
        communicator = chainermn.create_communicator(name)
    except (ImportError, RuntimeError) as error:
        raise RuntimeFault(
            f"this is rank {ranks.rank()} of {count}, and ChainerMN can't be used: {error}",
            "pip install 'chainer-trainer[mpi]'",
        ) from error
    if communicator.size != count:
        raise RuntimeFault(
            f"mpiexec has started {count} ranks, and mpi4py sees {communicator.size}",
            "mpiexec and mpi4py use different MPI libraries: use the mpiexec that is beside this Python",
        )
    reporting.record(ranks=count, communicator=name)
    if on_card and name == "naive" and communicator.rank == 0:
        print("note: CuPy has no NCCL, so gradients go through this machine's memory: pip install nvidia-nccl-cu12")  # noqa: T201
    print(f"rank {communicator.rank} of {count}")  # noqa: T201  # the script's log
    return Ranks(communicator)
