"""Leave SciPy, Pillow and filelock unimported until Chainer uses them.

Chainer imports the first two, where they are installed, for special functions, sparse matrices and reading
image files; on the machines measured they are more than half of the time that ``import chainer`` takes. filelock is
for downloads, and a tenth of what is left.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType

# Package: the submodules that Chainer imports.
_DEFERRED = {"scipy": ("io", "linalg", "sparse", "special"), "PIL": ("Image",), "filelock": ()}


class _DeferredModule(ModuleType):
    """Stands for a module and imports it when something of it is asked for."""

    def __getattr__(self, name: str) -> object:
        # Asked for by the import system itself, for example __path__ and __spec__.
        if name.startswith("__") and name != "__version__":
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """While it lasts, ``import scipy`` and the like give modules that import themselves later.

    Packages that are not installed still fail to import, and those already imported are left alone.
    """
    added: dict[str, _DeferredModule] = {}
    for package, submodules in _DEFERRED.items():
        if package in sys.modules or not _installed(package):
            continue
        added[package] = parent = _DeferredModule(package)
        # Without a __path__ it would be no package, and `import scipy.linalg` would fail.
        parent.__path__ = []
        for name in submodules:
            added[f"{package}.{name}"] = module = _DeferredModule(f"{package}.{name}")
            setattr(parent, name, module)
    sys.modules.update(added)
    try:
        yield
    finally:
        for name, stand_in in added.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """While it lasts, the garbage collector rests; what is alive then is not looked at by it again.

    A library's functions and classes live as long as the process. What is made later is collected as ever.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False
