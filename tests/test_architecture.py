"""The arrows of docs/architecture.md, kept by reading every import of the tree: statements, and names looked up."""

import ast
import functools
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

from trainer import runtime
from trainer.cli.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"trainer": ".", "backends": ".", "azureml_emulator": "azureml-emulator/src"}
OURS = ("trainer", "backends", "azureml_emulator", "chainer_mnist")

# What each part may import of ours, the longest matching prefix deciding. A part may always import itself.
ALLOWED = {
    "trainer.runtime": (),
    "trainer": ("trainer",),
    "backends": ("trainer", "backends"),
    "azureml_emulator": (),
    "chainer_mnist": ("trainer.runtime",),
}
EXCEPTIONS = {
    # The two arrows to the emulator's public interface: the command that serves, and the backend that is served.
    ("trainer.cli.emulator", "azureml_emulator"),
    ("backends.azure.emulator", "azureml_emulator"),
    # The registry: BACKENDS maps names to dotted paths, and only the one that a user names is imported.
    ("trainer.backend", "backends"),
    # On the user's machine a script run by hand asks the client's cache for its data; on a node, where only the
    # runtime is, the name is looked up, found missing and said so.
    ("trainer.runtime.datasets.dataset", "trainer.data"),
}
# Third-party packages that the travelling runtime may name: a node has nothing else for certain.
RUNTIME_THIRD_PARTY = {"numpy", "chainer", "chainerx", "cupy", "cupyx"}
# Named there only behind a guard, because a node may or may not have them (protobuf is Chainer's).
RUNTIME_GUARDED = {
    "azureml",
    "google",
    "pandas",
    "threadpoolctl",
    "mpi4py",
    "chainermn",
    "onnx",
    "sitecustomize",
    "torch",
}
# Commands that only read the disk must not pay for these.
HEAVY = {
    *("chainer", "numpy", "cupy", "azure", "azureml", "mlflow", "matplotlib", "mlxtend"),
    *("onnx", "onnxruntime", "safetensors"),
}

# Imported in the serving processes alone.
IN_WORKERS = ("trainer.serving.inputs", "trainer.serving.network")

# Functions that import what their first argument names.
LOADERS = {"import_module", "resolve_name", "__import__", "run_module"}
# Their calls whose argument can't be known by reading: what of ours they import, and why they are there.
COMPUTED: dict[tuple[str, str], tuple[set[str], str]] = {
    ("trainer.cli.commands", "importlib.import_module(f'trainer.cli.{self.module}')"): (
        {f"trainer.cli.{command.module}" for command in COMMANDS.values()},
        "the table of commands, each imported when it is named",
    ),
    ("trainer.backend", "pkgutil.resolve_name(where)"): (
        set(),
        "a backend: one of BACKENDS, which counts where that table is taken, or another package's entry point",
    ),
    ("trainer.runtime", "importlib.import_module(f'{__name__}.{module}')"): (
        {f"trainer.runtime.{module}" for module, _ in runtime._HOMES.values()},
        "the names of the package, each imported when a script takes it",
    ),
    ("trainer.runtime.fast", "importlib.import_module(f'{__name__}.{module}')"): (
        {"trainer.runtime.fast"},
        "a means of its own package, imported once the script imports Chainer",
    ),
    ("trainer.runtime.kernels", "importlib.import_module(f'{__name__}.{module}')"): (
        {"trainer.runtime.kernels"},
        "PyTorch's kernels for one module of Chainer, imported with that module",
    ),
    ("trainer.runtime.fast.importing", "importlib.import_module(self.__name__)"): (
        set(),
        "SciPy and Pillow, which Chainer imports and most scripts never use",
    ),
    ("trainer.runtime.fast.applying", "importlib.import_module(f'chainer.functions.{module}')"): (
        set(),
        "the functions of Chainer in a declared list",
    ),
    ("trainer.runtime.shadowing", "__import__(name)"): (set(), "the standard library's modules that the runtime needs"),
    ("trainer.runtime.launch", "runpy.run_module(target, run_name='__main__', alter_sys=True)"): (
        set(),
        "the user's script, given as a module",
    ),
    ("trainer.runtime.azureml_stand_in", "importlib.import_module(module)"): (set(), "the Azure ML SDK, if installed"),
    ("trainer.runtime.site.sitecustomize", "importlib.import_module(module)"): (
        {"trainer.runtime.compat", "trainer.runtime.reporting"},
        "a layer, once the script imports Chainer",
    ),
    ("trainer.runtime.warm", "importlib.import_module(name)"): (
        {
            *("trainer.runtime.compat.auto", "trainer.runtime.datasets", "trainer.runtime.training.checkpoint"),
            *("trainer.runtime.training.compiled", "trainer.runtime.training.extensions"),
            *("trainer.runtime.training.iterator", "trainer.runtime.training.machine"),
        },
        "what a study's trials are going to import, before they are forked",
    ),
    ("backends.azure.session", "importlib.import_module(module)"): (set(), "the Azure ML SDK v1"),
    ("backends.azure.v2.client", "importlib.import_module(module)"): (set(), "the Azure ML SDK v2"),
}


def modules() -> dict[str, Path]:
    found = {"chainer_mnist": ROOT / "chainer_mnist.py"}
    for package, folder in PACKAGES.items():
        for path in sorted((ROOT / folder / package).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@functools.cache
def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text())


def imports(name: str, *, top_level_only: bool = False) -> Iterator[str]:
    """Dotted names that a module imports; those under ``if TYPE_CHECKING`` cost nothing and don't count."""

    def visit(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if top_level_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{base(name, node)}.{alias.name}" for alias in node.names)
        elif is_loader(node):
            yield from looked_up(name, node) or COMPUTED.get((name, ast.unparse(node)), (set(), ""))[0]
        elif isinstance(node, ast.Attribute) and is_loader(node.value):
            # import_module("package").TABLE: whoever takes a table of dotted names loads what is in it.
            for module in looked_up(name, node.value) or ():
                if module in MODULES:
                    yield from (text.partition(":")[0] for text in constant(module, node.attr) or ())
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    yield from visit(tree(name))


def base(name: str, node: ast.ImportFrom) -> str:
    """The module that a ``from`` statement names, absolute."""
    if not node.level:
        return node.module or ""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    above = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


def is_loader(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and bool(node.args) and ast.unparse(node.func).rpartition(".")[2] in LOADERS


def looked_up(name: str, call: ast.Call) -> list[str] | None:
    """Dotted names that a call of a loader imports; None if its argument can't be known by reading."""
    found = values(name, call.args[0])
    return None if found is None else [value.partition(":")[0] for value in found]


def values(name: str, node: ast.expr) -> list[str] | None:
    """Every text that an expression can stand for; None if it can't be known by reading."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else None
    if isinstance(node, ast.Name):
        return [name] if node.id == "__name__" else constant(name, node.id)
    if isinstance(node, ast.FormattedValue):
        return values(name, node.value)
    if isinstance(node, ast.JoinedStr):
        parts = [values(name, part) for part in node.values]
        known = [part for part in parts if part is not None]
        return ["".join(words) for words in itertools.product(*known)] if len(known) == len(parts) else None
    if isinstance(node, ast.Subscript):
        return values(name, node.value)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
        return values(name, node.func.value)
    return None


def constant(name: str, word: str) -> list[str] | None:
    """The texts of a constant or literal table that a module defines, or imports from another of ours."""
    if word in constants(name):
        return constants(name)[word]
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ImportFrom) and (module := base(name, node)) in MODULES and module != name:
            for alias in node.names:
                if word == (alias.asname or alias.name):
                    return constant(module, alias.name)
    return None


@functools.cache
def constants(name: str) -> dict[str, list[str]]:
    found = {}
    for node in tree(name).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name) and (texts := literal(node.value)):
                    found[target.id] = texts
    return found


def literal(node: ast.expr) -> list[str]:
    items = (
        node.values if isinstance(node, ast.Dict) else node.elts if isinstance(node, ast.Tuple | ast.List) else [node]
    )
    texts = [item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)]
    return texts if len(texts) == len(items) else []


def part(name: str) -> str:
    return max((prefix for prefix in ALLOWED if within(name, prefix)), key=len)


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def excepted(name: str, target: str) -> bool:
    return any(name == source and within(target, to) for source, to in EXCEPTIONS)


def test_arrows_point_one_way() -> None:
    for name in MODULES:
        allowed = (*ALLOWED[part(name)], part(name))
        for target in imports(name):
            if not any(within(target, ours) for ours in OURS) or excepted(name, target):
                continue
            assert any(within(target, prefix) for prefix in allowed), f"{name} imports {target}"


def test_runtime_needs_only_what_a_node_has() -> None:
    always = RUNTIME_THIRD_PARTY | {"trainer"} | sys.stdlib_module_names
    for name in MODULES:
        if not within(name, "trainer.runtime"):
            continue
        for target in imports(name):
            assert target.partition(".")[0] in always | RUNTIME_GUARDED, f"{name} imports {target}"
        for target in imports(name, top_level_only=True):
            assert target.partition(".")[0] in always, f"{name} imports {target} at its top level"


def test_azureml_is_imported_in_one_place() -> None:
    for name in MODULES:
        reporting = within(name, "trainer.runtime")  # the script's side: Run.get_context()
        emulator = within(name, "azureml_emulator")  # the job's side of the service: the SDK's history context
        backend = name.startswith("backends.azure")
        if not (reporting or emulator or backend):
            assert not [target for target in imports(name) if within(target, "azureml")], name


def test_core_imports_nothing_heavy_at_its_top_level() -> None:
    for name in MODULES:
        if part(name) in ("trainer", "backends"):
            heavy = {target.partition(".")[0] for target in imports(name, top_level_only=True)} & HEAVY
            assert not heavy or name.startswith(
                ("backends.azure", "trainer.modeluse", "trainer.data.own", "trainer.export", *IN_WORKERS)
            ), f"{name} imports {heavy}"


def test_core_names_no_backend() -> None:
    for name in MODULES:
        if part(name) == "trainer":
            found = {target for target in imports(name) if within(target, "backends") and not excepted(name, target)}
            assert not found, f"{name} imports {found}"


def test_computed_imports_are_listed() -> None:
    calls = {
        (name, ast.unparse(node))
        for name in MODULES
        for node in ast.walk(tree(name))
        if is_loader(node) and looked_up(name, node) is None
    }
    assert calls == set(COMPUTED)


def test_imports_through_names_are_seen() -> None:
    assert {"backends", "backends.local", "backends.azureml"} <= set(imports("trainer.backend"))
    assert "trainer.modeluse.plots" in set(imports("trainer.modeluse"))
    assert "trainer.cli.runlist" in set(imports("trainer.cli.commands"))


def test_imports_have_no_cycle() -> None:
    graph = {
        name: {
            target
            for imported in imports(name)
            for target in (imported, imported.rpartition(".")[0])
            if target in MODULES and target != name and not excepted(name, target)
        }
        for name in MODULES
    }
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name in done:
            return
        for target in sorted(graph[name]):
            # A package's __init__ runs before its submodules whoever asks: that is no arrow of ours.
            if not within(name, target):
                walk(target, (*trail, name))
        done.add(name)

    for name in graph:
        walk(name, ())


@pytest.mark.parametrize(
    "module", ["trainer.cli", "trainer.handle", "trainer.backend", "trainer.artifacts", "backends.local"]
)
def test_importing_a_start_up_module_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not set(loaded) & (HEAVY | {"requests", "rich.console"})
