"""Runs on the target ``local``: the service prepares them, and the client starts them.

The SDK asks for an archive with ``azureml-setup/Invocation.sh``, unpacks it beside a copy of the project in the
machine's temporary folder, and starts that script in the background. What it starts here is the same supervisor that
watches over the jobs of clusters, so such a run is followed, cancelled and collected as they are. The script holds no
token: it lies where everybody can read it.
"""

from __future__ import annotations

import io
import shlex
import sys
import zipfile

from azureml_emulator.jobs.process import SUPERVISOR, Attempt

TARGET = "local"
SCRIPT = "azureml-setup/Invocation.sh"


def invocation(attempt: Attempt) -> bytes:
    """Return the archive that starts an attempt which is prepared.

    The project is copied into the attempt's own directory: the temporary folder is no place to leave results in.
    """
    supervisor = shlex.join([sys.executable, "-I", str(SUPERVISOR), str(attempt.spec)])
    lines = (
        "#!/bin/bash",
        "umask 077",
        f"cp -R ./. {shlex.quote(str(attempt.work))}/",
        f"cd {shlex.quote(str(attempt.directory))}",
        f"exec {supervisor} >> supervisor.log 2>&1 < /dev/null",
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(SCRIPT, "\n".join(lines) + "\n")
    return packed.getvalue()
