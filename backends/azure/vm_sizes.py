"""Azure's VM sizes: the GPU of each, which are retired, their successors, and which CUDA fits.

Names, GPUs and retirement dates are from Azure's size and retirement pages (``sizes-gpu``, ``n-series-migration``,
``retired-sizes-list``, read as stored copies in 2026). NC6 to NC4as_T4_v3 is Microsoft's own mapping; the other
successors are the current size with at least as many GPUs of a newer generation. Azure adds sizes: one that is
missing here is used as the workspace describes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Literal

from trainer.errors import RefusedError

# The tutorial's size, which Azure retired in 2023. It stays the default so that a workspace which
# still has it is used as the tutorial says; anywhere else its successor is used, with a note.
DEFAULT_VM_SIZE = "Standard_NC6"

Cuda = Literal["11", "12"]


@dataclass(frozen=True)
class VMSize:
    """One VM size.

    Attributes:
        name: Azure's spelling; names compare without regard to case.
        gpu: The GPU's name, or None.
        gpus: How many it has.
        capability: CUDA compute capability, as (major, minor), or None.
        retired: When Azure retired it, or None.
        successor: The size to use instead, where retired.
        known: Whether its GPUs are known; else they are a guess.
    """

    name: str
    gpu: str | None = None
    gpus: int = 0
    capability: tuple[int, int] | None = None
    retired: date | None = None
    successor: str | None = None
    known: bool = True

    @property
    def cuda(self) -> Cuda | None:
        """The CUDA major version whose libraries and CuPy wheel run on the GPU, or None without one.

        CUDA 12's compiler and CuPy's CUDA 12 wheels begin at compute capability 5.0, so Kepler needs 11.
        """
        if self.gpus == 0:
            return None
        return "11" if self.capability is not None and self.capability < (5, 0) else "12"

    def __str__(self) -> str:
        what = f"{self.gpus} x {self.gpu or 'GPU'}" if self.gpus else "CPU"
        guess = f"hardware not known here, taken for {'one with a GPU' if self.gpus else 'one without a GPU'}"
        return f"{self.name} ({what if self.known else guess})"


def _gpu(
    gpu: str, capability: tuple[int, int], sizes: dict[str, int], retired: date | None = None, **successors: str
) -> list[VMSize]:
    """Make the sizes of a family, given its GPU and the number of GPUs by size."""
    return [
        VMSize(f"Standard_{name}", gpu, count, capability, retired, _full_name(successors.get(name)))
        for name, count in sizes.items()
    ]


def _full_name(name: str | None) -> str | None:
    return None if name is None else f"Standard_{name}"


_2023 = date(2023, 8, 31)
SIZES = (
    # Retired
    *_gpu(
        "NVIDIA K80", (3, 7), {"NC6": 1, "NC12": 2, "NC24": 4, "NC24r": 4}, _2023,
        NC6="NC4as_T4_v3", NC12="NC64as_T4_v3", NC24="NC64as_T4_v3", NC24r="NC64as_T4_v3",
    ),
    *_gpu(
        "NVIDIA M60", (5, 2), {"NV6": 1, "NV12": 2, "NV24": 4}, _2023,
        NV6="NC4as_T4_v3", NV12="NC64as_T4_v3", NV24="NC64as_T4_v3",
    ),
    *_gpu(
        "NVIDIA P100", (6, 0), {"NC6s_v2": 1, "NC12s_v2": 2, "NC24s_v2": 4, "NC24rs_v2": 4}, _2023,
        NC6s_v2="NC24ads_A100_v4", NC12s_v2="NC48ads_A100_v4", NC24s_v2="NC96ads_A100_v4",
        NC24rs_v2="NC96ads_A100_v4",
    ),
    *_gpu(
        "NVIDIA P40", (6, 1), {"ND6s": 1, "ND12s": 2, "ND24s": 4, "ND24rs": 4}, _2023,
        ND6s="NC24ads_A100_v4", ND12s="NC48ads_A100_v4", ND24s="NC96ads_A100_v4", ND24rs="NC96ads_A100_v4",
    ),
    *_gpu(
        "NVIDIA V100", (7, 0), {"NC6s_v3": 1, "NC12s_v3": 2, "NC24s_v3": 4, "NC24rs_v3": 4}, date(2025, 9, 30),
        NC6s_v3="NC24ads_A100_v4", NC12s_v3="NC48ads_A100_v4", NC24s_v3="NC96ads_A100_v4",
        NC24rs_v3="NC96ads_A100_v4",
    ),
    # Current
    *_gpu("NVIDIA T4", (7, 5), {"NC4as_T4_v3": 1, "NC8as_T4_v3": 1, "NC16as_T4_v3": 1, "NC64as_T4_v3": 4}),
    *_gpu("NVIDIA A100", (8, 0), {"NC24ads_A100_v4": 1, "NC48ads_A100_v4": 2, "NC96ads_A100_v4": 4}),
    *_gpu("NVIDIA A100", (8, 0), {"ND96asr_v4": 8, "ND96amsr_A100_v4": 8}),
    *_gpu("NVIDIA H100", (9, 0), {"NC40ads_H100_v5": 1, "NC80adis_H100_v5": 2, "ND96isr_H100_v5": 8}),
)  # fmt: skip
# Azure's names of the sizes of its other series, such as Standard_DS3_v2, Standard_E4-2s_v5 and Standard_HB120rs_v3.
_CPU = re.compile(r"Standard_[A-HLM][A-Z]{0,2}\d+[a-z0-9-]*(_v\d+)?", re.IGNORECASE)
_BY_NAME = {size.name.lower(): size for size in SIZES}


def look_up(name: str, gpus: int | None = None) -> VMSize:
    """Look up what is known of a size.

    Args:
        name: Its name, in any case.
        gpus: How many GPUs the workspace says it has, for a size that is missing here. Without it, Azure's rule
            decides: the N series has GPUs and no other has.
    """
    known = _BY_NAME.get(name.lower())
    if known is not None:
        return known
    if gpus is not None:
        return VMSize(name, gpus=gpus)
    return VMSize(name, gpus=int(name.lower().startswith("standard_n")), known=bool(_CPU.fullmatch(name)))


@dataclass(frozen=True)
class Choice:
    """The size to use.

    Attributes:
        size: The VM size.
        note: Why it is not the default, or None.
        low_priority: Whether Azure may take the cluster's nodes away.
    """

    size: VMSize
    note: str | None = None
    low_priority: bool = False


def choose(asked: str | None, offered: Iterable[tuple[str, int]] | None = None) -> Choice:
    """Choose the VM size of a new cluster.

    Args:
        asked: The size that the user gave, or None for the default.
        offered: Name and GPU count of what the workspace offers, or None if it was not asked.

    Raises:
        RefusedError: The user's size is retired or not offered, or nothing that could replace the default is.
    """
    on_offer = None if offered is None else {name.lower(): (name, gpus) for name, gpus in offered}
    if asked is not None:
        return Choice(_check_requested(asked, on_offer))
    default = look_up(DEFAULT_VM_SIZE)
    if on_offer is not None and default.name.lower() in on_offer:
        return Choice(default)
    successor = look_up(default.successor or default.name)
    for size in _successors(default):
        # An A100 costs far more than a T4: without being asked, only a size of the successor's own kind is chosen.
        alike = (size.gpu, size.gpus) == (successor.gpu, successor.gpus)
        if alike and (on_offer is None or size.name.lower() in on_offer):
            return Choice(size, f"{_unavailable_reason(default)} Using its successor {size} instead.")
    raise RefusedError(
        f"{_unavailable_reason(default)} This workspace doesn't offer its successor {successor} either.",
        _alternatives_hint(default, on_offer or {}),
    )


def _check_requested(asked: str, on_offer: dict[str, tuple[str, int]] | None) -> VMSize:
    name, gpus = (on_offer or {}).get(asked.lower(), (asked, None))
    size = look_up(name, gpus)
    if size.retired is not None:
        raise RefusedError(_unavailable_reason(size), f"Use its successor: --vm-size {_best_available(size, on_offer)}")
    if on_offer is not None and asked.lower() not in on_offer:
        raise RefusedError(f"This workspace doesn't offer the VM size {size.name}.", _alternatives_hint(size, on_offer))
    return size


def _unavailable_reason(size: VMSize) -> str:
    if size.retired is None:
        return f"This workspace doesn't offer the VM size {size.name}."
    return f"Azure retired the VM size {size} on {size.retired.isoformat()}."


def _successors(size: VMSize) -> list[VMSize]:
    """List what can replace a size, best first: Azure's successor, then current sizes with as many GPUs or more."""
    named = [look_up(size.successor)] if size.successor else []
    return named + [
        other
        for other in sorted(SIZES, key=lambda other: other.gpus)
        if other.retired is None and other.gpus >= size.gpus and other not in named
    ]


def _best_available(size: VMSize, on_offer: dict[str, tuple[str, int]] | None) -> str:
    fitting = [other.name for other in _successors(size) if on_offer is None or other.name.lower() in on_offer]
    return fitting[0] if fitting else (size.successor or DEFAULT_VM_SIZE)


def _alternatives_hint(size: VMSize, on_offer: dict[str, tuple[str, int]]) -> str:
    same_kind = [name for name, gpus in on_offer.values() if (gpus > 0) == (size.gpus > 0)]
    fitting = [other.name for other in _successors(size) if other.name.lower() in on_offer] if size.gpus else same_kind
    if fitting:
        return f"Use --vm-size {fitting[0]}" + (f"; also offered: {', '.join(fitting[1:4])}" if fitting[1:] else "")
    some = ", ".join(sorted(name for name, _ in on_offer.values())[:5])
    return f"Choose one that it offers with --vm-size, for example {some}." if some else "Ask for quota in the portal."
