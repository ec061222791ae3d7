"""``azureml-emulator``, or ``python -m azureml_emulator``."""

# Printing is what a command is for.
# ruff: noqa: T201

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from azureml_emulator.background import start_in_background
from azureml_emulator.endpoint import Endpoint, EndpointFile, find
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


IDLE_EXIT = 3600.0
"""Seconds without a request or a job after which an emulator ends that ``--print-env`` has started."""


def serve(
    state_dir: str | os.PathLike[str],
    port: int = 0,
    print_env: bool = False,
    *,
    settings: Settings | None = None,
    faults: Faults | None = None,
) -> None:
    """Serve a state directory in the foreground, until interrupted.

    With ``print_env``, print the client's variables to stdout instead, for a shell's ``eval``: those of the emulator
    that serves this state already, or else of one that is started in the background.

    Raises:
        EmulatorError: Another emulator serves this state, or the port is taken.
    """
    settings = settings or Settings()
    if print_env:
        asked = settings.model_dump(mode="json", exclude_unset=True)
        if "idle_exit" not in settings.model_fields_set:
            settings = settings.model_copy(update={"idle_exit": IDLE_EXIT})
        endpoint = start_in_background(state_dir, port, settings=settings, faults=faults)
        _check_settings(endpoint, asked)
        _print_environment(endpoint)
        return
    from azureml_emulator.server import run_server

    state = StateDir.at(state_dir)

    def announce() -> None:
        # Not by find(): this process can't answer itself yet.
        url = EndpointFile.model_validate_json(state.endpoint.read_bytes()).url
        print(f"Azure ML emulator at {url}, state in {state.root}", file=sys.stderr)
        print(NOT_PROVEN, file=sys.stderr, flush=True)

    run_server(state, port, settings, faults, announce)


def _check_settings(endpoint: Endpoint, asked: dict[str, object]) -> None:
    has = endpoint.settings.model_dump(mode="json")
    other = sorted(name for name, value in asked.items() if has[name] != value)
    if other:
        raise EmulatorError(
            f"The emulator that serves {endpoint.state_dir} was started with another {', '.join(other)}.",
            f"Stop it first: azureml-emulator --state {shlex.quote(str(endpoint.state_dir))} --stop",
        )


def _print_environment(endpoint: Endpoint) -> None:
    for name, value in endpoint.env().items():
        print(f"export {name}={shlex.quote(value)}")
    sys.stdout.flush()
    print(f"Azure ML emulator at {endpoint.url}, state in {endpoint.state_dir}", file=sys.stderr)
    print(NOT_PROVEN, file=sys.stderr, flush=True)


def _stop(state: Path) -> None:
    endpoint = find(state)
    if endpoint is None:
        print(f"No emulator serves {state}.", file=sys.stderr)
        return
    endpoint.stop(kill_jobs=True)
    print(f"Stopped the emulator at {endpoint.url}.", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Entry point. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="azureml-emulator",
        description="A loopback Azure ML service for the unmodified SDK v1 and v2.",
        epilog=NOT_PROVEN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--state", type=Path, required=True, help="directory of its state; made if it is not there")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: the last one, or any)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--print-env",
        action="store_true",
        help="print the client's variables, for eval; start an emulator in the background if none serves the state",
    )
    instead.add_argument("--stop", action="store_true", help="stop the emulator that serves the state, and its jobs")
    parser.add_argument(
        "--offer-retired-sizes",
        action="store_true",
        help="also offer VM sizes that Azure has retired, such as the STANDARD_NC6 of older articles",
    )
    parser.add_argument("--settings", default="{}", metavar="JSON", help="fields of azureml_emulator.Settings")
    parser.add_argument("--faults", default="{}", metavar="JSON", help="fields of azureml_emulator.Faults")
    options = parser.parse_args(arguments)
    try:
        settings = Settings.model_validate_json(options.settings)
        if options.offer_retired_sizes:
            settings = settings.model_copy(update={"offer_retired_sizes": True})
        faults = Faults.model_validate_json(options.faults)
    except ValueError as error:
        parser.error(str(error))
    try:
        if options.stop:
            _stop(options.state)
            return 0
        serve(options.state, options.port, options.print_env, settings=settings, faults=faults)
    except EmulatorError as error:
        print(f"error: {error.message}\n{error.hint}".rstrip(), file=sys.stderr)
        return 4
    except KeyboardInterrupt:
        return 130
    return 0
