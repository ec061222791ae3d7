"""A run that is elsewhere: Azure ML on the loopback emulator, with the real SDK."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.cli.conftest import Project
from tests.cli.test_run_command import SLEEPER, wait_for_line

pytest.importorskip("azureml.core")
pytest.importorskip("fastapi")
pytestmark = pytest.mark.slow


@pytest.fixture
def emulated(project: Project) -> Iterator[Project]:
    """A project with an emulator of its own, in the foreground as ``trainer emulator`` runs it."""
    server = project.start("emulator", stdout=subprocess.DEVNULL)
    wait_for_line(server, "Azure ML emulator at https://127.0.0.1:")
    yield project
    server.send_signal(signal.SIGINT)
    server.communicate(timeout=600)
    assert server.returncode == 130 or server.returncode == 0


def test_interrupt_detaches(emulated: Project) -> None:
    process = emulated.start("run", "--backend", "azureml", "--emulator", "--script", emulated.script(SLEEPER))
    wait_for_line(process, "line 1")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    run_id = json.loads(emulated.trainer("runs", "--json").stdout)[0]["run_id"]
    assert f"error: Detached. Run {run_id} continues.\n" in err
    assert f"trainer attach {run_id}" in err
    assert f"trainer cancel {run_id}" in err
    assert "Traceback" not in err
    # The list doesn't ask elsewhere.
    listed = emulated.trainer("runs")
    assert "showing the last known status" in listed.stderr
    attached = emulated.start("attach", run_id)
    wait_for_line(attached, "line 3")
    assert emulated.trainer("cancel", run_id).returncode == 0
    _, err = attached.communicate(timeout=600)
    assert attached.returncode == 1
    assert f"error: Run {run_id} was canceled." in err


def test_a_refusal_leaves_no_run_behind(emulated: Project) -> None:
    script = ("--script", emulated.script("print('ran')"), "--dataset", "none")
    refused = emulated.trainer("run", "--backend", "azureml", "--emulator", "--vm-size", "Standard_FOO", *script)
    assert refused.returncode == 4
    assert (
        "error: This workspace doesn't offer the VM size Standard_FOO.\nhint: Use --vm-size Standard_" in refused.stderr
    )
    assert not emulated.runs.exists()
    nobody = emulated.trainer("run", "--backend", "azureml", *script, env={"PATH": os.defpath})
    assert nobody.returncode == 3
    assert "There is no workspace" in nobody.stderr
    (emulated.path / "config.json").write_text(
        '{"subscription_id": "00000000-0000-0000-0000-000000000001", "resource_group": "rg", "workspace_name": "ws"}'
    )
    nobody = emulated.trainer("run", "--backend", "azureml", *script, env={"PATH": os.defpath})
    assert nobody.returncode == 3
    assert "There is nothing to sign in to Azure with" in nobody.stderr
    assert not emulated.runs.exists()
    assert "There are no runs here" in emulated.trainer("show", "latest").stderr


def test_a_size_that_nobody_chose_is_no_warning(emulated: Project) -> None:
    script = ("--script", emulated.script("print('ran')"), "--dataset", "none", "--no-register")
    words = ("run", "--backend", "azureml", "--emulator", *script)
    first = emulated.trainer(*words)
    assert first.returncode == 0, first.stderr
    assert first.stderr.count("2023-08-31") == 1
    assert "warning" not in first.stderr
    run_id = emulated.runs.iterdir().__next__().name
    assert f"Run {run_id}: loading the SDK's Chainer estimator" in first.stderr
    again = emulated.trainer(*words)
    shown = emulated.trainer("show", "latest").stdout
    assert "2023-08-31" not in again.stderr + shown
    facts = dict(line.split(maxsplit=1) for line in shown.splitlines() if line.startswith(("Run ", "Sent ")))
    assert facts["Run"].split()[1] == "Completed", "the id is told once"
    assert datetime.strptime(facts["Sent"], "%Y-%m-%d %H:%M:%S")  # raises otherwise
    assert "VM size" in shown
    planned = emulated.trainer(*words, "--dry-run")
    assert "2023-08-31" in planned.stdout
    assert "warning" not in planned.stderr
    wide = emulated.trainer("run", "--backend", "azureml", "--emulator", "--nodes", "5", "--dry-run")
    assert "this job uses 5: more than --max-nodes 4" in wide.stdout
    none = emulated.trainer("models", "--backend", "azureml", "--emulator")
    assert none.stderr.endswith("Train one: trainer run --backend azureml --emulator\n")


def test_a_job_trains_on_the_data_that_travelled(emulated: Project) -> None:
    """The emulator gives jobs a compatibility layer; ours bring one of their own, which knows where their data is."""
    ran = emulated.train(
        "--backend", "azureml", "--emulator", "--compute", "my-cluster", "--vm-priority", "lowpriority", "--json"
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["dataset"] == "tiny"
    assert "tiny: 512 training and 128 test images" in emulated.trainer("logs", "latest").stdout
    # It is done again where it was, with no word of the emulator; what the command line says goes before.
    for command in (("rerun", "latest"), ("resume", "latest", "--", "--epochs", "5")):
        planned = emulated.trainer(command[0], "--dry-run", *command[1:])
        assert "the emulator of this project" in planned.stdout, planned.stderr
        assert re.search(r"^Compute +my-cluster$", planned.stdout, re.MULTILINE), planned.stdout
        assert re.search(r"^VM priority +lowpriority", planned.stdout, re.MULTILINE), planned.stdout
    other = emulated.trainer("rerun", "latest", "--compute", "other", "--vm-size", "Standard_ZZ9", "--dry-run").stdout
    assert re.search(r"^Compute +other$\nVM priority +dedicated", other, re.MULTILINE)
    assert "Standard_ZZ9 (hardware not known here, taken for one without a GPU)" in other
    elsewhere = emulated.trainer("rerun", "latest", "--workspace-config", "nowhere.json", "--dry-run")
    assert "the emulator of this project" not in elsewhere.stdout
    assert "my-cluster" not in elsewhere.stdout
