"""What a patch is, and the version tests that patches share."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any


def _always() -> bool:
    return True


@dataclass(frozen=True)
class Patch:
    """One change to one of Chainer's modules.

    A patch has up to three moments, each a callable:

    Attributes:
        name: Short and unique; the heading in ``docs/compat.md``.
        module: The dotted name of the module that it changes.
        reason: What goes wrong without it.
        versions: The versions that need it, in words.
        needed: Whether the installed versions are among those; asked when ``module`` is imported.
        stand_in: Replaces the module: fills an empty one instead of executing Chainer's.
        around: Entered before the module is executed and left after it; a context manager.
        after: Changes the executed module.
    """

    name: str
    module: str
    reason: str
    versions: str
    needed: Callable[[], bool] = field(default=_always)
    stand_in: Callable[[ModuleType], None] | None = None
    around: Callable[[], Any] | None = None
    after: Callable[[ModuleType], None] | None = None


class With:
    """A module as a function is to see it: some names are as given, the others its own."""

    def __init__(self, module: ModuleType, **names: Any) -> None:
        self.__dict__.update(names)
        self._module = module

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # any of the module's
        return getattr(self._module, name)


def version_tuple(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: ``"2.5.0rc1"`` gives ``(2, 5, 0)``."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def numpy_at_least(*version: int) -> bool:
    """Whether the installed NumPy is ``version`` or newer. Imports NumPy."""
    import numpy

    return version_tuple(numpy.__version__) >= version
