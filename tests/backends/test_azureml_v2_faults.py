"""The backend of SDK v2 where the network, the service or a client fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from azureml_emulator import Endpoint, FaultAction, FaultRule
from backends.azure.v2 import submit as v2_submit
from backends.azureml_v2 import AzureMLV2Backend
from tests.backends import sdk_warnings
from tests.contract.azure_contract import AzureFaultsContract, Start, completed
from trainer.errors import SignInError, TrainerError

pytestmark = [sdk_warnings.IGNORED, pytest.mark.slow]


class TestFaults(AzureFaultsContract):
    kind = AzureMLV2Backend
    passing = (
        FaultRule(route="POST */startPendingUpload", action=FaultAction.DROP, times=1),
        # The service takes the run, and the client never hears of it, however often it asks the SDK.
        FaultRule(route="PUT */jobs/*", action=FaultAction.DROP_ANSWER, times=5),
        FaultRule(route="GET */jobs/*", status=503, times=1),
        FaultRule(route="GET */details", status=500, times=1),
        FaultRule(route="GET */details", status=429, times=1),
        FaultRule(route="GET */details", action=FaultAction.DROP, times=1),
        FaultRule(route="PUT */models/*", action=FaultAction.DROP_ANSWER, times=1),
    )
    unauthorized = "GET */contentinfo"

    def cap(self, monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
        make_job = v2_submit.make_job

        def impatient(*words: Any, **named: Any) -> Any:
            job = make_job(*words, **named)
            assert job.limits.timeout == 60
            job.limits.timeout = seconds
            return job

        monkeypatch.setattr(v2_submit, "make_job", impatient)

    def test_an_upload_whose_answer_is_lost_is_begun_again(
        self, start: Start, faults: Callable[..., None], service: Endpoint, tmp_path: Path
    ) -> None:
        # The SDK sends the file again, and storage says that it is there; with its progress off the SDK would hang.
        faults(rules=[FaultRule(route="PUT *launch.py", action=FaultAction.DROP_ANSWER, times=1)])
        run = start()
        assert service.faults().rules[0].times == 0
        completed(run)
        assert len((tmp_path / "diary").read_text().splitlines()) == 1

    def test_a_refused_upload_is_said_and_does_not_hang(
        self, start: Start, faults: Callable[..., None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        faults(rules=[FaultRule(route="PUT *train.py", status=403)])
        with pytest.raises(TrainerError) as caught:
            start()
        assert isinstance(caught.value, SignInError)
        assert not (tmp_path / "diary").exists()
        out, err = capfd.readouterr()
        assert out == ""
        assert "Uploading" not in err
        assert "\n\n" not in err
