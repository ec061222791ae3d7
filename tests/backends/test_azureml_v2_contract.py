"""The backend of SDK v2 keeps the contract, on the emulator; and gives bit for bit what the others give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from azureml_emulator import Endpoint
from backends.azure.session import find_workspace
from backends.azureml import AzureMLBackend
from backends.azureml_v2 import AzureMLV2Backend
from backends.local import LocalBackend
from tests.backends import sdk_warnings
from tests.contract.backend_contract import BackendContract, arrays
from trainer.handle import Run
from trainer.home import Home
from trainer.submission import JobRequest, prepare, submit

pytestmark = [sdk_warnings.IGNORED, pytest.mark.slow]


class TestAzureMLV2Backend(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def home(cls, tmp_path_factory: pytest.TempPathFactory, emulated: Callable[[Path], Home]) -> Home:
        return emulated(tmp_path_factory.mktemp("project"))

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls, home: Home) -> AzureMLV2Backend:
        return AzureMLV2Backend(home, {"emulator": True})

    @pytest.fixture(scope="class")
    @classmethod
    def attach_environment(cls, service: Endpoint) -> Mapping[str, str]:
        return {"HOME": str(service.state_dir)}

    def test_the_model_is_that_of_the_others_bit_for_bit(
        self, trained: Run, request_of_ours: JobRequest, home: Home
    ) -> None:
        for backend in (LocalBackend(home, {}), AzureMLBackend(home, {"emulator": True})):
            other = self.completed(submit(prepare(request_of_ours, home), backend, home))
            assert other.info().snapshot == trained.info().snapshot
            ours, theirs = arrays(other), arrays(trained)
            assert ours.keys() == theirs.keys()
            for name, array in ours.items():
                assert array.tobytes() == theirs[name].tobytes(), (backend.name, name)

    def test_metrics_have_their_steps(self, trained: Run) -> None:
        steps = [metric.step for metric in trained.metrics() if metric.name == "Accuracy"]
        assert steps == [1.0, 2.0]

    def test_the_service_has_the_metrics_with_their_steps(self, trained: Run, backend: AzureMLV2Backend) -> None:
        for name in ("Accuracy", "Loss"):
            assert there(backend, trained, name) == here(trained, name) != []

    def test_the_service_has_what_a_script_logs_with_the_run_of_sdk_v1(
        self, scripted: Run, backend: AzureMLV2Backend
    ) -> None:
        assert [value for value, _ in there(backend, scripted, "rate")] == [-0.5]

    def test_what_a_script_logs_with_mlflow_is_there_once(self, home: Home, backend: AzureMLV2Backend) -> None:
        run = self.completed(self.submit_script(home, backend, "logs_with_mlflow.py"))
        assert there(backend, run, "mine") == here(run, "mine") == [(0.3, 3.0), (0.4, 4.0)]


def there(backend: AzureMLV2Backend, run: Run, name: str) -> list[tuple[float | None, float | None]]:
    """Values and steps that the service has."""
    found = backend.open(find_workspace(backend.options, backend.home)).find_run(run.run_id)
    assert found is not None
    return [(metric.value, metric.step) for metric in found.get_metrics()[name]]


def here(run: Run, name: str) -> list[tuple[float | None, float | None]]:
    """Values and steps in the run's record."""
    return [(metric.value, metric.step) for metric in run.metrics() if metric.name == name]
