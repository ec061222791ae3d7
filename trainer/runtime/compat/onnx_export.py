"""onnx_chainer, which Chainer brings, beside an onnx that has lost the tables that it reads."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from trainer.runtime.compat.hook import Patch, With


def _mapping_is_gone() -> bool:
    spec = importlib.util.find_spec("onnx")
    folders = (spec and spec.submodule_search_locations) or ()
    return bool(folders) and not any((Path(folder) / "mapping.py").is_file() for folder in folders)


def mapping() -> ModuleType:
    """Return what stands for ``onnx.mapping``: its two tables that onnx_chainer reads, made from ``onnx.helper``."""
    import numpy
    import onnx
    from onnx import helper

    kinds: tuple[Any, ...] = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8", "c16")
    types = {numpy.dtype(kind): int(helper.np_dtype_to_tensor_dtype(numpy.dtype(kind))) for kind in kinds}
    # The former table was by how a type is stored, so that the small types were not in it.
    stored = ("FLOAT", "DOUBLE", "INT32", "INT64", "UINT16", "UINT32", "UINT64", "BOOL")
    made: Any = ModuleType("onnx.mapping")
    made.NP_TYPE_TO_TENSOR_TYPE = types
    made.STORAGE_TENSOR_TYPE_TO_FIELD = {
        int(getattr(onnx.TensorProto, name)): helper.tensor_dtype_to_field(getattr(onnx.TensorProto, name))
        for name in stored
    }
    found: ModuleType = made
    return found


@contextlib.contextmanager
def _with_mapping() -> Iterator[None]:
    """Let ``from onnx.mapping import ...`` succeed for as long as the context lasts."""
    sys.modules["onnx.mapping"] = mapping()
    try:
        yield
    finally:
        del sys.modules["onnx.mapping"]


def _give_mapping(module: ModuleType) -> None:
    module.onnx = With(module.onnx, mapping=mapping())  # type: ignore[attr-defined]


PATCHES = (
    Patch(
        name="onnx-mapping",
        module="onnx_chainer",
        reason="imports onnx.mapping, which onnx removed, and says that onnx is not installed",
        versions="onnx >= 1.19, where it is installed",
        needed=_mapping_is_gone,
        around=_with_mapping,
    ),
    Patch(
        name="onnx-mapping-fields",
        module="onnx_chainer.context",
        reason="looks constants' types up in onnx.mapping, which onnx removed",
        versions="onnx >= 1.19, where it is installed",
        needed=_mapping_is_gone,
        after=_give_mapping,
    ),
)
