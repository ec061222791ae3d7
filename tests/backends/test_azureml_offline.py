"""What the azureml backend knows without a service: VM sizes, pins, the Dockerfile, sign-in, errors, its plan."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.azure import errors, restarts, session, signin, submit, sync, vm_sizes
from backends.azure.image import V1, V2, environment_of, find_pins, imported_modules, make_environment
from backends.azure.sdk import Run
from backends.azure.sync import Pace
from backends.azureml import AzureMLBackend
from tests.backends import sdk_warnings
from trainer.errors import ConfigError, NotFoundError, RefusedError, SignInError, UsageError
from trainer.home import Home
from trainer.job import TrainingJob
from trainer.records import RunStatus
from trainer.runfolder import RunFolder
from trainer.snapshot import Snapshot, build_snapshot, default_script
from trainer.submission import JobRequest, prepare

pytestmark = sdk_warnings.IGNORED


class TestVMSizes:
    def test_every_retired_size_has_a_successor_that_is_not(self) -> None:
        for size in vm_sizes.SIZES:
            assert (size.retired is None) == (size.successor is None), size
            if size.successor:
                successor = vm_sizes.look_up(size.successor)
                assert successor in vm_sizes.SIZES
                assert successor.retired is None
                assert successor.gpus >= size.gpus

    def test_names_are_unique_and_found_in_any_case(self) -> None:
        names = [size.name.lower() for size in vm_sizes.SIZES]
        assert len(names) == len(set(names))
        assert vm_sizes.look_up("STANDARD_NC6").retired == date(2023, 8, 31)

    def test_kepler_gets_cuda_11_and_everything_newer_12(self) -> None:
        assert vm_sizes.look_up("Standard_NC6").cuda == "11"
        assert {size.cuda for size in vm_sizes.SIZES if size.gpu != "NVIDIA K80"} == {"12"}
        assert vm_sizes.look_up("Standard_DS3_v2").cuda is None

    def test_a_size_missing_here_is_what_the_workspace_says(self) -> None:
        assert vm_sizes.look_up("Standard_NEW1", gpus=2).cuda == "12"
        assert vm_sizes.look_up("Standard_NEW1", gpus=0).cuda is None

    def test_the_default_is_used_where_it_is_offered(self) -> None:
        choice = vm_sizes.choose(None, [("STANDARD_NC6", 1), ("Standard_NC4as_T4_v3", 1)])
        assert (choice.size.name, choice.note) == ("Standard_NC6", None)

    def test_else_its_successor_and_that_is_said(self) -> None:
        choice = vm_sizes.choose(None, [("standard_nc4as_t4_v3", 1), ("Standard_DS3_v2", 0)])
        assert choice.size.name == "Standard_NC4as_T4_v3"
        assert choice.note
        assert "2023-08-31" in choice.note
        assert "Standard_NC4as_T4_v3" in choice.note

    def test_nothing_dearer_is_taken_unasked(self) -> None:
        with pytest.raises(RefusedError) as caught:
            vm_sizes.choose(None, [("Standard_NC40ads_H100_v5", 1)])
        assert "--vm-size Standard_NC40ads_H100_v5" in caught.value.hint

    def test_a_retired_size_by_hand_is_refused_with_the_flag_to_use(self) -> None:
        for offered in (None, [("Standard_NC6", 1), ("Standard_NC4as_T4_v3", 1)]):
            with pytest.raises(RefusedError, match="2023-08-31") as caught:
                vm_sizes.choose("standard_nc6", offered)
            assert caught.value.hint == "Use its successor: --vm-size Standard_NC4as_T4_v3"
            assert caught.value.exit_code == 4

    def test_a_size_that_is_not_offered_is_refused_with_one_that_is(self) -> None:
        with pytest.raises(RefusedError, match="doesn't offer") as caught:
            vm_sizes.choose("Standard_NC24ads_A100_v4", [("Standard_NC4as_T4_v3", 1), ("Standard_DS2_v2", 0)])
        assert "--vm-size Standard_NC4as_T4_v3" in caught.value.hint

    def test_a_retired_one_is_refused_before_anything_is_written(self, home: Home) -> None:
        with pytest.raises(RefusedError, match="retired"):
            AzureMLBackend(home, {"vm_size": "STANDARD_NC6", "emulator": True}).check(TrainingJob(script="train.py"))
        assert not home.path.exists()

    def test_a_missing_workspace_too(self, home: Home, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            AzureMLBackend(home, {"workspace_config": tmp_path}).check(TrainingJob(script="train.py"))
        assert "--emulator" in caught.value.hint
        assert not home.path.exists()


class TestOptions:
    def test_defaults_are_the_tutorials(self, home: Home) -> None:
        options = AzureMLBackend(home, {"vm_size": None}).options
        assert (options.compute, options.vm_size, options.max_nodes) == ("gpu-cluster", None, 4)

    @pytest.mark.parametrize(
        "given",
        [
            {"compute": "a"},
            {"compute": "-x-"},
            {"compute": "x" * 40},
            {"vm_size": "Standard NC6; rm"},
            {"max_nodes": 0},
            {"idle_minutes": -1},
            {"max_nodes": "many"},
            {"emulator": "yes"},
        ],
    )
    def test_unusable_ones_are_refused(self, home: Home, given: dict[str, object]) -> None:
        with pytest.raises(UsageError) as caught:
            AzureMLBackend(home, given)
        assert caught.value.hint


class TestPins:
    def test_they_are_what_is_installed_here(self) -> None:
        found = find_pins([], [], None)
        for name in ("numpy", "chainer", "azureml-core"):
            assert found.packages[name] == metadata.version(name)
        assert found.python == ".".join(map(str, sys.version_info[:3]))
        assert not any(name.startswith(("azureml-train", "cupy")) for name in found.packages)

    def test_they_are_closed_under_requirements(self) -> None:
        found = find_pins([], [], None)
        for name in found.packages:
            for requirement in _required(name):
                assert requirement in found.packages, f"{name} requires {requirement}"

    def test_what_the_script_imports_is_pinned(self, tmp_path: Path) -> None:
        (tmp_path / "train.py").write_text("import json, helper\n\ndef late():\n    from hypothesis import given\n")
        (tmp_path / "broken.py").write_text("def :\n")
        found = find_pins(sorted(tmp_path.glob("*.py")), ["helper"], None)
        assert found.packages["hypothesis"] == metadata.version("hypothesis")
        assert "hypothesis" not in find_pins([], [], None).packages

    def test_a_node_of_sdk_v2_has_that_of_v1_where_the_script_imports_it(self, home: Home, tmp_path: Path) -> None:
        size = vm_sizes.look_up("Standard_NC4as_T4_v3")
        found = {}
        for module in ("json", "azureml.core"):
            script = tmp_path / module / "train.py"
            script.parent.mkdir()
            script.write_text(f"import {module}\n")
            snapshot = prepare(JobRequest(script=script, dataset="none"), home).snapshot
            found[module] = [environment_of(snapshot, size, side).pins.packages for side in (V1, V2)]
        with_v1 = {module: ["azureml-core" in packages for packages in each] for module, each in found.items()}
        assert with_v1 == {"json": [True, False], "azureml.core": [True, True]}

    def test_what_no_index_has_is_left_out_and_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        site = tmp_path / "site"
        info = site / "ours-1.0+local.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ours\nVersion: 1.0+local\n")
        (info / "top_level.txt").write_text("ours\n")
        monkeypatch.syspath_prepend(str(site))
        script = tmp_path / "train.py"
        script.write_text("import ours\n")
        found = find_pins([script], [], None)
        assert "ours" not in found.packages
        assert "1.0+local" in found.left_out["ours"]

    @pytest.mark.parametrize(("cuda", "wheel"), [("12", "cupy-cuda12x"), ("11", "cupy-cuda11x")])
    def test_a_gpu_gets_the_cupy_of_its_cuda(self, cuda: vm_sizes.Cuda, wheel: str) -> None:
        names = {name for name in find_pins([], [], cuda).packages if name.startswith("cupy")}
        assert names == {wheel}

    @given(st.text())
    def test_any_text_can_be_a_source(self, tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
        path = tmp_path_factory.getbasetemp() / "source.py"
        path.write_text(text, encoding="utf-8", errors="replace")
        assert all(isinstance(name, str) for name in imported_modules([path]))


def _required(name: str) -> Iterator[str]:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield canonicalize_name(requirement.name)


class TestDockerfile:
    def test_every_package_is_pinned_exactly(self) -> None:
        found = find_pins([], [], None)
        text = make_environment(found, None).dockerfile
        words = [word for line in instructions(text, "RUN") for word in shlex.split(line)]
        requirements = {word for word in words if "==" in word}
        assert set(found.requirements()) <= requirements
        assert f"python={found.python}" in words
        assert not any(sign in word for word in words for sign in (">=", "<=", "~=", "*"))

    def test_equal_environments_have_one_name(self) -> None:
        found = find_pins([], [], None)
        first = make_environment(found, None)
        assert make_environment(found, None) == first
        other = msgspec.structs.replace(found, packages={**found.packages, "numpy": "1.26.4"})
        assert make_environment(other, None).name != first.name

    @pytest.mark.parametrize(("cuda", "part"), [(None, "ubuntu22.04"), ("12", "cuda12"), ("11", "cuda11")])
    def test_the_base_image_fits_the_gpu(self, cuda: vm_sizes.Cuda | None, part: str) -> None:
        image = make_environment(find_pins([], [], cuda), cuda)
        assert instructions(image.dockerfile, "FROM") == [image.image]
        assert part in image.image


def instructions(dockerfile: str, name: str) -> list[str]:
    """The arguments of a Dockerfile's instructions of one kind, with continued lines joined."""
    lines = [line for line in dockerfile.splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [line.removeprefix(name).strip() for line in joined if line.startswith(name + " ")]


class TestWorkspaceConfig:
    def test_it_is_found_as_the_sdk_finds_it(self, tmp_path: Path) -> None:
        deep = tmp_path / "a" / "b"
        deep.mkdir(parents=True)
        assert session.find_config(deep) is None or tmp_path not in (session.find_config(deep) or Path()).parents
        for place in ("config.json", "aml_config/config.json", ".azureml/config.json"):
            path = tmp_path / place
            path.parent.mkdir(exist_ok=True)
            path.write_text("{}")
            assert session.find_config(deep) == path.resolve()
        assert session.find_config(tmp_path / "config.json") == (tmp_path / "config.json").resolve()

    @pytest.mark.usefixtures("emulated")
    def test_it_agrees_with_the_sdk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        core = session.sdk("azureml.core")
        asked: list[dict[str, str]] = []
        # The SDK's own search, stopped where it would turn to the network.
        monkeypatch.setattr(core.Workspace, "get", staticmethod(lambda name, **more: asked.append({"name": name})))
        (tmp_path / "config.json").write_text(_config("outer"))
        inner = tmp_path / "inner"
        (inner / ".azureml").mkdir(parents=True)
        (inner / ".azureml" / "config.json").write_text(_config("inner"))
        for start in (inner, tmp_path, tmp_path / "config.json"):
            core.Workspace.from_config(str(start), auth=object())
            ours = session.find_config(start)
            assert ours is not None
            assert session.read_config(ours).workspace_name == asked[-1]["name"]

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"subscription_id": 3}', "\xff", '{"Scope": 3}'])
    def test_a_damaged_one_is_named(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "config.json"
        path.write_text(text, encoding="latin-1")
        with pytest.raises(ConfigError, match=r"config\.json"):
            session.read_config(path)

    def test_none_is_an_error_of_two_lines(self, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(session, "find_config", lambda start: None)
        with pytest.raises(ConfigError, match=r"no config\.json") as caught:
            AzureMLBackend(home, {}).store().versions()
        assert caught.value.exit_code == 3
        assert "--emulator" in caught.value.hint
        assert "ml.azure.com" in caught.value.hint


def _config(name: str) -> str:
    return json.dumps({"subscription_id": "s", "resource_group": "r", "workspace_name": name})


# The SDK reads which cloud there is once a process: these import it, and must not make it Azure for the others.
with_sdk = pytest.mark.usefixtures("emulated")


@with_sdk
class TestSignIn:
    @pytest.fixture(autouse=True)
    def _nobody(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in [*signin.PRINCIPAL[0], *signin.PRINCIPAL[1], *signin.IDENTITY]:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        monkeypatch.setattr(signin, "_CHASSIS", tmp_path / "no-such-file")
        session.sdk("azureml.core.authentication")

    def test_a_script_without_a_terminal_is_told_and_not_left_waiting(self) -> None:
        with pytest.raises(SignInError, match="no terminal") as caught:
            signin.sign_in()
        assert caught.value.exit_code == 3
        assert "az login" in caught.value.hint

    @pytest.mark.parametrize("names", signin.PRINCIPAL)
    def test_a_service_principal_comes_first(self, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
        for name in names:
            monkeypatch.setenv(name, f"value of {name}")
        assert type(signin.sign_in()).__name__ == "ServicePrincipalAuthentication"

    def test_half_a_service_principal_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AZUREML_SERVICE_PRINCIPAL_ID", "x")
        with pytest.raises(SignInError, match="AZUREML_SERVICE_PRINCIPAL_PASSWORD"):
            signin.sign_in()

    def test_the_azure_cli_is_asked_for_tokens_as_they_are_needed(self, tmp_path: Path) -> None:
        # The real az needs an account; what it prints is in its documentation of `az account get-access-token`.
        calls = fake_az(tmp_path, expires_in=3600)
        auth = signin.sign_in()
        assert auth.get_authentication_header()["Authorization"].startswith("Bearer token-for-")
        count = len(calls.read_text().splitlines())
        auth.get_authentication_header()
        assert len(calls.read_text().splitlines()) == count

    def test_a_token_that_ends_soon_is_asked_for_again(self, tmp_path: Path) -> None:
        calls = fake_az(tmp_path, expires_in=30)
        auth = signin.sign_in()
        before = len(calls.read_text().splitlines())
        auth.get_authentication_header()
        assert len(calls.read_text().splitlines()) == before + 1

    def test_a_cli_that_is_not_logged_in_is_no_login(self, tmp_path: Path) -> None:
        executable(tmp_path / "bin" / "az", "exit 1\n")
        with pytest.raises(SignInError, match="nothing to sign in"):
            signin.sign_in()


def fake_az(directory: Path, expires_in: int) -> Path:
    calls = directory / "calls"
    answer = f'{{"accessToken": "token-for-\'"$4"\'", "expires_on": {int(time.time()) + expires_in}}}'
    executable(directory / "bin" / "az", f"echo \"$@\" >> {calls}\necho '{answer}'\n")
    return calls


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)


class TestOutcome:
    def test_a_wrapped_connection_error_passes(self) -> None:
        import requests

        error = RuntimeError("the SDK says so")
        error.__cause__ = requests.ConnectionError("refused")
        assert errors.is_transient(error)
        assert isinstance(errors.translate(error, "x"), errors.ServiceUnavailableError)

    @pytest.mark.parametrize(("status", "kind"), [(401, SignInError), (403, SignInError), (404, NotFoundError)])
    def test_the_status_decides(self, status: int, kind: type[Exception]) -> None:
        error = RuntimeError(f"Received bad response:\nResponse Code: {status}\nHeaders: {{}}\nContent: b'{{}}'")
        assert errors.status_of(error) == status
        assert isinstance(errors.translate(error, "x"), kind)

    def test_the_services_own_message_is_dug_out(self) -> None:
        body = '{"error": {"code": "Quota", "message": "You have 0 cores of quota.\\nAsk."}}'
        error = RuntimeError(f"Received bad response:\nResponse Code: 400\nHeaders: {{'a': 'b'}}\nContent: b'{body}'")
        found = errors.translate(error, "create the cluster")
        assert found.message == "Azure ML could not create the cluster: You have 0 cores of quota."
        assert "--vm-size" in found.hint

    @given(st.text(), st.integers(100, 599))
    def test_any_error_becomes_one_line(self, text: str, status: int) -> None:
        found = errors.translate(RuntimeError(f"{text} StatusCode: {status}"), "do it")
        assert "\n" not in found.message
        assert found.hint

    def test_passing_failures_are_retried_and_others_are_not(self) -> None:
        failures = [ConnectionError("a"), ConnectionError("b")]

        def call() -> int:
            if failures:
                raise failures.pop()
            return 7

        assert errors.retry(call, attempts=3, pause=0.0) == 7
        calls = []
        with pytest.raises(ValueError, match="no"):
            errors.retry(lambda: calls.append(1) or _raise(ValueError("no")), pause=0.0)
        assert len(calls) == 1


def _raise(error: Exception) -> None:
    raise error


class TestPace:
    def test_it_slows_down_and_speeds_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = [0.0]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        pace = Pace(1.0, 5.0)
        assert pace.is_due()
        waits = []
        for _ in range(20):
            pace.record_answer(changed=False)
            before = clock[0]
            while not pace.is_due():
                clock[0] += 0.01
            waits.append(clock[0] - before)
        assert waits[0] < waits[1] < waits[2]
        assert waits[-1] == pytest.approx(5.0, abs=0.02)
        pace.record_answer(changed=True)
        clock[0] += 1.01
        assert pace.is_due()

    def test_it_rides_out_an_outage_only_of_a_service_that_has_answered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = [0.0]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        pace = Pace(1.0, 5.0)
        assert not pace.record_failure()
        pace.record_answer(changed=True)
        clock[0] = 200.0
        assert pace.record_failure()
        clock[0] = 400.0
        assert not pace.record_failure()


class RunWithOutput:
    """A completed run as a service would give it that lets an output have any name, which Azure and the SDK don't."""

    id = "x"

    def __init__(self, name: str) -> None:
        self.names = [name, "outputs/sound.txt", "outputs/gone.txt"]

    def get_details(self) -> dict[str, Any]:
        return {"status": "Completed", "endTimeUtc": "2026-11-23T18:05:01.1234567Z"}

    def get_metrics(self) -> dict[str, Any]:
        return {}

    def get_file_names(self) -> list[str]:
        return self.names

    def download_file(self, name: str, output_file_path: str) -> None:
        if name not in self.names or "gone" in name:
            raise RuntimeError(f"Response Code: 404, {name} does not exist")
        Path(output_file_path).write_text("here")


@pytest.mark.parametrize(
    "name",
    [
        *("outputs/../../x", "outputs//etc/x", "outputs/a\\b", "outputs/a\0b", "outputs/\ud800", "outputs/."),
        *(f"outputs/{'x' * 300}", "outputs/sound.txt/below"),
    ],
)
def test_an_output_that_has_no_place_below_the_outputs_costs_itself_alone(home: Home, name: str) -> None:
    job = TrainingJob(script="x.py", model_name=None)
    folder = RunFolder.create(home.runs, job, backend="azureml", snapshot="0" * 64)
    before = sorted(home.path.rglob("*"))
    info = sync.sync_run(cast("Run", RunWithOutput(name)), folder, lambda: pytest.fail("nothing to register"))
    assert (info.status, info.ended) == (RunStatus.COMPLETED, 1795457101.123456)
    assert len(info.warnings) == 2
    assert any("'outputs/gone.txt' could not be brought here: Azure ML does not give it" in w for w in info.warnings)
    assert any(f"{name[:200]!r} could not be brought here: " in warning for warning in info.warnings)
    new = [path for path in sorted(home.path.rglob("*")) if path not in before and path.suffix != ".lock"]
    assert new == [folder.outputs / "sound.txt"]


def test_a_model_that_the_service_lists_and_does_not_give_fails_the_run(home: Home) -> None:
    folder = RunFolder.create(home.runs, TrainingJob(script="x.py"), backend="azureml", snapshot="0" * 64)

    class Run(RunWithOutput):
        def download_file(self, name: str, output_file_path: str) -> None:
            raise RuntimeError("Response Code: 404")

    info = sync.sync_run(cast("Any", Run("outputs/model.npz")), folder, lambda: pytest.fail("nothing to register"))
    assert info.status is RunStatus.FAILED
    assert info.failure
    assert "outputs could not be kept" in info.failure.message


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("The process exited with code -9. See user_logs/std_log.txt.", "ended by SIGKILL, possibly out of memory."),
        ("User process 'python' exited with status code 137. Please check log file", "ended by SIGKILL, possibly out"),
        ("Job failed with exit code: 139", "ended by SIGSEGV."),
        ("The process exited with code 3. See user_logs/std_log.txt.", "exited with code 3."),
        ("Execution failed with exit code 255", "exit code 255"),
    ],
)
def test_a_script_that_a_signal_has_ended_is_told_by_what_the_service_says(home: Home, said: str, message: str) -> None:
    folder = RunFolder.create(home.runs, TrainingJob(script="x.py"), backend="azureml", snapshot="0" * 64)

    class Run(RunWithOutput):
        def get_details(self) -> dict[str, Any]:
            return {**super().get_details(), "status": "Failed", "error": {"error": {"code": "X", "message": said}}}

    info = sync.sync_run(cast("Any", Run("outputs/x")), folder, lambda: pytest.fail("nothing to register"))
    assert info.failure
    assert message in info.failure.message


@pytest.mark.parametrize("asked", [True, False])
def test_a_run_that_loses_its_node_while_it_is_canceled_is_not_sent_again(home: Home, asked: bool) -> None:
    folder = RunFolder.create(home.runs, TrainingJob(script="x.py"), backend="azureml", snapshot="0" * 64)
    detail = {"max_restarts": 3, **({"cancel_asked": "sent"} if asked else {})}
    folder.update(status=RunStatus.RUNNING, detail=detail)
    again: list[object] = []

    class Run(RunWithOutput):
        def get_details(self) -> dict[str, Any]:
            error = {"error": {"code": "NodeLost", "message": "The node that ran the job was lost."}}
            return {**super().get_details(), "status": "Failed", "error": error}

    info = sync.sync_run(
        cast("Any", Run("outputs/x")), folder, lambda: pytest.fail("nothing to register"), again.append
    )
    assert (info.status, len(again)) == ((RunStatus.CANCELED, 0) if asked else (RunStatus.RUNNING, 1))


@with_sdk
class TestGitRemote:
    def test_a_password_in_its_url_does_not_travel(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AZUREML_GIT_REPOSITORY_URI", raising=False)
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
        url = "https://me:secret@example.invalid/x.git"
        subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", url], check=True)
        registry = session.sdk("azureml._base_sdk_common.tracking").global_tracking_info_registry
        assert "secret" in json.dumps(registry.gather_all(str(tmp_path)))
        with submit._without_credentials(tmp_path):
            found = registry.gather_all(str(tmp_path))
        assert found["azureml.git.repository_uri"] == "https://example.invalid/x.git"
        assert "AZUREML_GIT_REPOSITORY_URI" not in os.environ


PLAN = """
import json, sys
from pathlib import Path
from backends.azureml import AzureMLBackend
from trainer.home import Home
from trainer.job import TrainingJob
from trainer.snapshot import build_snapshot, default_script
import socket
def refuse(*_): raise AssertionError("the plan opened a socket")
socket.socket.connect = refuse
plan = AzureMLBackend(Home(Path(sys.argv[1]), Path(sys.argv[1])), {}).plan(
    TrainingJob(script="chainer_mnist.py", max_minutes=30), build_snapshot(default_script()))
print(json.dumps({"modules": [name for name in sys.modules if name.partition(".")[0] == "azureml"],
                  "details": plan.details, "warnings": plan.warnings}))
"""


class TestPlan:
    def test_it_touches_no_network_and_does_not_import_the_sdk(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-c", PLAN, str(tmp_path)], stdout=subprocess.PIPE, check=True, text=True, timeout=600
        )
        found = json.loads(done.stdout)
        assert found["modules"] == []
        details = found["details"]
        assert "numpy==" in details["pins"]
        assert "openmpi" in details["image"]
        assert details["time cap"] == "30 minutes"
        size, why = details["VM size"]
        assert "Standard_NC4as_T4_v3" in size
        assert "2023-08-31" in why
        assert not any("2023-08-31" in warning for warning in found["warnings"])

    def test_a_cpu_size_plans_a_cpu_image(self, home: Home) -> None:
        plan = AzureMLBackend(home, {"vm_size": "Standard_DS3_v2"}).plan(_job(), _snapshot())
        assert "cuda" not in plan.details["image"]
        assert "cupy" not in plan.details["pins"]

    def test_a_retired_size_is_refused(self, home: Home) -> None:
        with pytest.raises(RefusedError):
            AzureMLBackend(home, {"vm_size": "Standard_NC6"}).plan(_job(), _snapshot())


def _job() -> TrainingJob:
    return TrainingJob(script="chainer_mnist.py")


def _snapshot() -> Snapshot:
    return build_snapshot(default_script())


def test_a_cap_counts_the_attempts_that_were_sent_before(home: Home) -> None:
    job = TrainingJob(script="x.py", max_minutes=2)
    folder = RunFolder.create(home.runs, job, backend="azureml", snapshot="0" * 64)
    assert restarts.seconds_left(folder) == 120
    for _ in range(2):
        restarts.note_spent(folder, folder.run_id, 50.0)
    restarts.note_spent(folder, f"{folder.run_id}-2", 30.5)
    assert restarts.seconds_left(folder) == 40
    folder.update(lambda info: msgspec.structs.replace(info, started=1000.0))
    folder.update(detail={**folder.info().detail, sync.RUN: f"{folder.run_id}-2"})
    for ended, over in ((1060.0, False), (1070.0, True)):
        assert sync._is_over_cap(folder.info(), 2, ended) == over
