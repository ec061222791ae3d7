"""A network of the user's own is tried here before anything is sent or started: built, and given the model's weights.

What is tried is what travels, in a process of its own: the score script, the model's record and the network's file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from trainer.artifacts import ArtifactStore, fetch
from trainer.deploy.preparing import ENTRY_OF_OURS, source_of, stage
from trainer.deploy.service import Deployment, Tell
from trainer.errors import MissingExtraError, UsageError
from trainer.runtime.versions import installed_version

_LOADED = ("", "")
_TAIL = 20


def try_network(deployment: Deployment, store: ArtifactStore, tell: Tell) -> None:
    """Load the model as the service will; of a score script of the user's, and of the network we know, nothing is done.

    Args:
        deployment: As :func:`trainer.deploy.preparing.resolved` returns it.
        store: Where the model is.
        tell: Is told of it.

    Raises:
        MissingExtraError: Chainer is not installed here.
        UsageError: The network can't be built, or is not that of the model.
    """
    file = deployment.network.file
    if deployment.script is not None or file is None:
        return
    if installed_version("chainer") is None:
        raise MissingExtraError("Deploying a network of your own (chainer)", "chainer")
    tell(f"Trying {deployment.network.name} with {deployment.model} here first.")
    with tempfile.TemporaryDirectory(prefix="trainer-deploy-") as scratch:
        source, model = Path(scratch).resolve() / "source", Path(scratch, "model")
        stage(deployment, source_of(deployment)[0], source)
        fetch(store, deployment.model, model)
        ended = subprocess.run(
            # Not with the entry script's folder on the path, whose modules would hide the user's.
            [sys.executable, "-P", "-B", str(source / ENTRY_OF_OURS)],
            cwd=source,
            env=os.environ | {"AZUREML_MODEL_DIR": str(model)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,  # a terminal's Ctrl-C is ours, which ends it
            check=False,
        )
        report = _report(ended.stdout)
        if report == _LOADED:
            return
        printed = ended.stderr.decode("utf-8", "replace").splitlines()[-_TAIL:]
        if printed:
            tell("\n".join(["It printed at last:", *(f"  {line}" for line in printed)]))
        ended_so = f"{deployment.network.where} could not be tried: its process ended with {ended.returncode}."
        message, hint = report or (ended_so, "")
        raise UsageError(message.replace(str(source / file.name), str(file)), hint or f"Correct {file}.")


def _report(out: bytes) -> tuple[str, str] | None:
    """What :func:`trainer.serving.own_score.main` says at last; None where it did not come to that."""
    try:
        return msgspec.json.decode(out.splitlines()[-1], type=tuple[str, str])
    except (IndexError, msgspec.DecodeError):
        return None
