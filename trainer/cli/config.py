"""``trainer config``."""

from __future__ import annotations

from typing import Any

from trainer.cli.context import configured
from trainer.cli.parsing import Parser, add_json
from trainer.config import config_files
from trainer.console.output import note, print_json, table


def add_config(parser: Parser) -> None:
    """Declare ``trainer config``."""
    parser.add_argument("--backend", metavar="NAME", help="Show this backend's settings (default: the configured one).")
    add_json(parser)


def config_command(*, as_json: bool, **flags: Any) -> None:
    """Show every setting and where it comes from."""
    home, config = configured(flags)
    files = [(str(path), path.exists()) for path, _ in config_files(home)]
    if as_json:
        settings = {name: {"value": value, "source": source} for name, (value, source) in config.values.items()}
        print_json({"home": home.path, "project": home.project, "files": dict(files), "settings": settings})
        return
    rows = (
        (name.replace("_", "-"), "-" if value is None else str(value), source)
        for name, (value, source) in config.values.items()
    )
    table(("SETTING", "VALUE", "FROM"), rows)
    note(f"Runs and models: {home.path}")
    for path, exists in files:
        note(f"{'Read' if exists else 'Not found'}: {path}")
