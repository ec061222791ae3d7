"""``chainer.testing``, ``chainer.gradient_check`` and ChainerCV where ``pkg_resources`` is gone.

Who writes a function of their own checks its gradient with the first two. All that they want of
``pkg_resources`` is whether a requirement, as "numpy>=1.10", is satisfied; ChainerCV 0.13 asks it for its own version
while it is imported. A setuptools below 82 would bring more than that: the warning that comes with its
``pkg_resources``, and a pin that every other package of the environment has to live with.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from types import ModuleType

from trainer.runtime.compat.hook import Patch, version_tuple
from trainer.runtime.versions import installed_version


class ResolutionError(Exception):
    """A requirement is not satisfied."""


class DistributionNotFound(ResolutionError):  # noqa: N818  # the name in pkg_resources
    """A distribution is not installed."""


class Distribution:
    """An installed distribution: its name and its version."""

    def __init__(self, name: str) -> None:
        version = installed_version(name)
        if version is None:
            raise DistributionNotFound(name)
        self.project_name, self.version = name, version


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
            found = installed_version(match.group(1))
            if found is None:
                raise ResolutionError(requirement)
            for clause in filter(None, match.group(2).replace(" ", "").split(",")):
                if not _satisfies(version_tuple(found), clause):
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
    setuptools = installed_version("setuptools")
    return setuptools is None or version_tuple(setuptools) >= (67, 3)


@contextlib.contextmanager
def _pkg_resources() -> Iterator[None]:
    module = ModuleType("pkg_resources")
    module.WorkingSet = WorkingSet  # type: ignore[attr-defined]
    module.ResolutionError = ResolutionError  # type: ignore[attr-defined]
    module.DistributionNotFound = DistributionNotFound  # type: ignore[attr-defined]
    module.get_distribution = Distribution  # type: ignore[attr-defined]
    before = sys.modules.get("pkg_resources")
    sys.modules["pkg_resources"] = module
    try:
        yield
    finally:
        # Only Chainer and ChainerCV know it from here on; others must find what is, or is not, installed.
        del sys.modules["pkg_resources"]
        if before is not None:
            sys.modules["pkg_resources"] = before


def _patch_of_testing(name: str) -> Patch:
    return Patch(
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


PATCHES = (
    *(_patch_of_testing(name) for name in ("helper", "doctest_helper")),
    Patch(
        name="chainercv-version",
        module="chainercv",
        reason="ChainerCV imports pkg_resources to learn its own version",
        versions="setuptools absent or >= 67.3",
        needed=_pkg_resources_is_absent_or_warns,
        around=_pkg_resources,
    ),
)
