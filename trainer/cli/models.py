"""``trainer models``, ``fetch`` and ``delete``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.cli.parsing import Parser, add_backend, add_json, complete_with

if TYPE_CHECKING:
    pass


def add_models(parser: Parser) -> None:
    """Declare ``trainer models``."""
    from trainer.cli.completion import model_names

    action = parser.add_argument("name", metavar="NAME", nargs="?", help="List the versions of this one.")
    complete_with(action, model_names)
    _add_registry(parser)
    add_json(parser, "Print every version as JSON.")


def add_fetch(parser: Parser) -> None:
    """Declare ``trainer fetch``."""
    add_model(parser, "to fetch")
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=Path,
        default=Path("model"),
        help="Into this directory (default: ./model).",
    )
    parser.add_argument("--force", action="store_true", help="Replace a different file that is there.")
    _add_registry(parser)
    add_json(parser)


def add_delete(parser: Parser) -> None:
    """Declare ``trainer delete``."""
    from trainer.cli.completion import model_references

    action = parser.add_argument("model", metavar="NAME:VERSION", help="The version to delete; its number is required.")
    complete_with(action, model_references)
    _add_registry(parser)
    add_json(parser)


def add_model(parser: Parser, doing: str) -> None:
    """Add the argument MODEL of a registry."""
    from trainer.cli.completion import model_references

    what = f"The model {doing}: NAME, NAME:VERSION, or an unambiguous beginning of a name; 'latest' is the newest."
    complete_with(parser.add_argument("model", metavar="MODEL", help=what), model_references)


def models_command(*, name: str | None, as_json: bool, **flags: Any) -> None:
    """List models, or the versions of one."""
    from trainer.cli.context import store_of
    from trainer.console.modellist import print_models, print_versions
    from trainer.console.output import note, print_json
    from trainer.errors import NotFoundError

    store = store_of(flags)
    versions = store.versions(name)
    if name is not None and not versions:
        raise NotFoundError(f"There is no model {name!r} in the {store.name} registry.", "See: trainer models")
    if as_json:
        print_json(versions)
    elif not versions:
        note(f"No models in the {store.name} registry. Train one: trainer run")
    elif name is None:
        print_models(versions)
    else:
        print_versions(versions)


def fetch_command(*, model: str, output: Path, force: bool, as_json: bool, **flags: Any) -> None:
    """Copy a model version into a directory."""
    from trainer.artifacts import fetch
    from trainer.cli.context import store_of
    from trainer.console.output import note, print_json, say

    fetched = fetch(store_of(flags), model, output, force=force)
    if as_json:
        print_json(fetched)
        return
    say(str(fetched.path))
    state = "fetched and checked" if fetched.written else "the same file was there already"
    note(f"{fetched.model.reference}: {state}, sha256 {fetched.model.sha256}")


def delete_command(*, model: str, as_json: bool, **flags: Any) -> None:
    """Delete a model version."""
    from trainer.artifacts import parse_model_reference
    from trainer.cli.context import store_of
    from trainer.console.output import note, print_json
    from trainer.errors import UsageError

    name, version = parse_model_reference(model)
    if version is None:
        raise UsageError("Which version is to be deleted?", f"Give its number: trainer delete {name}:1")
    store = store_of(flags)
    store.delete(name, version)
    if as_json:
        print_json({"name": name, "version": version, "deleted": True})
    else:
        note(f"Deleted {name}:{version}. The number {version} is not used again.")


def _add_registry(parser: Parser) -> None:
    add_backend(parser, "Whose registry", registry=True)
