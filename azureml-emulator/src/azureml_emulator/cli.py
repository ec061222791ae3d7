"""``python -m azureml_emulator``."""

# Printing is what a command is for.
# ruff: noqa: T201

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from azureml_emulator.endpoint import Endpoint, find
from azureml_emulator.errors import EmulatorError
from azureml_emulator.faults import Faults
from azureml_emulator.settings import Settings
from azureml_emulator.state import StateDir

NOT_PROVEN = """\
This emulator shows that a program and the real SDK make the right calls. It does not prove what Azure does:
  - sign-in, access control and quotas are not Azure's
  - images and conda environments are not built; jobs run with this Python on this machine, without Docker and
    without the VM size's GPU
  - answers have the shapes that the SDK accepts; they were not captured from Azure
  - sampling and early termination of HyperDrive, scheduling and log file names are the emulator's own
"""


def print_environment(endpoint: Endpoint) -> None:
    """Print the client's variables to stdout, for a shell's ``eval``."""
    for name, value in endpoint.env().items():
        print(f"export {name}={shlex.quote(value)}")
    sys.stdout.flush()


def serve(
    state_dir: str | os.PathLike[str],
    port: int = 0,
    print_env: bool = False,
    *,
    settings: Settings | None = None,
    faults: Faults | None = None,
) -> None:
    """Serve a state directory in the foreground, until interrupted.

    With ``print_env``, the client's variables go to stdout; if an emulator is serving this state already, that is all
    that happens.

    Raises:
        EmulatorError: Another emulator serves this state, or the port is taken.
    """
    running = find(state_dir) if print_env else None
    if running is not None:
        print_environment(running)
        return
    from azureml_emulator.server import run_server

    state = StateDir.at(state_dir)

    def announce() -> None:
        endpoint = find_ready(state)
        print(f"Azure ML emulator at {endpoint.url}, state in {state.root}", file=sys.stderr)
        print(NOT_PROVEN, file=sys.stderr, flush=True)
        if print_env:
            print_environment(endpoint)

    run_server(state, port, settings or Settings(), faults, announce)


def find_ready(state: StateDir) -> Endpoint:
    """The endpoint of this very process, which can't answer itself while it is starting."""
    from azureml_emulator.endpoint import EndpointFile

    return Endpoint(state.root, EndpointFile.model_validate_json(state.endpoint.read_bytes()))


def main(arguments: list[str] | None = None) -> int:
    """Entry point. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m azureml_emulator",
        description="A loopback Azure ML service for the unmodified SDK v1.",
        epilog=NOT_PROVEN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--state", type=Path, required=True, help="directory of its state; made if it is not there")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: the last one, or any)")
    parser.add_argument("--print-env", action="store_true", help="print the client's variables, for eval")
    parser.add_argument("--settings", default="{}", metavar="JSON", help="fields of azureml_emulator.Settings")
    parser.add_argument("--faults", default="{}", metavar="JSON", help="fields of azureml_emulator.Faults")
    options = parser.parse_args(arguments)
    try:
        settings = Settings.model_validate_json(options.settings)
        faults = Faults.model_validate_json(options.faults)
    except ValueError as error:
        parser.error(str(error))
    try:
        serve(options.state, options.port, options.print_env, settings=settings, faults=faults)
    except EmulatorError as error:
        print(f"error: {error.message}\n{error.hint}".rstrip(), file=sys.stderr)
        return 4
    except KeyboardInterrupt:
        return 130
    return 0
