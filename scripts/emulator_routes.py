"""Write the table of routes in docs/emulator.md from the emulator's own route table.

Usage: python scripts/emulator_routes.py [--check]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fastapi.routing import APIRoute

from azureml_emulator.api.common import WORKSPACE
from azureml_emulator.app import ROUTERS

V2 = "azureml_emulator.api.v2."
PAGE = Path(__file__).parents[1] / "docs" / "emulator.md"
BEGIN, END = "<!-- routes: begin -->", "<!-- routes: end -->"


def table() -> str:
    """The table, in Markdown, one section for each router.

    A route's summary says which calls of SDK v1 use it, its description which of SDK v2. The routes of ``api.v2`` are
    v2's alone, so there the summary is enough.
    """
    lines: list[str] = []
    for router in ROUTERS:
        lines += ["", f"#### {router.tags[0]}", "", "| Method | Path | SDK v1 | SDK v2 |", "| --- | --- | --- | --- |"]
        for route in router.routes:
            assert isinstance(route, APIRoute)
            assert route.summary or route.description, f"{route.path} does not say who uses it"
            methods = ", ".join(sorted(route.methods or ()))
            path = route.path.replace(WORKSPACE, "<WS>").replace(":blobcontainer", "")
            is_of_v2 = route.endpoint.__module__.startswith(V2)
            used = ("", route.summary) if is_of_v2 else (route.summary or "", route.description)
            lines.append(f"| {methods} | `{path}` | {used[0]} | {used[1]} |")
    return "\n".join(lines) + "\n\n"


def render(page: str) -> str:
    """The page with a current table.

    Raises:
        ValueError: The page lacks the marks between which the table belongs.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE.name} lacks {BEGIN} or {END}.")
    return f"{head}{BEGIN}\n{table()}{END}{tail}"


def main() -> int:
    """Entry point. Returns 1 if ``--check`` finds the page out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; say whether the page is current")
    check = parser.parse_args().check
    page = PAGE.read_text()
    current = render(page)
    if check and current != page:
        print(f"{PAGE.name} is out of date; run python scripts/emulator_routes.py", file=sys.stderr)
        return 1
    if not check:
        PAGE.write_text(current)
    return 0


if __name__ == "__main__":
    sys.exit(main())
