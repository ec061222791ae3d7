"""What Microsoft's samples do beyond the tutorial, with the unmodified SDK."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from azureml_emulator import Emulator, Endpoint, Settings
from tests.emulator.clients import PROGRAMS, Http, Sdk, SdkError, client_environment


def write_job(folder: Path, text: str) -> str:
    (folder / "train.py").write_text(text)
    return str(folder)


# Files that a script uploads itself


def test_a_file_in_outputs_that_the_script_has_uploaded_itself(sdk: Sdk, tmp_path: Path) -> None:
    source = write_job(
        tmp_path,
        "import pathlib\n"
        "from azureml.core import Run\n"
        "run = Run.get_context()\n"
        "for name in ('a', 'b'):\n"
        "    pathlib.Path(f'outputs/{name}.txt').write_text(name)\n"
        "run.upload_file('outputs/a.txt', 'outputs/a.txt')\n",
    )
    run_id = sdk.submit(source=source)
    assert sdk.wait(run_id=run_id) == "Completed"
    log = sdk.log_text(run_id=run_id)
    assert "Resource Conflict: ArtifactId" in log
    assert "outputs/a.txt already exists" in log
    assert "Traceback" not in log
    for name in ("a", "b"):
        sdk.download(run_id=run_id, name=f"outputs/{name}.txt", target=str(tmp_path / "back"))
        assert (tmp_path / "back").read_text() == name


@pytest.mark.slow
def test_a_watched_file_that_the_script_has_uploaded_itself(sdk: Sdk, tmp_path: Path) -> None:
    source = write_job(
        tmp_path,
        "import pathlib, time\n"
        "from azureml.core import Run\n"
        "run = Run.get_context()\n"
        "pathlib.Path('mine.txt').write_text('uploaded')\n"
        "run.upload_file('logs/a.txt', 'mine.txt')\n"
        "pathlib.Path('logs/a.txt').write_text('streamed')\n"
        "pathlib.Path('logs/b.txt').write_text('beside it')\n"
        "time.sleep(15)\n",
    )
    run_id = sdk.submit(source=source)
    assert sdk.wait(run_id=run_id) == "Completed"
    assert {"logs/a.txt", "logs/b.txt"} <= set(sdk.files(run_id=run_id))


def test_a_second_upload_of_a_name_is_an_error_that_names_it(sdk: Sdk, tmp_path: Path) -> None:
    with pytest.raises(SdkError, match=r"Resource Conflict: ArtifactId ExperimentRun/dcid\..*/a\.txt already exists"):
        sdk.upload_again(directory=str(tmp_path))


def test_new_names_are_given_links_beside_refused_ones(http: Http) -> None:
    url = f"/artifact/v2.0{http.workspace}/artifacts/batch/metadata/LocalUpload/conflict"
    first = http("POST", url, json={"paths": [{"path": "a"}]}).json()
    assert first["errors"] == {}
    # A name that has been asked for, and not been uploaded, is free.
    first = http("POST", url, json={"paths": [{"path": "a"}]}).json()
    write = first["artifactContentInformation"]["a"]["contentUri"].replace("emu.blob.local@", "")
    assert http("PUT", write, token=None, data=b"x").status_code == 201
    second = http("POST", url, json={"paths": [{"path": "./a"}, {"path": "b"}]}).json()
    assert list(second["artifacts"]) == list(second["artifactContentInformation"]) == ["b"]
    assert second["errors"]["./a"]["error"]["code"] == "UserError"


# Local runs


def test_a_local_run(sdk: Sdk, tmp_path: Path) -> None:
    source = write_job(
        tmp_path,
        "import pathlib, sys\n"
        "from azureml.core import Run\n"
        "run = Run.get_context(allow_offline=False)\n"
        "run.log('Argument', int(sys.argv[1]))\n"
        "pathlib.Path('outputs/result.txt').write_text(pathlib.Path('data.txt').read_text())\n",
    )
    (tmp_path / "data.txt").write_text("beside the script")
    run_id = sdk.submit_local(source=source, arguments=[7])
    assert sdk.wait(run_id=run_id) == "Completed"
    assert sdk.metrics(run_id=run_id) == {"Argument": 7}
    sdk.download(run_id=run_id, name="outputs/result.txt", target=str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "beside the script"
    started = Path("/tmp/azureml_runs", run_id, "azureml-setup", "Invocation.sh")
    assert "eyJ" not in started.read_text(), "a token where everybody can read it"
    shutil.rmtree(started.parents[1])


def test_a_local_run_fails_and_is_cancelled_as_others_are(sdk: Sdk, job_source: str) -> None:
    failing = sdk.submit_local(source=job_source, arguments=["--epochs", 1, "--fail"])
    waiting = sdk.submit_local(source=job_source, arguments=["--epochs", 1000, "--sleep", 1])
    sdk.wait_for_metric(run_id=waiting, name="Accuracy")
    sdk.cancel(run_id=waiting)
    assert sdk.wait(run_id=waiting) == "Canceled"
    assert sdk.wait(run_id=failing) == "Failed"
    assert "asked to fail" in sdk.details(run_id=failing)["error"]["error"]["message"]
    for run_id in (failing, waiting):
        shutil.rmtree(Path("/tmp/azureml_runs", run_id))


def test_a_run_for_a_cluster_is_no_local_run(http: Http) -> None:
    url = f"/execution/v1.0{http.workspace}/experiments/e/localrun?runId=r2"
    definition = json.dumps({"Configuration": {"script": "train.py", "target": "cpu"}})
    for text in (definition, "{", "[]", "{}"):
        assert http("POST", url, files=[("files", ("definition.json", text))]).status_code == 400
    assert http("POST", url, files=[("files", ("other.json", definition))]).status_code == 400


# Nodes, tags


def test_the_nodes_of_a_cluster(sdk: Sdk) -> None:
    sdk.create_cluster(name="listed", min_nodes=1, max_nodes=2)
    run_id = sdk.submit(source=str(PROGRAMS / "job"), command=["sleep", "300"], target="listed", nodes=1)
    sdk.wait_for(run_id=run_id, statuses=["Running"])
    found = sdk.nodes(name="listed")
    assert [node["runId"] for node in found if node["nodeState"] == "running"] == [run_id]
    assert {"nodeId", "port", "publicIpAddress", "privateIpAddress"} <= set(found[0])
    sdk.cancel(run_id=run_id)
    assert sdk.wait(run_id=run_id) == "Canceled"


def test_runs_are_found_by_tags_whose_names_have_spaces(sdk: Sdk, job_source: str) -> None:
    tags = {"data set": "fashion (small) and clean", "plain": "1", "a eq b": "c"}
    run_id = sdk.submit(source=job_source, command=["true"], experiment="tagged", tags=tags)
    other = sdk.submit(source=job_source, command=["true"], experiment="tagged", tags={"data set": "digits"})
    assert sdk.find_runs(experiment="tagged", tags={"data set": "fashion (small) and clean"}) == [run_id]
    assert set(sdk.find_runs(experiment="tagged", tags="data set")) == {other, run_id}
    assert sdk.find_runs(experiment="tagged", tags={"a eq b": "c", "plain": "1"}) == [run_id]
    assert sdk.find_runs(experiment="tagged", tags="no such tag") == []
    assert sdk.wait(run_id=run_id) == sdk.wait(run_id=other) == "Completed"


# Environments


def test_environments_are_registered_listed_and_used(sdk: Sdk, job_source: str) -> None:
    assert sdk.register_environment(name="samples env", packages=["numpy"]) == ["samples env", "1"]
    assert sdk.register_environment(name="samples env", packages=["numpy"]) == ["samples env", "1"]
    assert sdk.register_environment(name="samples env", packages=["chainer"], label="good") == ["samples env", "2"]
    assert sdk.register_environment(name="samples env", packages=["cupy"], version="pinned")[1] == "pinned"
    # The SDK adds a package of its own.
    assert sdk.environment(name="samples env", version="1") == ["1", ["azureml-defaults", "numpy"]]
    assert sdk.environment(name="samples env", label="good") == ["2", ["azureml-defaults", "chainer"]]
    assert sdk.environment(name="samples env") == ["pinned", ["azureml-defaults", "cupy"]]
    assert sdk.environments()["samples env"] == "pinned"
    run_id = sdk.submit_with_environment(source=job_source, name="samples env")
    assert sdk.wait(run_id=run_id) == "Completed"
    with pytest.raises(SdkError, match="404"):
        sdk.environment(name="nowhere")


# Sizes


def test_the_common_sizes_are_offered_and_a_refusal_names_the_remedy(tmp_path: Path) -> None:
    with Emulator(tmp_path / "state") as endpoint:
        (tmp_path / "client").mkdir()
        sdk = Sdk(endpoint, tmp_path / "client")
        sizes = set(sdk.vm_sizes())
        assert {"Standard_D2_v2", "Standard_DS3_v2", "Standard_NC4as_T4_v3"} <= sizes
        assert "Standard_NC6" not in sizes
        assert sdk.create_cluster(name="common", size="STANDARD_D2_V2")["vmSize"] == "STANDARD_D2_V2"
        with pytest.raises(SdkError, match="InvalidVmSize") as refusal:
            sdk.create_cluster(name="old", size="STANDARD_NC6")
        assert "--offer-retired-sizes" in str(refusal.value)
        with pytest.raises(SdkError, match="InvalidVmSize") as refusal:
            sdk.create_cluster(name="none", size="STANDARD_NONSENSE")
        assert "--offer-retired-sizes" not in str(refusal.value)
        sdk.close()


# What a job finds


def test_a_job_may_be_given_a_site(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import builtins; builtins.SITE = 'found'\n")
    (tmp_path / "source").mkdir()
    source = write_job(tmp_path / "source", "print('site', SITE)\n")
    with Emulator(tmp_path / "state", settings=Settings(phase_duration=0.0, job_site=site)) as endpoint:
        (tmp_path / "client").mkdir()
        sdk = Sdk(endpoint, tmp_path / "client")
        run_id = sdk.submit(source=source)
        assert sdk.wait(run_id=run_id) == "Completed"
        assert "site found" in sdk.log_text(run_id=run_id)
        sdk.close()


TELEMETRY_ON = {"send_diagnostics": True, "diagnostics_verbosity": "INFO", "azureml.core": True, "any": True}
LOOK = """\
import sys
from azureml import telemetry
telemetry._get_telemetry_log_file_path = lambda: sys.argv[1]
print(telemetry.get_diagnostics_collection_info("any"))
"""


def test_telemetry_is_off_whatever_the_sdk_s_file_says(sdk: Sdk, emulator: Endpoint, tmp_path: Path) -> None:
    switch = tmp_path / "telemetry.json"
    switch.write_text(json.dumps(TELEMETRY_ON))
    source = tmp_path / "source"
    source.mkdir()
    run_id = sdk.submit(source=write_job(source, LOOK), arguments=[str(switch)])
    assert sdk.wait(run_id=run_id) == "Completed"
    assert "(False, 'NOTSET')" in sdk.log_text(run_id=run_id)
    command = [sys.executable, str(source / "train.py"), str(switch)]
    environment = client_environment(emulator)
    asked = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=True)
    assert asked.stdout.strip() == "(False, 'NOTSET')"
    # The file does switch it on where nothing else is said, or this test would say nothing.
    del environment["HBI_WORKSPACE_JOB"]
    asked = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=True)
    assert asked.stdout.strip() == "(True, 'INFO')"
