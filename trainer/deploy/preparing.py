"""From what the command line says to a :class:`Deployment`, and what of it travels to a service elsewhere.

What travels is a folder, which becomes a part of the service's application folder::

    <source>/                            the user's score script and its neighbours, or the file of a network
    <source>/_trainer_job/score_script   the script's path in it; missing where the score script is ours
    <source>/_trainer_job/model.json     with ours: what is recorded of the model, its classes for one
    <source>/_trainer_job/network.json   with ours: how the network is built, where it is the user's own
    <source>/_trainer_job/trainer/       trainer.runtime with a script of the user's, the whole package with ours

The entry script is always one of ours. The user's is loaded by it when Chainer has been made to work.
"""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import msgspec

import trainer
from trainer.artifacts import RECORD_FILE, ArtifactStore, ModelVersion, find_model, parse_model_reference
from trainer.deploy.service import Deployment, check_service_name, service_name
from trainer.errors import UsageError
from trainer.home import Home
from trainer.modelfile import is_path
from trainer.modeluse.building import NOTHING_SAID, NetworkChoice, check_choice, split_model_file
from trainer.runtime.atomic import write_bytes
from trainer.runtime.layout import JOB_DIR, NETWORK_FILE, SCORE_SCRIPT_FILE
from trainer.snapshot import Snapshot, build_snapshot

ENTRY_OF_SCRIPT = f"{JOB_DIR}/trainer/runtime/score.py"
ENTRY_OF_OURS = f"{JOB_DIR}/trainer/serving/own_score.py"


def prepare(
    model: str,
    home: Home,
    *,
    name: str | None = None,
    script: Path | None = None,
    network: NetworkChoice = NOTHING_SAID,
) -> Deployment:
    """Check a deployment; nothing is written and nobody asked.

    Args:
        model: The model, as it was typed.
        home: Its files never travel.
        name: Of the service, or None.
        script: The user's score script, or None.
        network: What says how the network is built, where the model's record doesn't.

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
    check_choice(network, script)
    if script is not None:
        check_script(script)
    _check_network(network)
    return Deployment(model, name, script, network, exclude=(home.path,))


def check_script(path: Path) -> None:
    """Refuse what can't be a score script, before anything is built or uploaded for it.

    Raises:
        UsageError: It is no Python file, or defines no ``init`` or no ``run``.
    """
    if not path.is_file():
        raise UsageError(f"There is no score script {path}.", "Check the path.")
    names = _names_in(path)
    for wanted in ("init", "run"):
        if wanted not in names and "*" not in names:
            raise UsageError(
                f"{path} has no {wanted}().", "A score script has init(), called once, and run(data), per request."
            )


def _check_network(choice: NetworkChoice) -> None:
    """Refuse what can't build a network, before anything is built or uploaded for it."""
    if choice.where is None:
        return
    option = "--network" if choice.network is not None else "--model-file"
    path, name = split_model_file(choice.where, option)
    names = _names_in(path)
    if name not in names and "*" not in names:
        raise UsageError(f"{path} has no function {name!r}.", f"Give {option} the name of a function in it.")


def _names_in(path: Path) -> set[str]:
    """The names that a Python file gives a meaning to; errors as :func:`check_script`."""
    try:
        tree = ast.parse(path.read_bytes())
    except OSError as error:
        raise UsageError(f"Can't read {path}: {error.strerror}.", "Make it readable.") from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UsageError(f"{path}{line} is not Python: {reason}.", "Correct it.") from error
    return {name for node in ast.walk(tree) for name in _bound(node)}


def source_of(deployment: Deployment) -> tuple[Snapshot, str]:
    """Return what travels, and the path of the entry script in it.

    Raises:
        UsageError: A file can't be read or sent.
    """
    own = own_files(deployment)
    if deployment.script is not None:
        return own, ENTRY_OF_SCRIPT
    package = Path(trainer.__file__).resolve().parent
    modules = {f"{JOB_DIR}/trainer/{path.relative_to(package).as_posix()}": path for path in package.rglob("*.py")}
    made = Snapshot.of({file.path: file.source for file in own.files} | modules)
    return replace(made, ignore_file=own.ignore_file, notes=own.notes), ENTRY_OF_OURS


def own_files(deployment: Deployment) -> Snapshot:
    """Return what travels of the user's: a score script or a ``--model-file`` with its neighbours, or a network's file.

    The file of ``--network`` travels alone, as it does with a run.

    Raises:
        UsageError: A file can't be read or sent.
    """
    choice = deployment.network
    script = deployment.script or (None if choice.model_file is None else choice.file)
    if script is not None:
        return build_snapshot(script, exclude=deployment.exclude)
    return Snapshot.of({} if choice.file is None else {choice.file.name: choice.file})


def stage(deployment: Deployment, snapshot: Snapshot, folder: Path) -> None:
    """Write what travels into a folder, which is missing or empty.

    Raises:
        UsageError, ConfigError: As :meth:`trainer.snapshot.Snapshot.stage` does.
    """
    snapshot.stage(folder)
    job = folder / JOB_DIR
    if deployment.script is not None:
        write_bytes(job / SCORE_SCRIPT_FILE, deployment.script.name.encode("utf-8", "surrogateescape"))
        return
    if deployment.record is not None:
        write_bytes(job / RECORD_FILE, msgspec.json.encode(deployment.record))
    if deployment.network.where is not None:
        write_bytes(job / NETWORK_FILE, msgspec.json.encode(deployment.network.in_folder(Path())))


def resolved(deployment: Deployment, store: ArtifactStore) -> tuple[Deployment, ModelVersion]:
    """Return the deployment of the very version that is meant, under the name that the service gets, and the version.

    A network of the user's own that nothing was said of is the one that travelled with the version's run.

    Raises:
        NotFoundError: There is no such model, or the run with the network's file is not here.
    """
    version = find_model(store, deployment.model)
    network = deployment.network
    if version.network is not None and deployment.script is None and network.where is None:
        from trainer.modeluse.own_network import travelled_network

        network = NetworkChoice(network=travelled_network(version))
    name = deployment.name or service_name(version.name)
    return replace(deployment, model=version.reference, name=name, network=network, record=version), version


def _bound(node: ast.AST) -> list[str]:
    """The names that a statement or expression gives a meaning to; ``*`` for those that can't be known."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.alias):
        return [node.asname or node.name.partition(".")[0]]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return [node.id]
    return []
