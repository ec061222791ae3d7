"""The wheel: what it holds, and that two commands lead from it to a trained model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from trainer.errors import DISTRIBUTION

ROOT = Path(__file__).resolve().parents[2]
# Building Chainer takes its source, and pip takes its own packages, from the package index.
needs_an_index = pytest.mark.skipif(
    not os.environ.get("TRAINER_TEST_INDEX"), reason="set TRAINER_TEST_INDEX=1: installs from the package index"
)


def build(source: Path, target: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("dist"))


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


@pytest.fixture
def unpacked(wheel: Path, tmp_path: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    return tmp_path / "site"


def command(unpacked: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command of an unpacked wheel, with this environment's libraries."""
    line = [sys.executable, "-P", str(unpacked / "chainer_trainer.py"), *words]
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    return subprocess.run(line, cwd=unpacked.parent, env=environment, capture_output=True, text=True)


def test_the_wheel_has_a_name_of_its_own_and_no_dependency_that_fails_to_build(wheel: Path) -> None:
    found = metadata(wheel)
    assert found["Name"] == DISTRIBUTION == "chainer-trainer"
    plain = [line for line in found.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert plain
    assert not [line for line in plain if line.startswith("chainer")]
    assert "chainer==7.8.1; extra == 'chainer'" in found.get_all("Requires-Dist", [])


def test_its_urls_are_those_of_the_address_in_pyproject_and_none_without(wheel: Path, tmp_path: Path) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    if not tomllib.loads(text)["tool"]["hatch"]["metadata"]["hooks"]["custom"]["repository"]:
        assert not metadata(wheel).get_all("Project-URL")
    copy = tmp_path / "clone"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "tests", "bench", "__pycache__"))
    addressed = text.replace('repository = ""', 'repository = "https://example.org/someone/trainer/"')
    (copy / "pyproject.toml").write_text(addressed)
    found = metadata(build(copy, tmp_path / "dist"))
    urls = found.get_all("Project-URL", [])
    assert "Source, https://example.org/someone/trainer" in urls
    assert len(urls) == 4
    readme = str(found.get_payload())
    assert "](https://example.org/someone/trainer/blob/main/docs/azureml.md)" in readme
    assert "](docs/" not in readme


def test_every_page_of_the_documentation_is_in_it(unpacked: Path) -> None:
    listed = command(unpacked, "docs", "--json")
    assert listed.returncode == 0, listed.stderr
    pages = {item["page"]: item["path"] for item in json.loads(listed.stdout)}
    assert set(pages) == {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert all(path.startswith(str(unpacked)) for path in pages.values())
    shown = command(unpacked, "docs", "azureml")
    assert shown.stdout.strip() == (ROOT / "docs" / "azureml.md").read_text().strip()
    unknown = command(unpacked, "docs", "azurml")
    assert (unknown.returncode, unknown.stderr.splitlines()[1]) == (2, "hint: Did you mean: trainer docs azureml?")


def test_another_distribution_over_ours_is_named(unpacked: Path) -> None:
    """As after ``pip install trainer``, which is another project."""
    (unpacked / "trainer" / "__init__.py").write_text("from trainer.generic_utils import count_parameters\n")
    ran = command(unpacked, "--version")
    assert ran.returncode == 3
    error, hint = ran.stderr.splitlines()
    assert "another distribution named trainer was installed over this one" in error
    assert hint.endswith("pip uninstall trainer; pip install --force-reinstall --no-deps chainer-trainer")


def test_doctor_sees_another_distribution_beside_ours(unpacked: Path) -> None:
    info = unpacked / "trainer-0.0.36.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trainer\nVersion: 0.0.36\n")
    findings = json.loads(command(unpacked, "doctor", "--json").stdout)["findings"]
    found = next(item for item in findings if item["name"] == "the name trainer")
    assert (found["state"], "trainer 0.0.36" in found["found"]) == ("note", True)


def test_another_release_of_chainer_is_refused_before_anything_is_installed(unpacked: Path) -> None:
    info = unpacked / "chainer-6.7.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: chainer\nVersion: 6.7.0\n")
    ran = command(unpacked, "run")
    assert ran.returncode == 3
    assert ran.stderr.splitlines()[0] == "error: Chainer 6.7.0 is installed, and 7.8.1 is needed."
    assert not (unpacked.parent / ".trainer").exists()


def test_an_environment_without_chainer_and_without_an_installer_says_what_to_do(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    code = "import sys; sys.path.insert(0, sys.argv[1]); from trainer import provision; provision.ensure_chainer(print)"
    environment = {"PATH": "/nowhere", "HOME": str(tmp_path)}
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    import platformdirs

    (libraries / "platformdirs").symlink_to(Path(platformdirs.__file__).parent)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(libraries)
    ran = subprocess.run([python, "-c", code, libraries], env=environment, capture_output=True, text=True)
    assert ran.stdout == "Chainer 7.8.1 is not installed here: building it from its source, once.\n"
    assert "ConfigError: Chainer 7.8.1 is not installed here, and there is neither pip nor uv" in ran.stderr


def trained(command: list[str], folder: Path, environment: dict[str, str]) -> dict[str, object]:
    ran = subprocess.run(
        [*command, "run", "--epochs", "1", "--dataset", "mnist-5k", "--json"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["model"]["name"] == "chainer-dnn-mnist"
    return found["model"]


@needs_an_index
@pytest.mark.slow
@pytest.mark.timeout(900)
class TestTwoCommands:
    """README's commands, in an empty folder, with the wheel and the package index."""

    @pytest.fixture
    def empty(self, tmp_path: Path) -> Path:
        (tmp_path / "empty").mkdir()
        return tmp_path / "empty"

    @pytest.fixture
    def environment(self, tmp_path: Path) -> dict[str, str]:
        """No setting of this project's reaches the commands."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRAINER_", "VIRTUAL_ENV"))}
        tools = {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
        return {**kept, **tools, "TRAINER_DATA_DIR": str(tmp_path / "data"), "TRAINER_DATA_MIRRORS": "off"}

    def test_with_pip(self, wheel: Path, empty: Path, environment: dict[str, str], tmp_path: Path) -> None:
        venv.create(tmp_path / "venv", with_pip=True, symlinks=True)
        binaries = tmp_path / "venv" / "bin"
        subprocess.run([binaries / "pip", "install", "-q", f"{wheel}[sample]"], env=environment, check=True)
        trained([str(binaries / "trainer")], empty, environment)

    def test_with_uv_tool(self, wheel: Path, empty: Path, environment: dict[str, str], tmp_path: Path) -> None:
        install = ["uv", "tool", "install", "-q", "--python", sys.executable, f"{wheel}[sample]"]
        subprocess.run(install, cwd=empty, env=environment, check=True)
        trained([str(tmp_path / "bin" / "trainer")], empty, environment)

    def test_with_uvx(self, wheel: Path, empty: Path, environment: dict[str, str]) -> None:
        trained(["uvx", "-q", "--python", sys.executable, "--from", f"{wheel}[sample]", "trainer"], empty, environment)
