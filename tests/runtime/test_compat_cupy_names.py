"""Every name of CuPy's that Chainer's sources mention exists in CuPy 13 and 14.

Neither a GPU nor CuPy is needed: the names were written down by ``tests/upstream/cupy_names.py``.
"""

import ast
import importlib.util
from collections import defaultdict
from pathlib import Path

import numpy
import pytest

NAMES = Path(__file__).parent.parent / "upstream"
# How Chainer's modules write "CuPy".
ROOTS = {
    ("cupy",): "cupy",
    ("cupyx",): "cupyx",
    ("cuda", "cupy"): "cupy",
    ("cuda", "cupyx"): "cupyx",
    ("chainer", "backends", "cuda", "cupy"): "cupy",
}
# Names that may be absent: Chainer imports them in a try block, or uses them only where cuDNN or
# NCCL were found.
GUARDED = {
    "cupy.cudnn",  # backends/cuda.py, in a try block
    "cupy.cuda.cudnn",  # the same
    "cupy.cuda.nccl",  # MultiprocessParallelUpdater, in a try block
    "cupy.cudnn.create_spatial_transformer_descriptor",  # only with cuDNN
    "cupy.util.PerformanceWarning",  # where cupy._util has none
}


def chains(source: str) -> set[str]:
    """The dotted names below CuPy and below ``xp`` in a module's source: "cupy.zeros", "xp.random.rand"."""
    found: set[str] = set()
    inner: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("cupy", "cupyx"):
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(a.name for a in node.names if a.name.split(".")[0] in ("cupy", "cupyx") and "." in a.name)
        elif isinstance(node, ast.Attribute) and id(node) not in inner:
            parts: list[str] = []
            at: ast.expr = node
            while isinstance(at, ast.Attribute):
                inner.add(id(at))
                parts.insert(0, at.attr)
                at = at.value
            if isinstance(at, ast.Name):
                parts.insert(0, at.id)
            found.update(_below_cupy(parts))
    return found


def _below_cupy(parts: list[str]) -> set[str]:
    for root, name in ROOTS.items():
        if tuple(parts[: len(root)]) == root and len(parts) > len(root):
            return {".".join([name, *parts[len(root) :]])}
    if "xp" in parts[:-1]:  # xp.zeros, self.xp.zeros, device.xp.zeros
        return {".".join(parts[parts.index("xp") :])}
    return set()


@pytest.fixture(scope="module")
def used() -> dict[str, list[str]]:
    spec = importlib.util.find_spec("chainer")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    places: dict[str, list[str]] = defaultdict(list)
    for file in sorted(folder.rglob("*.py")):
        for name in chains(file.read_text(encoding="utf-8")):
            places[name].append(str(file.relative_to(folder)))
    return places


def read_names(file: Path) -> dict[str, set[str]]:
    lines = (line.split(":", 1) for line in file.read_text().splitlines())
    return {module: set(names.split()) for module, names in lines}


def resolves(name: str, names: dict[str, set[str]]) -> bool:
    """Whether each part is in its module; below the last module, attributes are not known."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        owner = ".".join(parts[:end])
        if owner not in names:
            return True
        if parts[end] not in names[owner] and ".".join(parts[: end + 1]) not in names and parts[end][:2] != "__":
            return False
    return True


@pytest.mark.parametrize("version", ["13.6.0", "14.2.0"])
def test_cupy_has_every_name_that_chainer_uses(version: str, used: dict[str, list[str]]) -> None:
    names = read_names(NAMES / f"cupy-{version}.txt")
    wanted = {name.replace("xp.", "cupy.", 1) if name.startswith("xp.") else name: at for name, at in used.items()}
    missing = {name: at for name, at in wanted.items() if name not in GUARDED and not resolves(name, names)}
    assert missing == {}


def test_numpy_has_every_name_that_chainer_shares_with_cupy(used: dict[str, list[str]]) -> None:
    missing = []
    for name in (name for name in used if name.startswith("xp.")):
        thing: object = numpy
        for part in name.split(".")[1:]:
            thing = getattr(thing, part, None)
        if thing is None:
            missing.append(name)
    assert missing == []


def test_the_search_finds_the_ways_in_which_chainer_writes_cupy(used: dict[str, list[str]]) -> None:
    assert {"cupy.ElementwiseKernel", "cupyx.scatter_add", "cupy.cuda.cublas", "xp.zeros"} <= used.keys()
    assert chains("a.xp.random.rand(3); cuda.cupy.x.y; from cupy.cuda import nccl") == {
        "xp.random.rand",
        "cupy.x.y",
        "cupy.cuda.nccl",
    }


def test_a_name_that_is_gone_is_noticed() -> None:
    names = read_names(NAMES / "cupy-14.2.0.txt")
    assert resolves("cupy.random.uniform", names)
    assert not resolves("cupy.random.no_such_function", names)
    assert not resolves("cupy.util.PerformanceWarning", names)
