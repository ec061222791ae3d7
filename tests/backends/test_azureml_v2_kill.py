"""Clients of the backend of SDK v2 that are killed at every step."""

from __future__ import annotations

import pytest

from azureml_emulator import FaultAction
from backends.azureml_v2 import AzureMLV2Backend
from tests.backends import sdk_warnings
from tests.contract.azure_contract import AzureKillContract

pytestmark = [sdk_warnings.IGNORED, pytest.mark.slow, pytest.mark.timeout(1800)]


class TestKills(AzureKillContract):
    kind = AzureMLV2Backend
    unsent = "POST */startPendingUpload"
    sent = ("PUT */jobs/*", FaultAction.DROP_ANSWER)
    later = ("GET */contentinfo", "PUT */models/*")
