"""The arrows of docs/architecture.md, kept by reading every import statement of the tree."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    ("backends.azureml_support.emulator", "azureml_emulator"),
    # On the user's machine a script run by hand asks the client's cache for its data; on a node, where only the
    # runtime is, the name is looked up, found missing and said so.
    ("trainer.runtime.datasets.dataset", "trainer.data"),
}
# Third-party packages that the travelling runtime may name: a node has nothing else for certain.
RUNTIME_THIRD_PARTY = {"numpy", "chainer", "chainerx", "cupy", "cupyx"}
# Named there only behind a guard, because a node may or may not have them.
RUNTIME_GUARDED = {"azureml", "threadpoolctl", "mpi4py", "sitecustomize"}
# Commands that only read the disk must not pay for these.
HEAVY = {"chainer", "numpy", "cupy", "azureml", "matplotlib", "mlxtend"}


def modules() -> dict[str, Path]:
    found = {"chainer_mnist": ROOT / "chainer_mnist.py"}
    for package, folder in PACKAGES.items():
        for path in sorted((ROOT / folder / package).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Dotted names that a module imports; those under ``if TYPE_CHECKING`` cost nothing and don't count."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]

    def visit(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if top_level_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (word.value for word in node.args[:1] if isinstance(word, ast.Constant))
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    yield from visit(ast.parse(path.read_text()))


def part(name: str) -> str:
    return max((prefix for prefix in ALLOWED if within(name, prefix)), key=len)


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


MODULES = modules()


def test_arrows_point_one_way() -> None:
    for name, path in MODULES.items():
        allowed = (*ALLOWED[part(name)], part(name))
        for target in imports(name, path):
            if not any(within(target, ours) for ours in OURS):
                continue
            if any(name == source and within(target, to) for source, to in EXCEPTIONS):
                continue
            assert any(within(target, prefix) for prefix in allowed), f"{name} imports {target}"


def test_runtime_needs_only_what_a_node_has() -> None:
    always = RUNTIME_THIRD_PARTY | {"trainer"} | sys.stdlib_module_names
    for name, path in MODULES.items():
        if not within(name, "trainer.runtime"):
            continue
        for target in imports(name, path):
            assert target.partition(".")[0] in always | RUNTIME_GUARDED, f"{name} imports {target}"
        for target in imports(name, path, top_level_only=True):
            assert target.partition(".")[0] in always, f"{name} imports {target} at its top level"


def test_azureml_is_imported_in_one_place() -> None:
    for name, path in MODULES.items():
        reporting = within(name, "trainer.runtime")  # the script's side: Run.get_context()
        emulator = within(name, "azureml_emulator")  # the job's side of the service: the SDK's history context
        backend = name.startswith("backends.azureml")
        if not (reporting or emulator or backend):
            assert not [target for target in imports(name, path) if within(target, "azureml")], name


def test_core_imports_nothing_heavy_at_its_top_level() -> None:
    for name, path in MODULES.items():
        if part(name) in ("trainer", "backends"):
            heavy = {target.partition(".")[0] for target in imports(name, path, top_level_only=True)} & HEAVY
            assert not heavy or name.startswith(("backends.azureml", "trainer.modeluse")), f"{name} imports {heavy}"


def test_core_names_no_backend() -> None:
    for name, path in MODULES.items():
        if part(name) == "trainer":
            assert not [target for target in imports(name, path) if within(target, "backends")], name


def test_imports_have_no_cycle() -> None:
    graph = {
        name: {
            target
            for imported in imports(name, path, top_level_only=True)
            for target in (imported, imported.rpartition(".")[0])
            if target in MODULES and target != name
        }
        for name, path in MODULES.items()
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
    "module", ["trainer.cli", "trainer.run", "trainer.backend", "trainer.artifacts", "backends.local"]
)
def test_importing_a_start_up_module_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not set(loaded) & (HEAVY | {"requests", "rich.console"})
