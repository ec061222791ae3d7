"""Registered models in Python: finding them, fetching them, using them. :mod:`trainer.api` offers what is here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.backend import load_backend
from trainer.config import load_config
from trainer.home import find_home

if TYPE_CHECKING:
    from trainer import modeluse
    from trainer.artifacts import ArtifactStore, ModelVersion
    from trainer.modeluse import Evaluation, Prediction


def models(
    name: str | None = None, *, backend: str | None = None, options: Mapping[str, Any] | None = None
) -> list[Model]:
    """Return the registered model versions, by name and then rising version.

    Args:
        name: Only this model's; None for all.
        backend: Whose registry; by default as configured, else ``local``.
        options: The backend's own options by name.

    Raises:
        RefusedError: The backend has no registry.
        ConfigError, SignInError: It can't be asked.
    """
    store = _store(backend, options)
    return [Model(version, store) for version in store.versions(name)]


def load(
    model: Model | str | Path, *, backend: str | None = None, options: Mapping[str, Any] | None = None
) -> LoadedModel:
    """Return a model that can be used: ``.predict(images)``, ``.evaluate()``.

    Args:
        model: One of :func:`models` or :attr:`Run.model`; a name or ``name:version``; or a file.
        backend: Whose registry, for a name.
        options: The backend's own options by name.

    Raises:
        NotFoundError: There is no such model or file.
        IntegrityError: The file is not a safe npz, or not the one that was registered.
        UsageError: It holds a network that can't be run here.
    """
    from trainer.modeluse import open_model

    if isinstance(model, Model):
        known = model._store
        return LoadedModel(open_model(model.reference, lambda: known))
    return LoadedModel(open_model(str(model), lambda: _store(backend, options)))


class Model:
    """A registered model version. :func:`models` and :attr:`Run.model` make it.

    Attributes:
        record: Everything that is recorded of it: ``sha256``, ``size``, ``metrics``, ``dataset``, ``tags``,
            ``versions``, ``run_id``, ``snapshot``, ``created``.
    """

    def __init__(self, record: ModelVersion, store: ArtifactStore) -> None:
        self.record = record
        self._store = store

    @property
    def name(self) -> str:
        """The model's name."""
        return self.record.name

    @property
    def version(self) -> int:
        """1, 2, 3, ..."""
        return self.record.version

    @property
    def reference(self) -> str:
        """``name:version``."""
        return self.record.reference

    @property
    def metrics(self) -> dict[str, float | None]:
        """The last value of each metric of the run that made it."""
        return self.record.metrics

    def fetch(self, directory: str | Path = "model", *, force: bool = False) -> Path:
        """Copy the model into a directory, checked against its SHA-256.

        Args:
            directory: Made if missing.
            force: Replace a different ``model.npz``.

        Returns:
            The file.

        Raises:
            UsageError: A different file is in the way.
            IntegrityError: The bytes are not those that were registered.
        """
        from trainer.artifacts import fetch

        return fetch(self._store, self.reference, Path(directory), force=force).path

    def delete(self) -> None:
        """Remove this version; its number is not used again."""
        self._store.delete(self.name, self.version)

    def __repr__(self) -> str:
        """The model's name and version."""
        return f"<Model {self.reference}>"


class LoadedModel:
    """A model that can be used. :func:`load` makes it."""

    def __init__(self, opened: modeluse.LoadedModel) -> None:
        self._opened = opened

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes that it tells apart."""
        return self._opened.classes

    def evaluate(self, dataset: str | Path | None = None) -> Evaluation:
        """Measure the model on a data set's test examples.

        Args:
            dataset: As ``--dataset`` takes it; by default what the model was trained on.

        Raises:
            UsageError: That is not known or not here, or is not what the model takes.
        """
        from trainer.modeluse import evaluate

        return evaluate(self._opened, None if dataset is None else str(dataset))

    def predict(self, inputs: Sequence[str | Path] | str | Path) -> list[Prediction]:
        """Classify examples.

        Args:
            inputs: A file, or several: pictures, or a CSV file of rows, or an npy file of arrays, by what the model was
                trained on.

        Returns:
            One prediction per example.

        Raises:
            NotFoundError: A file is missing.
            UsageError: A file is not what the model takes.
        """
        from trainer.modeluse import predict

        paths = [inputs] if isinstance(inputs, str | Path) else inputs
        return predict(self._opened, [Path(path) for path in paths])

    def __repr__(self) -> str:
        """What it was loaded from."""
        return f"<LoadedModel {self._opened.label}>"


def _store(backend: str | None, options: Mapping[str, Any] | None) -> ArtifactStore:
    home = find_home()
    config = load_config(home, {"backend": backend, **(options or {})})
    return load_backend(config["backend"], home, config.options()).store()
