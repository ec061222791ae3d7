"""``trainer doctor`` and ``config``."""

from __future__ import annotations

from typing import Any

from trainer.cli.parsing import Parser, add_json


def add_doctor(parser: Parser) -> None:
    """Declare ``trainer doctor``."""
    parser.epilog = "Exit code 0 if training works here, else 3."
    add_json(parser)


def add_config(parser: Parser) -> None:
    """Declare ``trainer config``."""
    parser.add_argument("--backend", metavar="NAME", help="For this backend (default: the configured one).")
    add_json(parser)


def doctor_command(*, as_json: bool) -> int:
    """Examine this machine."""
    from trainer.console.findings import print_report
    from trainer.console.output import print_json
    from trainer.doctor import examine
    from trainer.home import find_home

    report = examine(find_home())
    if as_json:
        print_json(report)
    else:
        print_report(report)
    return 0 if report.works else 3


def config_command(*, as_json: bool, **flags: Any) -> None:
    """Show every setting and where it is from."""
    from trainer.cli.context import configured
    from trainer.config import config_files
    from trainer.console.output import note, print_json, table

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
        note(f"{'Read' if exists else 'Would be read'}: {path}")
