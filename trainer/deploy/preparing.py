"""From what the command line says to a :class:`Deployment`, and what of it travels to a service elsewhere.

What travels is a folder, which becomes a part of the service's application folder::

    <source>/                            the user's score script and its neighbours
    <source>/_trainer_job/score_script   the script's path in it; missing where the score script is ours
    <source>/_trainer_job/trainer/       trainer.runtime with a script of the user's, the whole package with ours

The entry script is always one of ours. The user's is loaded by it when Chainer has been made to work.
"""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import trainer
from trainer.artifacts import ArtifactStore, ModelVersion, find_model, parse_model_reference
from trainer.deploy.service import Deployment, check_service_name, service_name
from trainer.errors import UsageError
from trainer.home import Home
from trainer.modelfile import is_path
from trainer.runtime.atomic import write_bytes
from trainer.runtime.layout import JOB_DIR, SCORE_SCRIPT_FILE
from trainer.snapshot import Snapshot, build_snapshot

ENTRY_OF_SCRIPT = f"{JOB_DIR}/trainer/runtime/score.py"
ENTRY_OF_OURS = f"{JOB_DIR}/trainer/serving/own_score.py"


def prepare(model: str, home: Home, *, name: str | None = None, script: Path | None = None) -> Deployment:
    """Check a deployment; nothing is written and nobody asked.

    Args:
        model: The model, as it was typed.
        home: Its files never travel.
        name: Of the service, or None.
        script: The user's score script, or None.

    Raises:
        UsageError: Something is unusable.
    """
    if is_path(model):
        raise UsageError(
            f"{model} is a file; a registered model is deployed.",
            f"Name one: trainer models. A file is served here by: trainer serve {model}",
        )
    if model != "latest":
        parse_model_reference(model)
    if name is not None:
        check_service_name(name)
    if script is not None:
        check_script(script)
    return Deployment(model, name, script, exclude=(home.path,))


def check_script(path: Path) -> None:
    """Refuse what can't be a score script, before anything is built or uploaded for it.

    Raises:
        UsageError: It is no Python file, or defines no ``init`` or no ``run``.
    """
    if not path.is_file():
        raise UsageError(f"There is no score script {path}.", "Check the path.")
    try:
        tree = ast.parse(path.read_bytes())
    except OSError as error:
        raise UsageError(f"Can't read {path}: {error.strerror}.", "Make it readable.") from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UsageError(f"{path}{line} is not Python: {reason}.", "Correct it.") from error
    names = {name for node in ast.walk(tree) for name in _bound(node)}
    for wanted in ("init", "run"):
        if wanted not in names and "*" not in names:
            raise UsageError(
                f"{path} has no {wanted}().", "A score script has init(), called once, and run(data), per request."
            )


def source_of(deployment: Deployment) -> tuple[Snapshot, str]:
    """Return what travels, and the path of the entry script in it.

    Raises:
        UsageError: A file can't be read or sent.
    """
    if deployment.script is not None:
        return build_snapshot(deployment.script, exclude=deployment.exclude), ENTRY_OF_SCRIPT
    package = Path(trainer.__file__).resolve().parent
    modules = {f"{JOB_DIR}/trainer/{path.relative_to(package).as_posix()}": path for path in package.rglob("*.py")}
    return Snapshot.of(modules), ENTRY_OF_OURS


def stage(deployment: Deployment, snapshot: Snapshot, folder: Path) -> None:
    """Write what travels into a folder, which is missing or empty.

    Raises:
        UsageError, ConfigError: As :meth:`trainer.snapshot.Snapshot.stage` does.
    """
    snapshot.stage(folder)
    if deployment.script is not None:
        write_bytes(folder / JOB_DIR / SCORE_SCRIPT_FILE, deployment.script.name.encode("utf-8", "surrogateescape"))


def resolved(deployment: Deployment, store: ArtifactStore) -> tuple[Deployment, ModelVersion]:
    """Return the deployment of the very version that is meant, under the name that the service gets, and the version.

    Raises:
        NotFoundError: There is no such model.
        UsageError: Our score script can't build its network.
    """
    version = find_model(store, deployment.model)
    if version.network is not None and deployment.script is None:
        raise UsageError(
            f"{version.reference} is of a network of its own, {version.network}, which our score script can't build.",
            "Give a score script that builds it: --script score.py",
        )
    name = deployment.name or service_name(version.name)
    return replace(deployment, model=version.reference, name=name), version


def _bound(node: ast.AST) -> list[str]:
    """The names that a statement or expression gives a meaning to; ``*`` for those that can't be known."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.alias):
        return [node.asname or node.name.partition(".")[0]]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return [node.id]
    return []
