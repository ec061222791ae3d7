"""Which machine this is. A run on a machine belongs to it; others that share its folder only read.

Locks and process ids say whether a run's processes are alive, and mean something to their own kernel alone. Two
records name the same machine if the same kernel wrote them (the boot id is equal), or the same machine since a
restart (machine id and host name are equal; containers of one image share the former, renamed ones the latter).
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from trainer.records import Host, RunInfo

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_MACHINE = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


@functools.cache
def this_host() -> Host:
    """Return the machine that this process is on."""
    return Host(name=os.uname().nodename, machine=_digest(*_MACHINE), boot=_digest(_BOOT))


def is_here(host: Host | None) -> bool:
    """Whether a record's machine is this one. A record that names none, of an earlier version, counts as this one's."""
    if host is None:
        return True
    here = this_host()
    if host.boot and host.boot == here.boot:
        return True
    return (host.machine, host.name) == (here.machine, here.name)


def elsewhere(info: RunInfo) -> str:
    """Return the name of the other machine that an unfinished run is on; empty if it is on this one or has ended."""
    if info.status.terminal or info.host is None or is_here(info.host):
        return ""
    return info.host.name or "another machine"


def _digest(*paths: Path) -> str:
    import hashlib  # loads OpenSSL, and most commands meet no unfinished run

    for path in paths:
        try:
            text = path.read_text("utf-8", "replace").strip()
        except OSError:
            continue
        if text:
            # machine-id(5) asks applications not to show it as it is.
            return hashlib.sha256(f"trainer {text}".encode()).hexdigest()[:32]
    return ""
