"""Services on managed online endpoints keep the contract, on the emulator; and what only they have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backends.azureml_v2 import AzureMLV2Backend
from tests.backends import sdk_warnings
from tests.contract.deploy_contract import DeployContract, Place
from trainer.home import Home

pytestmark = [sdk_warnings.IGNORED, pytest.mark.slow]

EMULATED = ("--backend", "azureml-v2", "--emulator")


def azure(home: Home) -> Place:
    return Place(AzureMLV2Backend(home, {"emulator": True}), EMULATED)


class TestManagedServices(DeployContract):
    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, tmp_path_factory: pytest.TempPathFactory, emulated: Callable[[Path], Home]) -> Place:
        return azure(emulated(tmp_path_factory.mktemp("deploy") / "project"))
