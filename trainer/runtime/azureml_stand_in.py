"""``from azureml.core import Run`` for a run that is not on Azure ML.

Azure's tutorial scripts call ``Run.get_context()`` and log to what they get. Here they get a run that reports into the
run's folder. Where the SDK is not installed, this is all there is of ``azureml``. Where it is, importing
``azureml.core`` takes seconds, so that is put off until the script wants something else of it than
``Run``; then the real package takes this one's place, with its ``Run.get_context`` giving our run.
"""

# The signatures are the import system's.
# ruff: noqa: ARG002

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from trainer.runtime import azureml_run
from trainer.runtime.azureml_run import Run
from trainer.runtime.sinks import Sink

_STAND_INS = ("azureml", "azureml.core", "azureml.core.run")
_OPEN_DATASETS = "azureml.opendatasets"


def install() -> None:
    """Let imports of ``azureml`` find the stand-in, unless the SDK has been imported already."""
    installed = _is_installed()
    finder = _Finder(installed)
    if "azureml.core" in sys.modules:
        finder.load_real()
    elif installed:
        sys.meta_path.insert(0, finder)
    else:
        # Behind all others: what there is of azureml on this machine comes first.
        sys.meta_path.append(finder)


def install_where_missing(make_sink: Callable[[], Sink]) -> bool:
    """Let imports of ``azureml.core`` find the stand-in on Azure ML, where the SDK is not installed.

    Args:
        make_sink: Makes where its ``Run`` reports to.

    Returns:
        Whether it is not.
    """
    if _is_installed() or "azureml.core" in sys.modules:
        return False
    azureml_run.make_sink = make_sink
    sys.meta_path.append(_Finder(installed=False))
    return True


def install_open_datasets() -> None:
    """Let imports of ``azureml.opendatasets`` find our MNIST, unless the real package is installed."""
    # Behind all others, on Azure ML too: its environments have the package only where they name it.
    if not any(isinstance(finder, _OpenDatasets) for finder in sys.meta_path):
        sys.meta_path.append(_OpenDatasets())


class _OpenDatasets(MetaPathFinder, Loader):
    """Finds a module with MNIST where nothing else is found under ``azureml.opendatasets``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if fullname == _OPEN_DATASETS else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["MNIST"] = importlib.import_module("trainer.runtime.opendatasets").MNIST


class _Finder(MetaPathFinder, Loader):
    """Finds the stand-in modules, and brings in the real ones when they are wanted."""

    def __init__(self, installed: bool) -> None:
        self._installed = installed
        self._active = True

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not self._active or fullname.partition(".")[0] != "azureml":
            return None
        if fullname.startswith(_OPEN_DATASETS):
            return None  # it asks for azureml.core itself, should it be the real one
        if fullname in _STAND_INS[self._installed :]:
            return ModuleSpec(fullname, self, is_package=fullname != "azureml.core.run")
        if self._installed and fullname != "azureml":
            # The SDK's other modules import azureml.core themselves, and must see the real one.
            self.load_real()
            module = sys.modules.get(fullname)
            if module is None:
                return None
            spec = ModuleSpec(fullname, _Loaded(module))
            # importlib._bootstrap._find_spec takes a loaded module's own spec in place of a finder's answer.
            module.__spec__ = spec
            return spec
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return _StandIn(spec.name, self)

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ != "azureml":
            vars(module)["Run"] = Run
        if module.__name__ == "azureml.core" and not self._installed:
            vars(module)["Dataset"] = _Dataset

    def load_real(self) -> None:
        """Import the SDK in the stand-in's place."""
        self._active = False
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for name in _STAND_INS[1:]:
            if isinstance(sys.modules.get(name), _StandIn):
                del sys.modules[name]
        real = importlib.import_module("azureml.core.run").Run
        for name in ("get_context", "get_submitted_run"):
            setattr(real, name, getattr(Run, name))

    def attribute(self, module: str, name: str) -> object:
        """Return what the real module has under this name.

        Raises:
            ImportError: The SDK is not installed.
        """
        if not self._installed:
            raise ImportError(
                f"{module}.{name}: the Azure ML SDK is not installed here; scripts get only Run without it "
                "(pip install 'chainer-trainer[azureml]')",
                name=module,
            )
        if self._active:
            self.load_real()
        return getattr(importlib.import_module(module), name)


class _StandIn(ModuleType):
    def __init__(self, name: str, finder: _Finder) -> None:
        super().__init__(name, __doc__)
        self._finder = finder

    def __getattr__(self, name: str) -> object:
        # The import system asks for dunder names that it can do without.
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return self._finder.attribute(self.__name__, name)


class _NeedsTheSdk(type):
    def __getattr__(cls, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"Dataset.{name} needs Azure ML's SDK, which is not installed here")


class _Dataset(metaclass=_NeedsTheSdk):
    """``azureml.core.Dataset``, which Azure's samples import without using it."""


class _Loaded(Loader):
    """Gives a module that is loaded already, so that it is not loaded twice."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


def _is_installed() -> bool:
    spec = importlib.util.find_spec("azureml") if "azureml" not in sys.modules else sys.modules["azureml"].__spec__
    folders = spec.submodule_search_locations if spec is not None else None
    return any((Path(folder) / "core" / "run.py").is_file() for folder in folders or ())
