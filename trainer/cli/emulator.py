"""``trainer emulator``: the one place that starts the loopback Azure ML service."""

from __future__ import annotations

from pathlib import Path

from trainer.cli.parsing import Parser
from trainer.errors import MissingExtraError, RefusedError, UsageError
from trainer.home import find_home
from trainer.runtime.compat import SITE
from trainer.serving.settings import SCORING_SERVER


def add_emulator(parser: Parser) -> None:
    """Declare ``trainer emulator``."""
    parser.add_argument(
        "--port",
        metavar="N",
        type=int,
        default=0,
        help="Listen on this port (default: the one used last, or a free one).",
    )
    parser.add_argument(
        "--state", metavar="DIR", type=Path, help="Keep everything in this directory (default: .trainer/emulator)."
    )
    parser.add_argument(
        "--print-env",
        action="store_true",
        help="Print the variables with which programs of either SDK use it; start it in the background if need be.",
    )
    parser.add_argument(
        "--offer-retired-sizes",
        action="store_true",
        help="Also offer VM sizes that Azure has retired, such as the STANDARD_NC6 of older articles.",
    )


def emulator_command(*, port: int, state: Path | None, print_env: bool, offer_retired_sizes: bool) -> None:
    """Serve until Ctrl-C, or print the variables of one that serves.

    Its jobs get the layer that makes Chainer run with today's NumPy, as the image for Azure ML has it: a plain script
    that the SDK sends would stop at ``import chainer``. Score scripts are served as `trainer serve` does.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"--port must be from 0 to 65535 (got {port}).", "Leave it out for a free one.")
    try:
        from azureml_emulator import EmulatorError, Settings, serve
    except ImportError as error:
        raise MissingExtraError(f"The emulator ({error.name})", "emulator") from error
    try:
        settings = Settings(job_site=SITE, scoring_server=SCORING_SERVER)
        if offer_retired_sizes:
            settings = settings.model_copy(update={"offer_retired_sizes": True})
        serve((state or find_home().path / "emulator").resolve(), port, print_env, settings=settings)
    except EmulatorError as error:
        raise RefusedError(error.message, error.hint) from error
