"""Inputs to compare an export on: test examples of the data set that the model was trained on, where they are here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.artifacts import ModelVersion
from trainer.errors import TrainerError
from trainer.export.subject import Array, Subject
from trainer.runtime.faults import RuntimeFault

EXAMPLES_MAX = 1000
_RANDOM = 256


def examples(subject: Subject) -> tuple[Array, str]:
    """Return float32 inputs (N, *shape), at most :data:`EXAMPLES_MAX`, and what they are, in words.

    Nothing is downloaded. Where the data set is not known or not here, the inputs are random.
    """
    version = subject.source.version
    found = None if version is None else _test_examples(version)
    if found is not None and math.prod(found.shape[1:]) == math.prod(subject.shape) and len(found):
        assert version is not None
        inputs = subject.inputs(found[:EXAMPLES_MAX])
        return np.ascontiguousarray(inputs, np.float32), f"test examples of {version.dataset}"
    random = np.random.default_rng(0)
    table = version is not None and version.data is not None and version.data.kind == "table"
    size = (_RANDOM, *subject.shape)
    values = random.standard_normal(size, np.float32) if table else random.random(size, np.float32)
    return values, "random inputs"


def _test_examples(version: ModelVersion) -> NDArray[Any] | None:
    from trainer.data import CATALOGUE, own, resolve
    from trainer.modeluse.evaluation import travelled_data
    from trainer.runtime.datasets import read_directory

    record = version.data
    try:
        folder = travelled_data(version)
        if folder is None and version.dataset in CATALOGUE:
            folder = resolve(str(version.dataset), offline=True).directory
        if folder is not None:
            return read_directory(folder).test_images
        path = Path(record.source) if record and record.source else None
        if path is not None and path.exists():
            return own.read(path, like=record).test_x if own.is_own(path) else read_directory(path).test_images
    except (TrainerError, RuntimeFault, OSError):
        pass  # not here, or changed since: random inputs show the same of the file
    return None
