"""Whether the kernels that a job asks for can be had: :mod:`trainer.runtime.kernels` uses them."""

from __future__ import annotations

from trainer.errors import ConfigError
from trainer.runtime.layout import MISSING_TORCH, TORCH_HINT
from trainer.runtime.versions import installed_version


def torch_for(kernels: str | None) -> str | None:
    """Return the version of PyTorch that a job needs: the one that is installed here.

    Args:
        kernels: What the job asks for.

    Returns:
        None if it doesn't ask for PyTorch's.

    Raises:
        ConfigError: It does, and PyTorch is not installed here.
    """
    if kernels != "torch":
        return None
    version = installed_version("torch")
    if version is None:
        raise ConfigError(f"{MISSING_TORCH}.", f"{TORCH_HINT}.")
    return version
