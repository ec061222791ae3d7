"""``chainer.testing`` and ``chainer.gradient_check`` where ``pkg_resources`` is gone.

Who writes a function of their own checks its gradient with these. All that they want of
``pkg_resources`` is whether a requirement, as "numpy>=1.10", is satisfied.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from types import ModuleType

from trainer.runtime.compat.patch import Patch, version_tuple


class ResolutionError(Exception):
    """A requirement is not satisfied."""


class WorkingSet:
    """The installed distributions."""

    def require(self, *requirements: str) -> None:
        """Raise :class:`ResolutionError` unless all ``requirements`` are satisfied.

        Each is a name and comparisons of versions, as "numpy>=1.10,<2"; extras and markers, which
        Chainer does not use, are not understood.
        """
        for requirement in requirements:
            match = re.fullmatch(r"\s*([\w.-]+)\s*(.*)", requirement)
            if match is None:
                raise ResolutionError(requirement)
            try:
                installed = version_tuple(importlib.metadata.version(match.group(1)))
            except importlib.metadata.PackageNotFoundError:
                raise ResolutionError(requirement) from None
            for clause in filter(None, match.group(2).replace(" ", "").split(",")):
                if not _satisfies(installed, clause):
                    raise ResolutionError(requirement)


def _satisfies(installed: tuple[int, ...], clause: str) -> bool:
    match = re.fullmatch(r"(==|!=|<=|>=|<|>)(\d[\d.]*?)(?:(\.\*)|[a-z]\w*)?", clause)
    if match is None:
        raise ResolutionError(clause)
    wanted = version_tuple(match.group(2))
    if match.group(3):  # "1.11.*": any version that starts so
        installed = installed[: len(wanted)]
    length = max(len(installed), len(wanted))
    left, right = (version + (0,) * (length - len(version)) for version in (installed, wanted))
    return {
        "==": left == right,
        "!=": left != right,
        "<=": left <= right,
        ">=": left >= right,
        "<": left < right,
        ">": left > right,
    }[match.group(1)]


def _pkg_resources_is_absent_or_warns() -> bool:
    try:
        return version_tuple(importlib.metadata.version("setuptools")) >= (67, 3)
    except importlib.metadata.PackageNotFoundError:
        return True


@contextlib.contextmanager
def _pkg_resources() -> Iterator[None]:
    module = ModuleType("pkg_resources")
    module.WorkingSet = WorkingSet  # type: ignore[attr-defined]
    module.ResolutionError = ResolutionError  # type: ignore[attr-defined]
    before = sys.modules.get("pkg_resources")
    sys.modules["pkg_resources"] = module
    try:
        yield
    finally:
        # Only Chainer knows it from here on; others must find what is, or is not, installed.
        del sys.modules["pkg_resources"]
        if before is not None:
            sys.modules["pkg_resources"] = before


PATCHES = tuple(
    Patch(
        name=f"testing-{name.replace('_', '-')}",
        module=f"chainer.testing.{name}",
        reason=(
            "chainer.testing and chainer.gradient_check import pkg_resources, which warns since setuptools 67.3 "
            "and is gone since 82"
        ),
        versions="setuptools absent or >= 67.3",
        needed=_pkg_resources_is_absent_or_warns,
        around=_pkg_resources,
    )
    for name in ("helper", "doctest_helper")
)
