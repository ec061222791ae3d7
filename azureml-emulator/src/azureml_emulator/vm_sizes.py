"""VM sizes that the emulator's workspace offers.

A small sample of Azure's list, with the figures of Azure's own size tables. Nothing is scaled to them: a job gets the
machine that the emulator runs on.
"""

from __future__ import annotations

from azureml_emulator.wire.compute import VmSize


def _size(name: str, cpus: int, gpus: int, memory: float, disk_mib: int) -> VmSize:
    return VmSize(name=name, vCPUs=cpus, gpus=gpus, memoryGB=memory, maxResourceVolumeMB=disk_mib)


CURRENT = (
    _size("Standard_DS2_v2", 2, 0, 7.0, 14336),
    _size("Standard_DS3_v2", 4, 0, 14.0, 28672),
    _size("Standard_DS11_v2", 2, 0, 14.0, 28672),
    _size("Standard_DS12_v2", 4, 0, 28.0, 57344),
    _size("Standard_NC4as_T4_v3", 4, 1, 28.0, 180224),
    _size("Standard_NC8as_T4_v3", 8, 1, 56.0, 360448),
    _size("Standard_NC24ads_A100_v4", 24, 1, 220.0, 65536),
    _size("Standard_NC40ads_H100_v5", 40, 1, 320.0, 131072),
)

RETIRED = (
    _size("Standard_NC6", 6, 1, 56.0, 389120),
    _size("Standard_NC12", 12, 2, 112.0, 696320),
)


def offered_sizes(*, retired: bool, without: list[str]) -> list[VmSize]:
    """The sizes on offer: today's, the retired ones if asked for, less ``without`` (any case)."""
    left_out = {name.lower() for name in without}
    return [size for size in CURRENT + (RETIRED if retired else ()) if size.name.lower() not in left_out]
