"""A score script in the layout of Azure's container, which the environment describes, behind a Unix socket.

    python -m trainer.serving.container SOCKET

takes the place of ``azmlinfsrv`` for whoever has made the layout: ``AML_APP_ROOT``, ``AZUREML_ENTRY_SCRIPT``,
``AZUREML_SOURCE_DIRECTORY``, ``AZUREML_MODEL_DIR``, ``SERVICE_NAME``, ``SCORING_TIMEOUT_MS`` and ``WORKER_COUNT`` mean
what they mean there. No key is asked for: who may open the socket may ask. A script that can't be served ends the
process with exit code 3.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from trainer.errors import TrainerError, UsageError
from trainer.serving.scoring import ModelFiles
from trainer.serving.settings import ServeSettings, check
from trainer.serving.supervisor import Model, Supervisor

# Azure's own server has no limit.
_BODY_MAX = 128 << 20
_FAILED = 3


def settings_of(environment: dict[str, str], socket: Path) -> ServeSettings:
    """Return what the variables of a container ask for.

    Raises:
        UsageError: One is missing or unusable.
    """
    entry = environment.get("AZUREML_ENTRY_SCRIPT", "")
    root = Path(environment.get("AML_APP_ROOT", ""))
    if not entry or not root.is_absolute():
        raise UsageError("AML_APP_ROOT and AZUREML_ENTRY_SCRIPT must be set.", "The first to an absolute path.")
    script = root / entry
    if not script.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"The entry script {entry} is not below AML_APP_ROOT.", "Give a path relative to it.")
    workers = environment.get("WORKER_COUNT") or "1"
    if not workers.isdecimal():
        raise UsageError(f"WORKER_COUNT must be a number, not {workers[:20]!r}.", "For example: 1")
    return check(
        ServeSettings(
            socket=socket,
            workers=int(workers),
            script=script,
            app_root=root,
            body_max=_BODY_MAX,
            name=environment.get("SERVICE_NAME") or "service",
        )
    )


def main(words: list[str]) -> int:
    """Serve until SIGTERM; gives the exit code."""
    try:
        if len(words) != 1:
            raise UsageError("One argument is needed: the path of the socket.", "python -m trainer.serving.container S")
        settings = settings_of(dict(os.environ), Path(words[0]))
        model_dir = Path(os.environ.get("AZUREML_MODEL_DIR", ""))
        files = ModelFiles(settings.name, settings.name, None, model_dir, model_dir)
        with tempfile.TemporaryDirectory(prefix="trainer-serve-") as scratch:
            supervisor = Supervisor(settings, Model(settings.name, lambda _: files), None, Path(scratch), _say)
            supervisor.run(lambda about: _say(f"Serving {about}."))
    except TrainerError as error:
        _say(f"error: {error.message}\n{error.hint}".rstrip())
        return _FAILED
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
