"""``trainer data list``, ``download`` and ``verify``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trainer.cli.parsing import Parser, add_json, complete_with


def add_data(parser: Parser) -> None:
    """Declare ``trainer data``."""
    from trainer.cli.completion import datasets, known_datasets

    actions = parser.add_subparsers(
        dest="action", metavar="ACTION", required=True, parser_class=Parser, title="actions"
    )
    listing = actions.add_parser(
        "list",
        summary="List the known data sets, and which are here.",
        prog="trainer data list",
        help="List the known data sets, and which are here.",
    )
    download = actions.add_parser(
        "download",
        summary="Fetch a data set into the cache.",
        prog="trainer data download",
        help="Fetch a data set into the cache.",
    )
    verify = actions.add_parser(
        "verify",
        summary="Read every byte of a data set again.",
        prog="trainer data verify",
        help="Read every byte of a data set again.",
    )
    complete_with(
        download.add_argument("name", metavar="NAME", help="mnist, fashion-mnist or mnist-5k."), known_datasets
    )
    complete_with(verify.add_argument("name", metavar="NAME", help="A data set's name, or a directory."), datasets)
    for action in (listing, download, verify):
        add_json(action)


def data_command(*, action: str, as_json: bool, **options: Any) -> int:
    """Dispatch to the action."""
    actions: dict[str, Callable[..., int]] = {"list": _list, "download": _download, "verify": _verify}
    return actions[action](as_json=as_json, **options)


def _list(*, as_json: bool) -> int:
    from trainer.console.output import print_json, size, table, warn
    from trainer.data import catalogue_status

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
            item.directory if item.cached else "not here" if item.mirrors else "made when it is used",
        )
        for item in found
    )
    table(("DATA SET", "TRAINING", "TEST", "SIZE", "WHERE"), rows, right=("TRAINING", "TEST", "SIZE"))
    for item in found:
        for fault in item.faults:
            warn(f"{item.name}: {fault} Repair it: trainer data download {item.name}")
    return 0


def _download(*, name: str, as_json: bool) -> int:
    from trainer.console.download import DownloadProgress
    from trainer.console.output import note, print_json, say
    from trainer.data import download

    state = download(name, DownloadProgress())
    if as_json:
        print_json(state)
    else:
        say(state.directory)
        note(f"{state.name} is in the cache and verified.")
    return 0


def _verify(*, name: str, as_json: bool) -> int:
    from trainer.console.output import note, print_json, table
    from trainer.data import verify

    report = verify(name)
    if as_json:
        print_json(report)
    else:
        rows = ((file.name, file.status, (file.sha256 or "")[:16], file.detail or "") for file in report.files)
        table(("FILE", "STATUS", "SHA256", "DETAIL"), rows)
        known = f" These are the files of {report.known}." if report.known else ""
        note(f"{report.directory}: {'all four files are sound.' + known if report.ok else 'not sound.'}")
    return 0 if report.ok else 1
