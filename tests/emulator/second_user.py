"""Another user of the machine, who tries to get into an emulator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from azureml_emulator import Endpoint
from tests.emulator.clients import PROGRAMS, Http

SECOND_USER = 65534


def possible() -> bool:
    """Whether this process may become another user."""
    return os.geteuid() == 0


def open_way_to(folder: Path) -> None:
    """Let others get to a folder, if this user can: temporary folders are private."""
    for one in (folder, *folder.parents):
        if one.stat().st_uid == os.geteuid() and one.stat().st_mode & 0o005 != 0o005:
            one.chmod(0o755)


def try_everything(endpoint: Endpoint, run_id: str, folder: Path) -> dict[str, Any]:
    """Let the second user try.

    Args:
        endpoint: The emulator that he wants into.
        run_id: One of its runs.
        folder: Where he may read what an onlooker can know.

    Returns:
        ``uid``, how much was ``tried``, and what ``got in``.
    """
    known = {
        "state": str(endpoint.state_dir),
        "url": endpoint.url,
        "pid": endpoint.pid,
        "run": run_id,
        "blobs": [path.name for path in (endpoint.state_dir / "blobs").glob("*/*")],
        "workspace": Http(endpoint).workspace,
    }
    told, program = folder / "known.json", folder / "intruder.py"
    told.write_text(json.dumps(known))
    program.write_text((PROGRAMS / "intruder.py").read_text())
    for path in (told, program):
        path.chmod(0o644)
    tried = subprocess.run(
        # The system's interpreter: the one of the tests may be in a place that is not for others.
        [_interpreter_for_all(), "-I", str(program), str(told), str(SECOND_USER)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert tried.returncode == 0, tried.stdout + tried.stderr
    report: dict[str, Any] = json.loads(tried.stdout)
    return report


def _interpreter_for_all() -> str:
    places = ("/usr/bin/python3", "/usr/local/bin/python3")
    return next((path for path in places if Path(path).exists()), sys.executable)
