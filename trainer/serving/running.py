"""``trainer serve`` from a model's name to its end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from trainer.artifacts import ModelVersion, find_model
from trainer.backend import Backend
from trainer.errors import ConfigError, TrainerError
from trainer.modelfile import is_path
from trainer.serving.models import model_of_file, model_of_version, newest_of
from trainer.serving.settings import ServeSettings
from trainer.serving.supervisor import Model, Supervisor

Announce = Callable[[str, str, str], None]


def serve(
    settings: ServeSettings,
    reference: str,
    backend: Backend,
    scratch: Path,
    say: Callable[[str], None],
    announce: Announce,
) -> None:
    """Serve a model until a signal ends it.

    Args:
        settings: How.
        reference: A path, or a name as :func:`trainer.artifacts.find_model` takes it.
        backend: Whose registry knows the name.
        scratch: A folder of its own.
        say: Is told what happens later.
        announce: Is told URL, model and what goes in and comes out, when the model can be used.

    Raises:
        TrainerError: The model can't be served.
    """
    model, newest = _resolve(reference, backend)
    supervisor = Supervisor(settings, model, newest, scratch, say)
    supervisor.run(lambda about: announce(supervisor.url, model.label, about))


def _resolve(reference: str, backend: Backend) -> tuple[Model, Callable[[], Model] | None]:
    """The model to begin with, and what finds a newer one.

    A registry elsewhere is asked once, in a process of its own: its SDK starts threads, and workers are forked.
    """
    if is_path(reference):
        return model_of_file(Path(reference)), None
    store = backend.store
    if backend.remote:
        version = _elsewhere(lambda: find_model(store(), reference))
        return Model(version.reference, lambda app: model_of_version(store(), version).open(app)), None
    version = find_model(store(), reference)
    return model_of_version(store(), version), newest_of(store(), reference, version)


def _elsewhere(find: Callable[[], ModelVersion]) -> ModelVersion:
    """Call a function in a forked process and return what it returns, or raise what it raises."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "wb") as stream:
                try:
                    stream.write(b"+" + msgspec.json.encode(find()))
                    code = 0
                except TrainerError as error:
                    stream.write(b"-" + msgspec.json.encode([type(error).__name__, error.message, error.hint]))
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        said = answers.read()
    os.waitpid(pid, 0)
    if said.startswith(b"+"):
        return msgspec.json.decode(said[1:], type=ModelVersion)
    if said.startswith(b"-"):
        from trainer import errors

        name, message, hint = msgspec.json.decode(said[1:], type=tuple[str, str, str])
        raise getattr(errors, name, ConfigError)(message, hint)
    raise ConfigError("The registry could not be asked.", "What it printed is above.")
