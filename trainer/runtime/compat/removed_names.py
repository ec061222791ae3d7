"""Names that NumPy has removed, for a script's own modules and for nobody else.

Scripts of Chainer's time say ``np.int``, ``np.float`` or ``np.product``. NumPy asks its module-level ``__getattr__``
for names that it does not have (PEP 562); here that function first looks who asks. A module of the script's gets what
the name meant; to a library the name is absent, so what it finds out about NumPy stays true. Where NumPy
has the name, as ``np.bool`` again since 2.0, nothing changes.
"""

# ruff: noqa: ANN401  # any value can be NumPy's
from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any

from trainer.runtime.compat.hook import Patch
from trainer.runtime.layout import JOB_DIR

SCRIPT_DIR_VARIABLE = "TRAINER_SCRIPT_DIR"
"""The folder whose modules are the script's; the launcher sets it."""

# NumPy 1.20's release notes: "Using the aliases of builtin types like np.int is deprecated".
_BUILTINS: dict[str, Any] = {
    **{"int": int, "float": float, "complex": complex, "bool": bool, "object": object, "str": str},
    **{"long": int, "unicode": str},
}
# NumPy 2.0's migration guide, and the deprecations that 2.4 and 2.5 carried out: the old name and the one that stands
# for the same object or function.
_RENAMED = {
    **{"float_": "float64", "complex_": "complex128", "singlecomplex": "complex64", "longfloat": "longdouble"},
    **{"longcomplex": "clongdouble", "clongfloat": "clongdouble", "cfloat": "complex128", "string_": "bytes_"},
    **{"unicode_": "str_", "Inf": "inf", "Infinity": "inf", "PINF": "inf", "infty": "inf", "NaN": "nan", "NAN": "nan"},
    **{"product": "prod", "cumproduct": "cumprod", "alltrue": "all", "sometrue": "any", "round_": "round"},
    **{"row_stack": "vstack", "trapz": "trapezoid", "mat": "asmatrix"},
}


def _made(numpy: ModuleType) -> dict[str, Callable[..., Any]]:
    """What has no other name in NumPy."""

    def in1d(ar1: Any, ar2: Any, assume_unique: bool = False, invert: bool = False) -> Any:
        return numpy.isin(numpy.asarray(ar1).ravel(), ar2, assume_unique=assume_unique, invert=invert)

    def asfarray(a: Any, dtype: Any = numpy.float64) -> Any:
        inexact = numpy.issubdtype(dtype, numpy.inexact)
        return numpy.asarray(a, dtype=dtype if inexact else numpy.float64)

    def asscalar(a: Any) -> Any:
        return a.item()

    def msort(a: Any) -> Any:
        return numpy.sort(a, axis=0)

    return {"in1d": in1d, "asfarray": asfarray, "asscalar": asscalar, "msort": msort}


def _give_to_scripts(module: ModuleType) -> None:
    numpys_own: Callable[[str], Any] = module.__getattr__
    made = _made(module)

    def __getattr__(name: str) -> Any:  # noqa: N807  # PEP 562
        known = name in _BUILTINS or name in _RENAMED or name in made or name == "NINF"
        if not known or not _is_the_scripts(sys._getframe(1)):
            return numpys_own(name)
        if name == "NINF":
            return -module.inf
        if name in _BUILTINS:
            return _BUILTINS[name]
        return made[name] if name in made else getattr(module, _RENAMED[name])

    module.__getattr__ = __getattr__  # type: ignore[method-assign]


def _is_the_scripts(frame: FrameType) -> bool:
    """Whether the code that runs in ``frame`` is of the script or of a module that lies with it."""
    file = frame.f_globals.get("__file__")
    if not isinstance(file, str):
        # exec(), an interactive session, a notebook
        return frame.f_globals.get("__name__") in ("__main__", "__mp_main__")
    folder = _folder()
    if folder is None:
        return False
    file = os.path.abspath(file)  # noqa: PTH100  # asked for every such name
    below = file.removeprefix(folder + os.sep)
    return below != file and "-packages" + os.sep not in below and not below.startswith(JOB_DIR + os.sep)


def _folder() -> str | None:
    named = os.environ.get(SCRIPT_DIR_VARIABLE)
    if named:
        return named
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    return os.path.dirname(os.path.abspath(main)) if main else None  # noqa: PTH100, PTH120


PATCHES = (
    Patch(
        name="removed-numpy-names",
        module="numpy",
        reason="scripts use names that NumPy has removed, as numpy.int; only the script's own modules get them",
        versions="NumPy >= 1.24",
        after=_give_to_scripts,
    ),
)
