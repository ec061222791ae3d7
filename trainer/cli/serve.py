"""``trainer serve``."""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from trainer.cli.completers import model_files
from trainer.cli.context import backend_of, configured
from trainer.cli.networks import add_network
from trainer.cli.parsing import Parser, add_backend, complete_with
from trainer.console.output import inline, note, size
from trainer.errors import UsageError
from trainer.serving.settings import BODY_MAX, MODEL_PORT, ServeSettings, check, check_installed

_KEY_FILE = "serving/key"


def add_serve(parser: Parser) -> None:
    """Declare ``trainer serve``."""
    what = "The model: NAME, NAME:VERSION, an unambiguous beginning of a name, 'latest', or a file."
    complete_with(parser.add_argument("model", metavar="MODEL", help=what), model_files)
    parser.add_argument(
        "--script", metavar="FILE", type=Path, help="An Azure ML score script, with init() and run(data)."
    )
    add_network(parser)
    parser.add_argument(
        "--port", metavar="N", type=int, default=MODEL_PORT, help=f"Listen on this port (default: {MODEL_PORT})."
    )
    parser.add_argument(
        "--host", metavar="ADDRESS", default="127.0.0.1", help="Listen on this address (default: 127.0.0.1)."
    )
    parser.add_argument("--workers", metavar="N", type=int, default=1, help="Number of processes (default: 1).")
    parser.add_argument("--no-key", action="store_true", help="Ask for no key; only on an address of this machine.")
    parser.add_argument(
        "--max-body",
        metavar="MB",
        type=int,
        default=BODY_MAX >> 20,
        help=f"Largest body of a request in MiB (default: {BODY_MAX >> 20}).",
    )
    parser.add_argument("--no-log", action="store_true", help="Don't print a line per request.")
    add_backend(parser, "Whose registry", registry=True)
    parser.epilog = "trainer docs serving describes bodies, answers and keys."


def serve_command(
    *,
    model: str,
    script: Path | None,
    model_file: str | None,
    input_shape: tuple[int, ...],
    network: str | None,
    port: int,
    host: str,
    workers: int,
    no_key: bool,
    max_body: int,
    no_log: bool,
    **flags: Any,
) -> None:
    """Serve until Ctrl-C."""
    home, config = configured(flags)
    key_file = None if no_key else home.path / _KEY_FILE
    if not 1 <= max_body <= 1024:
        raise UsageError("--max-body must be from 1 to 1024.", "It is in MiB.")
    settings = check(
        ServeSettings(
            host=host,
            port=port,
            workers=workers,
            script=script,
            model_file=model_file,
            input_shape=input_shape,
            network=network,
            key_file=key_file,
            body_max=max_body << 20,
            log_requests=not no_log,
            name=model,
        )
    )
    check_installed("trainer serve")
    from trainer.serving.keys import ensure_keys
    from trainer.serving.running import serve

    if key_file is not None:
        ensure_keys(key_file)
    with tempfile.TemporaryDirectory(prefix="trainer-serve-") as scratch:
        serve(settings, model, backend_of(home, config), Path(scratch), note, _announce(settings))


def _announce(settings: ServeSettings) -> Any:  # noqa: ANN401  # a function of three texts
    """Return what is printed when the model can be used."""

    def announce(url: str, label: str, about: str) -> None:
        note(f"Serving {inline(label)} ({inline(about)}) at {url}")
        header = ""
        if settings.key_file is not None:
            key = shlex.quote(str(_short(settings.key_file)))
            header = f'-H "Authorization: Bearer $(head -1 {key})" '
            note(f"  key    {key}, which only you can read")
        if settings.script is None:
            note(f"  try    curl {header}--data-binary @picture.png {url}/score")
            note(f"  page   {url}/{_fragment(settings)}")
        else:
            note(f"  try    curl {header}-H 'Content-Type: application/json' -d '{{}}' {url}/score")
        note(f"  also   {url}/ready, /metrics, /swagger.json")
        note(f"  takes  bodies up to {size(settings.body_max)}. Ctrl-C stops it.")

    return announce


def _fragment(settings: ServeSettings) -> str:
    """The key for the page's address. A terminal's user sees it, a log that is kept doesn't."""
    from trainer.serving.keys import read_keys

    if settings.key_file is None or not sys.stderr.isatty():
        return ""
    return f"#key={read_keys(settings.key_file)[0]}"


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
