"""The emulator is a distribution of its own, installed alone."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import venv
from importlib.metadata import distribution, entry_points, requires
from pathlib import Path

import pytest
import requests
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOOK_AROUND = """\
import json
from importlib.metadata import distributions, entry_points
print(json.dumps({
    "distributions": sorted(one.metadata["Name"].lower() for one in distributions()),
    "plug-ins": [point.value for point in entry_points(group="pytest11")],
    "commands": [point.value for point in entry_points(group="console_scripts", name="azureml-emulator")],
}))
"""
LOADED_BY_A_CLIENT = """\
import sys
from azureml_emulator import Endpoint, Settings, find, start_in_background
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"fastapi", "uvicorn", "cryptography", "jwt"}))
"""


def closure(name: str) -> set[str]:
    """A distribution and all that it asks for, directly or not, without extras."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        one = canonicalize_name(waiting.pop())
        if one in found:
            continue
        found.add(one)
        wanted = [Requirement(line) for line in requires(one) or []]
        waiting += [item.name for item in wanted if item.marker is None or item.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment that has the emulator and what it asks for, and nothing else.

    The packages are those of this environment, by links: so no index is needed.
    """
    folder = tmp_path_factory.mktemp("alone") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    site_packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    for name in closure("azureml-emulator"):
        installed = distribution(name)
        for top in {path.parts[0] for path in installed.files or []} - {"..", "__pycache__"}:
            (site_packages / top).symlink_to(str(installed.locate_file(top)))
    return folder / "bin" / "python"


def output_of(command: list[str | Path], folder: Path) -> str:
    # Away from the repository, and without what points back to it.
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(command, cwd=folder, env=variables, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_it_brings_neither_chainer_nor_trainer_and_has_the_plug_in(python: Path, tmp_path: Path) -> None:
    found = json.loads(output_of([python, "-c", LOOK_AROUND], tmp_path))
    assert "fastapi" in found["distributions"]
    assert not {"trainer", "chainer", "numpy", "azureml-core"} & set(found["distributions"])
    assert "azureml_emulator.pytest_plugin" in found["plug-ins"]
    assert found["commands"] == ["azureml_emulator.cli:main"]


def test_what_it_asks_for_is_enough_to_serve(python: Path, tmp_path: Path) -> None:
    command = [python, "-m", "azureml_emulator", "--state", "state"]
    output_of([*command, "--print-env"], tmp_path)
    try:
        described = json.loads((tmp_path / "state" / "endpoint.json").read_text())
        session = requests.Session()
        session.trust_env = False
        health = session.get(f"{described['url']}/_emulator/health", verify=described["ca"], timeout=600).json()
        assert health["workspace_id"] == described["workspace_id"]
        assert health["service"] == "azureml-emulator"
    finally:
        output_of([*command, "--stop"], tmp_path)
    assert not (tmp_path / "state" / "endpoint.json").exists()


def test_a_client_loads_no_server(python: Path, tmp_path: Path) -> None:
    assert output_of([python, "-c", LOADED_BY_A_CLIENT], tmp_path).strip() == ""


def test_the_plug_in_does_not_come_with_trainer() -> None:
    plug_ins = entry_points(group="pytest11", name="azureml_emulator")
    assert [point.dist.name for point in plug_ins if point.dist] == ["azureml-emulator"]
