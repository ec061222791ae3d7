"""The workspace's registry: the contract, and what only a service can go through."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from azureml_emulator import Endpoint, FaultAction, FaultRule
from backends.azure.session import sdk
from backends.azure.store import AzureMLStore
from backends.azureml import AzureMLBackend
from tests.artifacts.local_runs import make_local_run
from tests.backends import sdk_warnings
from tests.contract.store_contract import MakeRun, RegisterCommand, StoreContract, npz_bytes
from trainer.errors import NotFoundError
from trainer.home import Home

pytestmark = sdk_warnings.IGNORED
SCRIPT = Path(__file__).parent / "azureml_register_at_once.py"


@pytest.fixture
def store(azure: AzureMLBackend) -> AzureMLStore:
    return azure.store()


@pytest.fixture
def make_run(azure_home: Home) -> MakeRun:
    return partial(make_local_run, azure_home.runs)


class TestAzureMLStore(StoreContract):
    registrations = 3

    @pytest.fixture
    def store(self, store: AzureMLStore) -> AzureMLStore:
        return store

    @pytest.fixture
    def make_run(self, make_run: MakeRun) -> MakeRun:
        return make_run

    @pytest.fixture
    def register_command(self, azure_home: Home) -> RegisterCommand:
        return lambda folder, name: [SCRIPT, azure_home.path, folder.path, name]


def test_a_registration_whose_answer_was_lost_is_one_version(
    store: AzureMLStore, make_run: MakeRun, service: Endpoint, request: pytest.FixtureRequest
) -> None:
    folder = make_run(npz_bytes(a=np.ones(3)))
    lost = FaultRule(route="POST */models", action=FaultAction.DROP_ANSWER, times=1)
    service.set_faults(rules=[lost])
    request.addfinalizer(service.clear_faults)
    version = store.register(folder, "lost-answer")
    assert store.versions("lost-answer") == [version]
    assert store.register(folder, "lost-answer") == version


def test_passing_failures_are_ridden_out(
    store: AzureMLStore, make_run: MakeRun, service: Endpoint, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    rules = [
        FaultRule(route="GET */models*", status=503, times=2),
        FaultRule(route="POST */assets", status=500, times=1),
        FaultRule(route="GET */blobs/*", action=FaultAction.DROP, times=1),
    ]
    service.set_faults(rules=rules)
    request.addfinalizer(service.clear_faults)
    version = store.register(make_run(npz_bytes(a=np.ones(3))), "ridden-out")
    store.download(version, tmp_path / "model.npz")
    assert (tmp_path / "model.npz").stat().st_size == version.size


def test_a_model_of_someone_elses_is_left_alone(
    store: AzureMLStore, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.register(make_run(npz_bytes(a=np.ones(3))), "shared")
    monkeypatch.chdir(tmp_path)
    Path("theirs.txt").write_text("not ours")
    sdk("azureml.core").Model.register(store._workspace(), model_path="theirs.txt", model_name="shared")
    assert store.versions("shared") == [first]
    assert store.get("shared") == first
    with pytest.raises(NotFoundError):
        store.get("shared", 2)
    assert store.register(make_run(npz_bytes(a=np.zeros(3))), "shared").version == 3
