"""What can go wrong between a client and Azure ML, made to go wrong on the emulator."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from azureml_emulator import Endpoint, FaultAction, FaultRule
from backends.azure import cluster, session
from backends.azure import submit as azure_submit
from backends.azure.computes import SdkComputes
from backends.azure.errors import ServiceUnavailableError
from backends.azure.options import AzureOptions
from backends.azure.vm_sizes import Choice
from backends.azureml import AzureMLBackend
from tests.backends import sdk_warnings
from tests.contract.azure_contract import TINY, AzureFaultsContract
from trainer.errors import RefusedError
from trainer.home import Home
from trainer.records import RunStatus
from trainer.runfolder import RunFolder
from trainer.submission import JobRequest, Prepared, prepare

pytestmark = sdk_warnings.IGNORED


class TestFaults(AzureFaultsContract):
    kind = AzureMLBackend
    passing = (
        # The service takes the run, the client never hears of it; and then a dropped connection when it asks.
        FaultRule(route="POST */snapshotrun*", action=FaultAction.DROP_ANSWER, times=2),
        FaultRule(route="POST */snapshots/getblob", status=503, times=1),
        FaultRule(route="PUT */blobs/*", action=FaultAction.DROP, times=1),
        FaultRule(route="GET */details", status=500, times=1),
        FaultRule(route="GET */details", status=429, times=1),
        FaultRule(route="GET */details", action=FaultAction.DROP, times=1),
        FaultRule(route="POST */models", action=FaultAction.DROP_ANSWER, times=1),
    )
    unauthorized = "GET */artifacts/*"
    at_once = 20

    def cap(self, monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
        make_config = azure_submit.make_config

        def impatient(*words: Any, **named: Any) -> Any:
            config = make_config(*words, **named)
            assert config.run_config.max_run_duration_seconds == 60
            config.run_config.max_run_duration_seconds = seconds
            return config

        monkeypatch.setattr(azure_submit, "make_config", impatient)


def test_a_service_that_is_down_is_said_and_changes_nothing(
    azure: AzureMLBackend, azure_home: Home, faults: Callable[..., None]
) -> None:
    folder = sent_folder(azure, azure_home)
    before = folder.info()
    faults(rules=[FaultRule(route="GET *-ws/runs/*", status=503)])
    with pytest.raises(ServiceUnavailableError, match="answers 503") as caught:
        azure.refresh(folder)
    assert caught.value.exit_code == 4
    assert folder.info() == before


def test_a_submission_that_was_never_sent_fails_and_can_be_canceled(azure: AzureMLBackend, azure_home: Home) -> None:
    prepared = prepare(JobRequest(script=TINY, dataset="none"), azure_home)
    for end in (azure.refresh, azure.cancel):
        folder = submission_folder(azure_home, prepared)
        end(folder)
        assert folder.info().status is (RunStatus.FAILED if end == azure.refresh else RunStatus.CANCELED)
    info = AzureMLBackend(azure_home, {}).refresh(sent_folder(azure, azure_home))
    assert info.status is RunStatus.FAILED
    assert info.failure
    assert "Start it again" in info.failure.message


def sent_folder(azure: AzureMLBackend, home: Home) -> RunFolder:
    """What a client leaves that was killed after it wrote down where the run goes, and before the run went there."""
    folder = submission_folder(home, prepare(JobRequest(script=TINY, dataset="none"), home))
    ref = session.find_workspace(azure.options, home)
    folder.update(detail={"workspace": msgspec.to_builtins(ref), "sent": time.time() - 3600})
    return folder


def submission_folder(home: Home, prepared: Prepared) -> RunFolder:
    folder = RunFolder.create(home.runs, prepared.job, backend="azureml", snapshot=prepared.snapshot.digest)
    folder.update(lambda info: msgspec.structs.replace(info, created=info.created - 60))
    return folder


class TestClusters:
    """No job runs here: what is refused is refused before anything is sent."""

    def get_or_create(self, azure: AzureMLBackend, home: Home, **options: Any) -> Choice:
        workspace = session.open_workspace(session.find_workspace(azure.options, home))
        self.notices: list[str] = []
        return cluster.get_or_create(
            SdkComputes(workspace), AzureOptions(**options), self.notices.append, poll_seconds=0.05
        )

    def test_the_successor_of_the_default_is_said(self, azure: AzureMLBackend, azure_home: Home) -> None:
        choice = self.get_or_create(azure, azure_home, compute="fresh-one")
        assert choice.size.name == "Standard_NC4as_T4_v3"
        assert choice.note
        assert any("fresh-one" in line for line in self.notices)
        again = self.get_or_create(azure, azure_home, compute="fresh-one")
        assert (again.size, again.note) == (choice.size, None)

    def test_where_that_is_not_offered_either_the_next_is_taken(
        self, azure: AzureMLBackend, azure_home: Home, faults: Callable[..., None]
    ) -> None:
        faults(sizes_not_offered=["Standard_NC4as_T4_v3"])
        assert self.get_or_create(azure, azure_home, compute="next-one").size.name == "Standard_NC8as_T4_v3"
        with pytest.raises(RefusedError, match="doesn't offer") as caught:
            self.get_or_create(azure, azure_home, compute="by-hand", vm_size="Standard_NC4as_T4_v3")
        assert "--vm-size Standard_NC8as_T4_v3" in caught.value.hint

    def test_a_cluster_of_another_size_is_not_taken(self, azure: AzureMLBackend, azure_home: Home) -> None:
        self.get_or_create(azure, azure_home, compute="cpus", vm_size="Standard_DS3_v2")
        with pytest.raises(RefusedError, match="Standard_DS3_v2") as caught:
            self.get_or_create(azure, azure_home, compute="cpus", vm_size="Standard_NC4as_T4_v3")
        assert "--compute cpus-2" in caught.value.hint

    def test_refused_quota_is_a_refusal_that_names_quota(
        self, azure: AzureMLBackend, azure_home: Home, faults: Callable[..., None]
    ) -> None:
        faults(refused_quota=True)
        with pytest.raises(RefusedError) as caught:
            self.get_or_create(azure, azure_home, compute="no-quota")
        assert caught.value.exit_code == 4
        assert "uota" in caught.value.hint

    def test_what_a_new_cluster_is_made_of(self, azure: AzureMLBackend, azure_home: Home, service: Endpoint) -> None:
        self.get_or_create(azure, azure_home, compute="scales", max_nodes=3, idle_minutes=7)
        workspace = session.open_workspace(session.find_workspace(azure.options, azure_home))
        scale = session.sdk("azureml.core.compute").ComputeTarget(workspace, "scales").scale_settings
        assert (scale.minimum_node_count, scale.maximum_node_count) == (0, 3)
        assert scale.idle_seconds_before_scaledown in (420, "PT420S")
