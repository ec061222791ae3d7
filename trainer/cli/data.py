"""``trainer data list``, ``download`` and ``verify``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trainer.cli.completers import datasets, known_datasets
from trainer.cli.parsing import Parser, add_json, complete_with
from trainer.console.download import DownloadProgress
from trainer.console.output import note, print_json, say, size, table, warn
from trainer.data import MIRRORS_VARIABLE, catalogue_status, download, verify


def add_data(parser: Parser) -> None:
    """Declare ``trainer data``."""
    actions = parser.add_subparsers(
        dest="action", metavar="ACTION", required=True, parser_class=Parser, title="actions"
    )
    summaries = {
        "list": "List the known data sets, and which are here.",
        "download": "Fetch a data set into the cache.",
        "verify": "Read every byte of a data set again, and compare it with its SHA-256.",
    }
    listing, download_parser, verify_parser = (
        actions.add_parser(word, summary=summary, prog=f"trainer data {word}", help=summary)
        for word, summary in summaries.items()
    )
    name = download_parser.add_argument("name", metavar="NAME", help="mnist, fashion-mnist or mnist-5k.")
    complete_with(name, known_datasets)
    name = verify_parser.add_argument("name", metavar="NAME", help="The name of a data set, or a directory.")
    complete_with(name, datasets)
    for action in (listing, download_parser, verify_parser):
        add_json(action)


def data_command(*, action: str, as_json: bool, **options: Any) -> int:
    """Run the action."""
    actions: dict[str, Callable[..., int]] = {"list": _list, "download": _download, "verify": _verify}
    return actions[action](as_json=as_json, **options)


def _list(*, as_json: bool) -> int:
    found = catalogue_status()
    if as_json:
        print_json(found)
        return 0
    rows = (
        (
            item.name,
            f"{item.train_count:,}",
            f"{item.test_count:,}",
            size(item.size) if item.cached else "-",
            item.directory if item.cached else "made when used" if item.made_here else "not here",
        )
        for item in found
    )
    table(("DATA SET", "TRAINING", "TEST", "SIZE", "WHERE"), rows, right=("TRAINING", "TEST", "SIZE"))
    if any(not item.cached and not item.mirrors and not item.made_here for item in found):
        note(f"{MIRRORS_VARIABLE}=off: nothing is downloaded.")
    for item in found:
        for fault in item.faults:
            warn(f"{item.name}: {fault} To repair it: trainer data download {item.name}")
    return 0


def _download(*, name: str, as_json: bool) -> int:
    state = download(name, DownloadProgress())
    if as_json:
        print_json(state)
    else:
        say(state.directory)
        note(f"{state.name} is in the cache, and verified.")
    return 0


def _verify(*, name: str, as_json: bool) -> int:
    report = verify(name)
    if as_json:
        print_json(report)
    else:
        rows = ((file.name, file.status, (file.sha256 or "")[:16], file.detail or "") for file in report.files)
        table(("FILE", "STATUS", "SHA256", "DETAIL"), rows)
        known = f": {report.known}" if report.known else ""
        verdict = f"All four files verified{known}." if report.ok else "Not all four files are valid."
        note(f"{report.directory}: {verdict}")
    return 0 if report.ok else 1
