"""What a patch is, and the hook that applies patches when the modules they change are imported.

An import hook rather than plain assignments after ``import chainer``, because some patches must
take effect while Chainer is being imported, and because it leaves the cost of importing Chainer to
the scripts that use it.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any


def _always() -> bool:
    return True


@dataclass(frozen=True)
class Patch:
    """One change to a module of Chainer's, or to one that scripts of its time use with it.

    A patch has up to three moments, each a callable:

    Attributes:
        name: Short and unique; the heading in ``docs/compat.md``.
        module: The dotted name of the module that it changes.
        reason: What goes wrong without it.
        versions: The versions that need it, in words.
        needed: Whether the installed versions are among those; asked when ``module`` is imported.
        stand_in: Replaces the module: fills an empty one instead of executing the real one.
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
    """Return the leading numbers of a version: ``"2.5.0rc1"`` gives ``(2, 5, 0)``."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def numpy_at_least(*version: int) -> bool:
    """Return whether the installed NumPy is ``version`` or newer. Imports NumPy."""
    import numpy

    return version_tuple(numpy.__version__) >= version


def install(patches: Iterable[Patch]) -> None:
    """Register the import hook and apply ``patches`` to modules that are already imported.

    Idempotent: patches that are registered already are left alone.
    """
    finder = next((finder for finder in sys.meta_path if isinstance(finder, _Finder)), None)
    if finder is None:
        if "chainer" not in sys.modules:
            _forget_failed_import()
        finder = _Finder()
        sys.meta_path.insert(0, finder)
    for patch in finder.add(patches):
        module = sys.modules.get(patch.module)
        if module is not None and patch.after is not None and patch.needed():
            before = dict(vars(module))
            patch.after(module)
            _replace_copies(before, vars(module))


def _replace_copies(before: Mapping[str, object], after: Mapping[str, object]) -> None:
    """Let ``from .npz import load_npz`` in modules that were imported earlier see the new function."""
    replaced = {id(old): after[name] for name, old in before.items() if after[name] is not old}
    for other, module in list(sys.modules.items()):
        if other.partition(".")[0] == "chainer" and replaced:
            for name, value in list(vars(module).items()):
                if id(value) in replaced:
                    setattr(module, name, replaced[id(value)])


def _forget_failed_import() -> None:
    # A failed `import chainer` leaves the submodules that had succeeded. A second import would find
    # them but not set them as attributes of the new package.
    for name in [n for n in sys.modules if n.startswith("chainer.")]:
        del sys.modules[name]


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self) -> None:
        self._by_module: dict[str, list[Patch]] = {}

    def add(self, patches: Iterable[Patch]) -> list[Patch]:
        """Register patches; return those that were not registered before."""
        new = []
        for patch in patches:
            group = self._by_module.setdefault(patch.module, [])
            if patch not in group:
                group.append(patch)
                new.append(patch)
        return new

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        patches = self._by_module.get(fullname)
        if patches is None:
            return None
        spec = self._find_elsewhere(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        active = [patch for patch in patches if patch.needed()]
        if active:
            spec.loader = _Loader(spec.loader, active)
        return spec

    def _find_elsewhere(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> importlib.machinery.ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                return spec
        return None


class _Loader(importlib.abc.Loader):
    """Executes a module with its patches around it.

    Everything else is the original loader's business; ``inspect`` and ``linecache`` ask the loader
    for source through ``get_source``, hence ``__getattr__``.
    """

    def __init__(self, loader: importlib.abc.Loader, patches: Sequence[Patch]) -> None:
        self._loader = loader
        self._patches = patches

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # From here on the module is its own loader's: reload() and introspection see Chainer's file.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        stand_ins = [patch.stand_in for patch in self._patches if patch.stand_in is not None]
        with contextlib.ExitStack() as stack:
            for patch in self._patches:
                if patch.around is not None:
                    stack.enter_context(patch.around())
            if stand_ins:
                stand_ins[0](module)
            else:
                self._loader.exec_module(module)
        for patch in self._patches:
            if patch.after is not None:
                patch.after(module)
