"""A stranger's backend: the recipe of CONTRIBUTING.md, as a package of its own, installed into a fresh environment."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Project, clean_environment

ROOT = Path(__file__).resolve().parents[2]
BROKEN = {
    "no_subclass": ("class Broken: ...", "is not a subclass of trainer.backend.Backend"),
    "no_cancel": (
        "from trainer.backend import Backend\n"
        "class Broken(Backend):\n    name = 'broken'\n"
        "    def submit(self, folder): ...\n    def refresh(self, folder): ...",
        "Broken has no cancel",
    ),
    "other_name": (
        "from trainer_mine import MyBackend\nclass Broken(MyBackend): ...",
        "its name is 'mine', and its entry point's is 'broken'",
    ),
    "option_undescribed": (
        "from trainer_mine import MyBackend\nfrom trainer.options import Options\n"
        "class Some(Options):\n    region: str = 'us'\n"
        "class Broken(MyBackend):\n    name = 'broken'\n    options_type = Some",
        "region is not described",
    ),
    "fails_at_import": ("1 / 0", "can't be imported: ZeroDivisionError: division by zero"),
}


def recipe() -> Iterator[tuple[str, str]]:
    """The files that CONTRIBUTING.md shows, by name."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    yield from re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def install(python: Path, package: Path) -> None:
    """Build a package into a wheel and install it, with what is on this machine."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=package, check=True)
    wheel = next((package / "dist").glob("*.whl"))
    uv = shutil.which("uv")
    tool = (
        [uv, "pip", "install", "--python", str(python)]
        if uv
        else [sys.executable, "-m", "pip", "--python", str(python)]
    )
    words = ["install"] if not uv else []
    subprocess.run([*tool, *words, "--no-deps", "--no-index", str(wheel)], check=True)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment's Python. It sees what this one has installed, and has the recipe's package besides."""
    top = tmp_path_factory.mktemp("environment")
    venv.create(top / "venv", symlinks=True)
    python = top / "venv" / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    # Through `site`, so that the .pth file of an editable install is read too.
    here = [path for path in sys.path if path.endswith("site-packages")]
    lines = [f"import site; site.addsitedir({path!r})" for path in here]
    Path(site.stdout.strip(), "this_environment.pth").write_text("\n".join(lines) + "\n")
    package = top / "package"
    package.mkdir()
    files = dict(recipe())
    assert sorted(files) == ["pyproject.toml", "trainer_mine.py"]
    for name, text in files.items():
        (package / name).write_text(text)
    install(python, package)
    return python


@pytest.fixture
def project(tmp_path: Path, tiny_data: Path, environment: Path) -> Project:
    project = Project(tmp_path / "project", tiny_data, tmp_path)
    project.command = [str(environment), "-m", "trainer"]
    return project


def test_the_recipe_is_short() -> None:
    code = dict(recipe())["trainer_mine.py"]
    assert len([line for line in code.splitlines() if line.strip()]) <= 60


def test_it_is_not_in_this_environment(tmp_path: Path, tiny_data: Path) -> None:
    ran = Project(tmp_path / "project", tiny_data, tmp_path).trainer("run", "--backend", "mine", "--dry-run")
    assert ran.returncode == 2
    assert "There is no backend 'mine'." in ran.stderr


@pytest.mark.slow
def test_it_keeps_the_contract(environment: Path, tmp_path: Path) -> None:
    own = clean_environment(tmp_path)
    words = [
        "-m",
        "pytest",
        "-q",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        str(Path(__file__).with_name("plugin_tests.py")),
    ]
    ran = subprocess.run([environment, *words], cwd=ROOT, env=own, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"^\d\d passed", ran.stdout.splitlines()[-1]), ran.stdout


def test_run_detach_attach_and_cancel(project: Project) -> None:
    ran = project.train("--backend", "mine", "--json")
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert (result["backend"], result["status"], result["model"]["version"]) == ("mine", "Completed", 1)
    sleeps = project.script("import time\nprint('up', flush=True)\ntime.sleep(600)\n")
    detached = project.trainer("run", "--backend", "mine", "--script", sleeps, "--detach")
    assert detached.returncode == 0, detached.stderr
    run_id = detached.stdout.strip()
    assert project.trainer("cancel", run_id).returncode == 0
    attached = project.trainer("attach", run_id)
    assert f"Run {run_id} was canceled." in attached.stderr
    listed = project.trainer("models", "--backend", "mine", "--json")
    assert [version["name"] for version in json.loads(listed.stdout)] == ["chainer-dnn-mnist"]
    assert project.trainer("fetch", "chainer-dnn-mnist", "--backend", "mine").returncode == 0


def test_options_by_flag_table_and_variable(project: Project) -> None:
    def region(*words: str, **options: object) -> str:
        ran = project.trainer("run", "--backend", "mine", "--dry-run", "--json", *words, **options)
        assert ran.returncode == 0, ran.stderr
        return str(json.loads(ran.stdout)["details"]["region"])

    assert region() == "us"
    (project.path / "pyproject.toml").write_text('[tool.trainer.mine]\nregion = "table"\n')
    assert region() == "table"
    assert region(env={"TRAINER_REGION": "plain"}) == "plain"
    assert region(env={"TRAINER_REGION": "plain", "TRAINER_MINE_REGION": "own"}) == "own"
    assert region("--region", "flag", env={"TRAINER_MINE_REGION": "own"}) == "flag"
    assert region("--region=eu") == "eu"
    shown = json.loads(project.trainer("config", "--backend", "mine", "--json").stdout)["settings"]["region"]
    assert shown == {"value": "table", "source": str(project.path / "pyproject.toml")}


def test_its_options_are_in_the_help_and_belong_to_it(project: Project) -> None:
    shown = project.trainer("run", "--help").stdout
    assert "options of the backend mine:" in shown
    assert "--region NAME" in shown
    assert "Where jobs run (default: us)." in shown
    refused = project.trainer("run", "--region", "eu")
    assert refused.returncode == 2
    assert "The local backend has no option --region." in refused.stderr
    assert "--backend mine" in refused.stderr
    unknown = project.trainer("run", "--backend", "mine", "--regoin", "eu")
    assert unknown.returncode == 2
    assert "Did you mean --region?" in unknown.stderr
    completed = project.trainer(
        env={
            "_ARGCOMPLETE": "1",
            "COMP_LINE": "trainer run --reg",
            "COMP_POINT": "17",
            "_ARGCOMPLETE_STDOUT_FILENAME": "out",
        }
    )
    assert completed.returncode == 0, completed.stderr
    assert "--region" in (project.path / "out").read_text()


@pytest.mark.parametrize(("code", "said"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_one_is_named_and_harms_no_other(project: Project, code: str, said: str) -> None:
    package = project.path / "broken"
    package.mkdir()
    (package / "trainer_broken.py").write_text(code + "\n")
    info = package / "trainer_broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trainer-broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[trainer.backends]\nbroken = trainer_broken:Broken\n")
    project.environment["PYTHONPATH"] = str(package)
    ran = project.trainer("run", "--backend", "broken", "--dry-run")
    assert ran.returncode == 3
    assert said in ran.stderr
    assert "bug in trainer" not in ran.stderr
    for words in (
        ["run", "--help"],
        ["run", "--backend", "mine", "--region", "eu", "--dry-run"],
        ["models"],
        ["config"],
    ):
        done = project.trainer(*words)
        assert done.returncode == 0, done.stderr


def test_without_a_registry_the_model_stays_in_the_run(project: Project, environment: Path) -> None:
    package = project.path / "bare"
    package.mkdir()
    code = "from trainer.backend import Backend\nfrom trainer_mine import MyBackend\n"
    code += "class Bare(MyBackend):\n    name = 'bare'\n    store = Backend.store\n"
    (package / "trainer_bare.py").write_text(code)
    info = package / "trainer_bare-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trainer-bare\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[trainer.backends]\nbare = trainer_bare:Bare\n")
    project.environment["PYTHONPATH"] = str(package)
    ran = project.train("--backend", "bare", "--json")
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert (result["status"], result["model"]) == ("Completed", None)
    assert "the bare backend has no model registry" in ran.stderr
    listed = project.trainer("models", "--backend", "bare")
    assert listed.returncode == 4
    assert listed.stderr.startswith("error: The bare backend has no model registry.")
    for words in (["deploy", "chainer-dnn-mnist"], ["services"]):
        refused = project.trainer(*words, "--backend", "bare")
        assert refused.returncode == 4
        assert refused.stderr.startswith("error: The bare backend deploys no models.")
