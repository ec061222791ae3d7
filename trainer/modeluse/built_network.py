"""A Chainer network that a function of the user's builds, given the parameters of a model's file."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import ConfigError, MissingExtraError, TrainerError, UsageError

# What stands before a network's own names in the file of a Classifier, and of a trainer's checkpoint.
_PREFIXES = ("updater/model:main/predictor/", "updater/model:main/", "predictor/")


def build_network(path: Path, function: str, arrays: Mapping[str, NDArray[Any]], label: str) -> Any:  # noqa: ANN401  # a chainer.Link
    """Build a network and give it the parameters of a model's file.

    Args:
        path: The user's Python file; its folder is put on the path for its neighbours.
        function: Builds the link; takes no arguments.
        arrays: Of the file, as ``serializers.save_npz`` writes it, also of a ``Classifier`` around the network.
        label: What to call the model in messages.

    Raises:
        UsageError: The function fails, or the parameters don't fit what it builds.
    """
    from trainer.runtime import compat

    compat.apply()
    try:
        import chainer
        from chainer.serializers import NpzDeserializer
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"--model-file ({error.name})", "chainer") from error

    made = _call(path, function)
    if not isinstance(made, chainer.Link):
        raise UsageError(f"{function}() in {path} gives {type(made).__name__}, no chainer.Link.", "Return the network.")
    prefix = next((prefix for prefix in _PREFIXES if any(key.startswith(prefix) for key in arrays)), "")
    wanted = {name.removeprefix("/") for name, _ in made.namedparams()}
    if wanted.issubset(arrays):  # a network that has a link called predictor itself
        prefix = ""
    try:
        NpzDeserializer(arrays, path=prefix, strict=True).load(made)
    except Exception as error:  # Chainer raises whatever the arrays make it run into
        raise UsageError(
            f"The parameters of {label} don't fit what {function}() builds: {type(error).__name__}: {error}.",
            f"The file holds {', '.join(list(arrays)[:4])}; is it this network's?",
        ) from error
    missing = [name for name, parameter in made.namedparams() if parameter.array is None]
    if missing:
        raise UsageError(f"{label} has no values for {', '.join(missing[:3])}.", "Is it this network's file?")
    return made


def run_network(network: Any, inputs: NDArray[np.float32]) -> NDArray[np.float32]:  # noqa: ANN401  # a chainer.Link
    """Run a Chainer network as it is used, not trained.

    Raises:
        UsageError: It gives something else than one array.
    """
    import chainer

    with chainer.using_config("train", False), chainer.no_backprop_mode():
        outputs = network(inputs)
    array = getattr(outputs, "array", outputs)
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.ndim == 0 or len(array) != len(inputs):
        raise UsageError(
            f"The network gives {type(outputs).__name__}, not one array with a row per input.",
            "Build one whose forward() returns scores, or use --script.",
        )
    return np.asarray(array, np.float32)


def _call(path: Path, function: str) -> Any:  # noqa: ANN401  # whatever the user's function returns
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} can't be imported.", "Is it a Python file?")
    module = importlib.util.module_from_spec(spec)
    try:
        sys.modules.setdefault(path.stem, module)
        spec.loader.exec_module(module)
        make = getattr(module, function, None)
        if make is None:
            raise UsageError(f"There is no {function} in {path}.", f"Define it: def {function}(): return Network()")
        return make()
    except TrainerError:
        raise
    except Exception as error:
        raise UsageError(
            f"{path}:{function} failed: {type(error).__name__}: {error}.", "It must build the network by itself."
        ) from error
