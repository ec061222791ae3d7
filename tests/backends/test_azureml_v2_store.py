"""The workspace's registry through SDK v2's interface: the contract, and one registry for both SDKs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from azureml_emulator import Endpoint, FaultAction, FaultRule
from backends.azure.v2.store import AzureMLV2Store
from backends.azureml import AzureMLBackend
from backends.azureml_v2 import AzureMLV2Backend
from tests.artifacts.local_runs import make_local_run
from tests.backends import sdk_warnings
from tests.contract.store_contract import MakeRun, RegisterCommand, StoreContract, npz_bytes
from trainer.artifacts import fetch
from trainer.errors import NotFoundError
from trainer.home import Home

pytestmark = sdk_warnings.IGNORED
SCRIPT = Path(__file__).parent / "azureml_register_at_once.py"


@pytest.fixture
def store(azure_home: Home) -> AzureMLV2Store:
    return AzureMLV2Backend(azure_home, {"emulator": True}).store()


@pytest.fixture
def make_run(azure_home: Home) -> MakeRun:
    return partial(make_local_run, azure_home.runs)


class TestAzureMLV2Store(StoreContract):
    @pytest.fixture
    def store(self, store: AzureMLV2Store) -> AzureMLV2Store:
        return store

    @pytest.fixture
    def make_run(self, make_run: MakeRun) -> MakeRun:
        return make_run

    @pytest.fixture
    def register_command(self, azure_home: Home) -> RegisterCommand:
        return lambda folder, name: [SCRIPT, azure_home.path, folder.path, name, "azureml-v2"]


def test_one_registry_for_both(store: AzureMLV2Store, azure: AzureMLBackend, make_run: MakeRun, tmp_path: Path) -> None:
    other = azure.store()
    runs = [make_run(npz_bytes(a=np.full(3, number))) for number in range(3)]
    versions = [where.register(run, "both") for where, run in zip((other, store, other), runs, strict=True)]
    assert [version.version for version in versions] == [1, 2, 3]
    assert store.versions("both") == other.versions("both") == versions
    assert [store.register(run, "both") for run in runs] == versions, "a run that the other has registered"
    for where, name in ((store, "there"), (other, "here")):
        for version, run in zip(versions, runs, strict=True):
            fetched = fetch(where, version.reference, tmp_path / name / str(version.version))
            assert fetched.path.read_bytes() == (run.outputs / "model.npz").read_bytes()
    store.delete("both", 1)
    other.delete("both", 3)
    assert store.versions("both") == other.versions("both") == [versions[1]]
    with pytest.raises(NotFoundError):
        store.get("both", 1)


def test_what_is_lost_on_the_way_is_one_version(
    store: AzureMLV2Store, make_run: MakeRun, service: Endpoint, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    rules = [
        FaultRule(route="PUT */models/*", action=FaultAction.DROP_ANSWER, times=1),
        FaultRule(route="PUT */model.npz", action=FaultAction.DROP_ANSWER, times=1),
        FaultRule(route="GET */models/*", status=503, times=2),
        FaultRule(route="POST */listSecrets", status=500, times=1),
    ]
    service.set_faults(rules=rules)
    request.addfinalizer(service.clear_faults)
    folder = make_run(npz_bytes(a=np.ones(3)))
    version = store.register(folder, "lost")
    assert store.versions("lost") == [version]
    store.download(version, tmp_path / "model.npz")
    assert (tmp_path / "model.npz").read_bytes() == (folder.outputs / "model.npz").read_bytes()
