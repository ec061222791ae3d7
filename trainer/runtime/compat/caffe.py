"""``chainer.links.caffe`` and ``chainer.exporters.caffe`` with protobuf 4 and newer.

Chainer has the Caffe format as a module that protoc 3 generated. It builds every descriptor by hand, which
protobuf has refused since 4.21. The module also holds the whole format in serialized form (``serialized_pb``), which is
what newer versions of protoc generate: the classes are built from that, as their code does.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from trainer.runtime.compat.hook import Patch, version_tuple
from trainer.runtime.versions import installed_version


def _generated_code_is_refused() -> bool:
    return version_tuple(installed_version("protobuf") or "0") >= (4,)


def _build_from_serialized_form(module: ModuleType) -> None:
    from google.protobuf import descriptor_pool  # type: ignore[import-untyped]
    from google.protobuf.internal import builder  # type: ignore[import-untyped]

    source = Path(str(module.__file__)).read_bytes()
    serialized = next(_serialized_forms(ast.parse(source)))
    descriptor = descriptor_pool.Default().AddSerializedFile(serialized)
    module.DESCRIPTOR = descriptor  # type: ignore[attr-defined]
    builder.BuildMessageAndEnumDescriptors(descriptor, vars(module))
    builder.BuildTopDescriptorsAndMessages(descriptor, module.__name__, vars(module))


def _serialized_forms(tree: ast.Module) -> Iterator[bytes]:
    """The argument of every ``serialized_pb=_b('...')``, where ``_b`` encodes Latin-1."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "serialized_pb" and isinstance(node.value, ast.Call):
            argument = node.value.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield argument.value.encode("latin-1")


PATCHES = (
    Patch(
        name="caffe-format",
        module="chainer.links.caffe.protobuf3.caffe_pb2",
        reason="the generated code that reads and writes Caffe models is refused by protobuf 4",
        versions="protobuf >= 4",
        needed=_generated_code_is_refused,
        stand_in=_build_from_serialized_form,
    ),
)
