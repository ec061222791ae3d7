"""The score script of a service without one of the user's: ``trainer serve``'s scorer behind Azure's contract.

It travels with the whole package. A body is JSON, as docs/serving.md has it: numbers or, in base64, pictures. Azure's
server hands bodies on as text, so raw bytes can't be sent to it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

_JOB = Path(__file__).resolve().parents[2]
if str(_JOB) not in sys.path:
    sys.path.insert(0, str(_JOB))  # azmlinfsrv imports this file by its path alone

from trainer.serving.inputs import InputError  # noqa: E402
from trainer.serving.network import NetworkScorer  # noqa: E402
from trainer.serving.scoring import ModelFiles, Request  # noqa: E402

_scorer: NetworkScorer


def init() -> None:
    """Load the model.

    Raises:
        TrainerError: It is not one that trainer knows.
    """
    global _scorer
    folder = Path(os.environ["AZUREML_MODEL_DIR"])
    file = next(path for path in sorted(folder.rglob("*.npz")) if path.is_file())
    name, version = folder.parent.name, folder.name
    known = int(version) if version.isdecimal() else None
    label = f"{name}:{version}" if known is not None else file.name
    _scorer = NetworkScorer(ModelFiles(label, name, known, file, folder))
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
