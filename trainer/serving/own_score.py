"""The score script of a service without one of the user's: ``trainer serve``'s scorer behind Azure's contract.

It travels with the whole package, with the model's record, and with the file of the network where that is the user's
own (:mod:`trainer.deploy.preparing`). A body is JSON, as docs/serving.md has it: numbers or, in base64, pictures.
Azure's server hands bodies on as text, so raw bytes can't be sent to it.

Run as a program it loads the model and ends: what the client does before it sends anything
(:mod:`trainer.deploy.trying`).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

_JOB = Path(__file__).resolve().parents[2]
if str(_JOB) not in sys.path:
    sys.path.insert(0, str(_JOB))  # azmlinfsrv imports this file by its path alone

import msgspec  # noqa: E402

from trainer import recordfile  # noqa: E402
from trainer.artifacts import RECORD_FILE, ModelVersion, file_sha256  # noqa: E402
from trainer.errors import IntegrityError, TrainerError  # noqa: E402
from trainer.modeluse.building import NetworkChoice  # noqa: E402
from trainer.runtime.layout import NETWORK_FILE  # noqa: E402
from trainer.serving.inputs import InputError  # noqa: E402
from trainer.serving.network import network_scorer  # noqa: E402
from trainer.serving.scoring import ModelFiles, Request, Scorer  # noqa: E402

_scorer: Scorer


def init() -> None:
    """Load the model.

    Raises:
        TrainerError: It is not one that trainer knows, not the one that was deployed, or not of the network that
            travelled with it.
    """
    global _scorer
    folder = Path(os.environ["AZUREML_MODEL_DIR"])
    file = next(path for path in sorted(folder.rglob("*.npz")) if path.is_file())
    name, version = folder.parent.name, folder.name
    known = int(version) if version.isdecimal() else None
    record = _record(file)
    label = record.reference if record else f"{name}:{version}" if known is not None else file.name
    _scorer = network_scorer(ModelFiles(label, name, known, file, folder, record), _choice())
    _scorer.load()


def run(data: str) -> Any:  # noqa: ANN401  # what JSON holds, or a response of the server's own kind
    """Score a body.

    Args:
        data: The request's body.

    Returns:
        What ``trainer serve`` answers; a response with status 400 and the reason where the body can't be used.

    Raises:
        InputError: The body can't be used, and the server has no responses of its own kind.
    """
    try:
        answer = _scorer.score(Request("POST", "", data.encode(), "application/json", []))
    except InputError as error:
        try:
            from azureml_inference_server_http.api.aml_response import AMLResponse  # type: ignore[import-not-found]
        except ImportError:
            raise error from None
        return AMLResponse({"message": error.message}, error.status, json_str=True)
    return json.loads(answer.body)


def main() -> int:
    """Load the model, and print as the last line, in JSON, what is wrong and what to do; two empty texts for nothing.

    Returns:
        The exit code.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what the user's code prints
            init()
    except TrainerError as error:
        _say(error.message, error.hint)
        return error.exit_code
    except Exception as error:  # the user's code may raise anything
        _say(f"{type(error).__name__}: {error}", "")
        return 1
    _say("", "")
    return 0


def _say(message: str, hint: str) -> None:
    sys.stdout.write(f"{json.dumps([message, hint])}\n")


def _record(file: Path) -> ModelVersion | None:
    """What is recorded of the model, where that has travelled."""
    try:
        record = recordfile.read(_JOB / RECORD_FILE, msgspec.json.Decoder(ModelVersion))
    except FileNotFoundError:
        return None
    if record.sha256 != file_sha256(file):
        raise IntegrityError(f"{file.name} is not the file of {record.reference} that was deployed.", "Deploy again.")
    return record


def _choice() -> NetworkChoice:
    """How the network is built that has travelled; nothing is said where none has."""
    try:
        return recordfile.read(_JOB / NETWORK_FILE, msgspec.json.Decoder(NetworkChoice)).in_folder(_JOB.parent)
    except FileNotFoundError:
        return NetworkChoice()


if __name__ == "__main__":
    sys.exit(main())
