"""Runs ``trainer`` with the SDK's telemetry switched on in its file, and prints what is looked up or connected to.

The file is read through a wrapper of ``open``: the environment's own stays as it is for other tests.
"""

import builtins
import io
import sys
from typing import Any

seen: set[str] = set()
read: list[str] = []
really_open = builtins.open


def record(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        seen.add(str(arguments[0]))
    elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        seen.add(str(arguments[1][0]))


def flipped(file: Any, *arguments: Any, **named: Any) -> Any:
    if str(file).endswith("azureml/telemetry/telemetry.json"):
        read.append(str(file))
        return io.StringIO('{"send_diagnostics": true, "diagnostics_verbosity": "DEBUG", "azureml.dataset": true}')
    return really_open(file, *arguments, **named)


sys.addaudithook(record)
builtins.open = flipped  # type: ignore[assignment]

if sys.argv[1:2] == ["--script"]:
    from trainer.runtime.launch import main as run
else:
    from trainer.cli import main as run  # type: ignore[assignment]

code = run(sys.argv[2:] if sys.argv[1:2] == ["--script"] else sys.argv[1:])
print("exit:", code, file=sys.stderr)
print("asked:", *sorted(seen), file=sys.stderr)
print("read:", len(read), file=sys.stderr)
