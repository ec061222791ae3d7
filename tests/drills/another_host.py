"""Another machine that shares the folder of runs: its own name, boot, machine id and processes, and no lock of ours.

Made of Linux namespaces. Everything in the folder is shared but the locks of its runs: other files are mounted over
them, so that they look free, as they do where a file system carries no locks between machines.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

_NAMESPACES = ("unshare", "--map-root-user", "--mount", "--uts", "--pid", "--fork", "--mount-proc")
_BECOME = """
set -e
hostname "$1"
echo "boot of $1" > "$2/id"
mount --bind "$2/id" /proc/sys/kernel/random/boot_id
if [ -e /etc/machine-id ]; then mount --bind "$2/id" /etc/machine-id; fi
for lock in "$3"/runs/*/.*.lock; do
    [ -e "$lock" ] || continue
    mine="$2/$(echo "$lock" | tr / _)"
    : > "$mine"
    mount --bind "$mine" "$lock"
done
shift 3
exec "$@"
"""


@functools.cache
def possible() -> bool:
    """Whether this system lets us make one."""
    if not shutil.which("unshare"):
        return False
    trial = "hostname trial && mount --bind /dev/null /proc/sys/kernel/random/boot_id"
    done = subprocess.run([*_NAMESPACES, "sh", "-c", trial], capture_output=True, check=False)
    return done.returncode == 0


def run_there(
    command: Sequence[str | Path], home: Path, scratch: Path, name: str = "second-host"
) -> subprocess.CompletedProcess[str]:
    """Run a command on the other machine.

    Args:
        command: The command line.
        home: The folder that is shared, ``.trainer/``.
        scratch: An empty directory for what is mounted.
        name: Its host name.
    """
    return subprocess.run(
        [*_NAMESPACES, "sh", "-c", _BECOME, "sh", name, scratch, home, *command],
        capture_output=True,
        text=True,
        env={**os.environ, "TRAINER_HOME": str(home), "TRAINER_DATA_MIRRORS": "off"},
        stdin=subprocess.DEVNULL,
        check=False,
    )
