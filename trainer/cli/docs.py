"""``trainer docs``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import trainer
from trainer.cli.parsing import Parser, add_json, closest, complete_with
from trainer.console.output import print_json, say, table
from trainer.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


def add_docs(parser: Parser) -> None:
    """Declare ``trainer docs``."""
    complete_with(
        parser.add_argument("page", metavar="PAGE", nargs="?", help="The page (default: list the pages)."),
        lambda **_: list(pages()),
    )
    add_json(parser)


def docs_command(*, page: str | None, as_json: bool) -> None:
    """Print a page, as the Markdown that it is written in, or list the pages."""
    known = pages()
    if page is None:
        rows = [(name, _title(path), str(path)) for name, path in known.items()]
        if as_json:
            print_json([{"page": name, "title": title, "path": path} for name, title, path in rows])
        else:
            table(("PAGE", "ABOUT"), [row[:2] for row in rows])
        return
    name = page.removeprefix("docs/").removesuffix(".md")
    if name not in known:
        near = closest(name, known)
        raise UsageError(
            f"There is no page {page!r}.", f"Did you mean: trainer docs {near}?" if near else "See: trainer docs"
        )
    text = known[name].read_text(encoding="utf-8")
    if as_json:
        print_json({"page": name, "title": _title(known[name]), "path": str(known[name]), "text": text})
    else:
        say(text.rstrip())


def pages() -> Mapping[str, Path]:
    """The pages by name. An installed wheel has them inside the package, a clone beside it.

    Raises:
        NotFoundError: They were not installed.
    """
    package = Path(trainer.__file__).resolve().parent
    for folder in (package / "docs", package.parent / "docs"):
        if (folder / "cli.md").is_file():
            return {path.stem: path for path in sorted(folder.glob("*.md"))}
    raise NotFoundError("The documentation was not installed.", "Install trainer again.")


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as lines:
        return next((line.removeprefix("# ").strip() for line in lines if line.startswith("# ")), path.stem)
