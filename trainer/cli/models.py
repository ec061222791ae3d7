"""``trainer models``, ``fetch`` and ``delete``."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.artifacts import ModelVersion, fetch, parse_model_reference
from trainer.cli.completers import deletable, model_references
from trainer.cli.context import backend_of, configured, is_study, open_run, store_of
from trainer.cli.parsing import Parser, add_backend, add_json, add_reference, complete_with
from trainer.console.output import facts, inline, measured, moment, note, number, print_json, say, size, table
from trainer.errors import NotFoundError, UsageError
from trainer.home import find_home

if TYPE_CHECKING:
    from trainer.records import ModelRef


def add_models(parser: Parser) -> None:
    """Declare ``trainer models``."""
    what = "List the versions of this model, or show one: NAME or NAME:VERSION."
    complete_with(parser.add_argument("name", metavar="NAME", nargs="?", help=what), model_references)
    _add_registry(parser)
    add_json(parser, "Print every version as JSON.")


def models_command(*, name: str | None, as_json: bool, **flags: Any) -> None:
    """List models, or the versions of one, or show one version."""
    name, wanted = (name, None) if name is None else parse_model_reference(name)
    home, config = configured(flags)
    store = backend_of(home, config).store()
    # The words with which the commands that are named below reach the same registry.
    words = [*(["--backend", config["backend"]] if config.is_flag("backend") else []), *config.registry_flags()]
    where = "".join(f" {shlex.quote(word)}" for word in words)
    versions = store.versions(name)
    for problem in store.damaged():
        note(f"{problem} To set it aside: trainer doctor --repair")
    if name is not None and not versions:
        raise NotFoundError(f"There is no model {name!r} in the {store.name} registry.", f"See: trainer models{where}")
    if wanted is not None:
        versions = [version for version in versions if version.version == wanted]
        if not versions:
            raise NotFoundError(
                f"There is no version {wanted} of {name!r} in the {store.name} registry.",
                f"See: trainer models {name}{where}",
            )
    if as_json:
        print_json(versions)
    elif wanted is not None:
        print_version(versions[0])
    elif not versions:
        other = "" if where else "    Of another registry: trainer models --backend NAME"
        note(f"No models in the {store.name} registry. Train one: trainer run{where}{other}")
    elif name is None:
        print_models(versions)
    else:
        print_versions(versions)


def add_fetch(parser: Parser) -> None:
    """Declare ``trainer fetch``."""
    what = "The model to fetch: NAME, NAME:VERSION, or an unambiguous beginning of a name; 'latest' is the newest."
    complete_with(parser.add_argument("model", metavar="MODEL", help=what), model_references)
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=Path,
        default=Path("model"),
        help="Write into this directory (default: ./model).",
    )
    parser.add_argument("--force", action="store_true", help="Replace a different file of the same name.")
    _add_registry(parser)
    add_json(parser)


def fetch_command(*, model: str, output: Path, force: bool, as_json: bool, **flags: Any) -> None:
    """Copy a model version into a directory."""
    fetched = fetch(store_of(flags), model, output, force=force)
    if as_json:
        print_json(fetched)
        return
    say(str(fetched.path))
    state = "fetched and verified" if fetched.written else "the same file is already there"
    note(f"{fetched.model.reference}: {state}, sha256 {fetched.model.sha256}")


def add_register(parser: Parser) -> None:
    """Declare ``trainer register``."""
    add_reference(parser, "whose outputs/model.npz is registered, or the study, for its best trial")
    parser.add_argument("--model-name", metavar="NAME", help="Name to register under (default: the run's own).")
    add_json(parser)


def register_command(*, reference: str, model_name: str | None, as_json: bool) -> None:
    """Register a run's model. A run that has been registered keeps its version."""
    from trainer.request import JobRequest  # for this command alone
    from trainer.tune.registration import register

    _, config = configured({"model_name": model_name})
    try:
        run = open_run(reference)
    except NotFoundError:
        if not is_study(reference):
            raise
        from trainer.cli.studies import register_study

        model, run_id = register_study(reference, model_name=config["model_name"])
        _say_registered(model, run_id, as_json=as_json)
        return
    run.info()
    unnamed = JobRequest(dataset=run.job.data.source if run.job.data else "auto")
    name = config["model_name"] or run.job.model_name or unnamed.named(Path(run.job.script)).model_name
    _say_registered(register(run.folder, run.backend, str(name)), run.run_id, as_json=as_json)


def _say_registered(model: ModelRef, run_id: str, *, as_json: bool) -> None:
    if as_json:
        print_json(model)
    else:
        note(f"{model.name}:{model.version} is run {run_id}'s, sha256 {model.sha256}")


def add_delete(parser: Parser) -> None:
    """Declare ``trainer delete``."""
    what = (
        "The model version to delete, with its number; or a run: its id, or an unambiguous beginning or end of it; or"
        " a study, by its id, with the runs of its trials."
    )
    complete_with(parser.add_argument("model", metavar="NAME:VERSION|RUN|STUDY", help=what), deletable)
    parser.add_argument("--force", action="store_true", help="Delete a run or study though its model is registered.")
    _add_registry(parser)
    add_json(parser)


def delete_command(*, model: str, force: bool, as_json: bool, **flags: Any) -> None:
    """Delete a model version, a run or a study. A version always has its number behind a colon; the others never."""
    name, version = parse_model_reference(model) if ":" in model else (model, None)
    if version is None and _names_a_run(model):
        from trainer.cli.tidy import delete_a_run

        delete_a_run(model, force=force, as_json=as_json)
        return
    if version is None and model.startswith("study-") and is_study(model):
        from trainer.cli.studies import delete_a_study

        delete_a_study(model, force=force, as_json=as_json)
        return
    if version is None:
        name, version = parse_model_reference(model)
    if model == "latest":
        raise UsageError("The newest run is deleted by its id only.", "See it: trainer runs --limit 1")
    if version is None:
        raise UsageError("Specify a version to delete.", f"For example: trainer delete {name}:1")
    store = store_of(flags)
    store.delete(name, version)
    if as_json:
        print_json({"name": name, "version": version, "deleted": True})
    else:
        done = "Archived" if store.only_archives else "Deleted"
        note(f"{done} {name}:{version}. The number {version} is not reused.")


def _names_a_run(reference: str) -> bool:
    """Whether it is a run that is meant: of the newest one only the id will do."""
    from trainer.findrun import find_run

    if reference == "latest":
        return False
    try:
        find_run(find_home().runs, reference)
    except NotFoundError:
        return False
    return True


def print_models(versions: list[ModelVersion]) -> None:
    """Print one line per model, for its newest version.

    Args:
        versions: By name, then rising version.
    """
    counts = Counter(version.name for version in versions)
    newest = {version.name: version for version in versions}
    rows = (
        (
            name,
            str(version.version),
            str(counts[name]),
            _accuracy(version),
            version.dataset or "",
            moment(version.created),
        )
        for name, version in newest.items()
    )
    head = ("MODEL", "LATEST", "VERSIONS", "ACCURACY", "DATA SET", "CREATED")
    table(head, rows, right=("LATEST", "VERSIONS", "ACCURACY"), drop=("DATA SET", "VERSIONS"))


def print_versions(versions: list[ModelVersion]) -> None:
    """Print one line per version, newest first."""
    rows = (
        (
            version.reference,
            _accuracy(version),
            version.dataset or "",
            size(version.size),
            version.sha256[:16],
            version.run_id,
            moment(version.created),
            " ".join(f"{name}={value}" for name, value in version.tags.items()),
        )
        for version in reversed(versions)
    )
    head = ("MODEL", "ACCURACY", "DATA SET", "SIZE", "SHA256", "RUN", "CREATED", "TAGS")
    table(head, rows, right=("ACCURACY", "SIZE"), drop=("SHA256", "SIZE", "DATA SET", "CREATED"))


def print_version(version: ModelVersion) -> None:
    """Print all that is recorded of one version."""
    listed = {
        "Metrics": "  ".join(f"{name} {measured(value)}" for name, value in version.metrics.items()),
        "Versions": "  ".join(f"{name} {value}" for name, value in version.versions.items()),
        "Tags": "  ".join(f"{name}={value}" for name, value in version.tags.items()),
    }
    pairs = [
        ("Model", version.reference),
        ("Created", moment(version.created)),
        ("Size", size(version.size)),
        ("SHA256", version.sha256),
        ("Run", f"{version.run_id} ({version.backend})"),
        ("Data set", version.dataset or "none"),
        ("Snapshot", f"sha256 {version.snapshot}"),
        *((label, value) for label, value in listed.items() if value),
    ]
    facts([(label, inline(value)) for label, value in pairs])


def _accuracy(version: ModelVersion) -> str:
    return number(version.metrics.get("Accuracy"))


def _add_registry(parser: Parser) -> None:
    add_backend(parser, "Whose registry", registry=True)
