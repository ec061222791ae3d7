"""The azureml backend keeps the contract, on the emulator; and gives bit for bit what the local one gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from azureml_emulator import Endpoint
from backends.azureml import AzureMLBackend
from backends.local import LocalBackend
from tests.backends import sdk_warnings
from tests.contract.backend_contract import BackendContract, arrays
from trainer.handle import Run
from trainer.home import Home
from trainer.submission import JobRequest, prepare, submit

pytestmark = [sdk_warnings.IGNORED, pytest.mark.slow]


class TestAzureMLBackend(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def home(cls, tmp_path_factory: pytest.TempPathFactory, emulated: Callable[[Path], Home]) -> Home:
        return emulated(tmp_path_factory.mktemp("project"))

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls, home: Home) -> AzureMLBackend:
        return AzureMLBackend(home, {"emulator": True})

    @pytest.fixture(scope="class")
    @classmethod
    def attach_environment(cls, service: Endpoint) -> Mapping[str, str]:
        return {"HOME": str(service.state_dir)}

    def test_the_model_is_the_local_backends_bit_for_bit(
        self, trained: Run, request_of_ours: JobRequest, home: Home
    ) -> None:
        here = self.completed(submit(prepare(request_of_ours, home), LocalBackend(home, {}), home))
        assert here.info().snapshot == trained.info().snapshot
        ours, theirs = arrays(here), arrays(trained)
        assert ours.keys() == theirs.keys()
        for name, array in ours.items():
            assert array.tobytes() == theirs[name].tobytes(), name
        other = self.completed(
            submit(
                prepare(replace(request_of_ours, training={**request_of_ours.training, "seed": 2}), home),
                LocalBackend(home, {}),
                home,
            )
        )
        assert arrays(other)["l1/W"].tobytes() != theirs["l1/W"].tobytes()

    def test_metrics_have_their_steps(self, trained: Run) -> None:
        steps = [metric.step for metric in trained.metrics() if metric.name == "Accuracy"]
        assert steps == [1.0, 2.0]
