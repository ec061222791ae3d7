"""Where the tests of both SDKs' services deploy to: homes on the shared emulator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from backends.azure.base import AzureBackend
from tests.contract.deploy_contract import DeployContract, Place
from trainer.home import Home

Emulated = Callable[[Path], Home]


def words(kind: type[AzureBackend]) -> tuple[str, ...]:
    """What names the backend on a command line."""
    return ("--backend", kind.name, "--emulator")


def place_in(home: Home, kind: type[AzureBackend]) -> Place:
    """A home from which is deployed by one of the backends."""
    return Place(kind(home, {"emulator": True}), words(kind))


class AzureDeployContract(DeployContract):
    """The contract of services on the emulator.

    Attributes:
        kind: The backend.
    """

    kind: ClassVar[type[AzureBackend]]

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, tmp_path_factory: pytest.TempPathFactory, emulated: Emulated) -> Place:
        return place_in(emulated(tmp_path_factory.mktemp("deploy") / "project"), cls.kind)


def place_with_a_model(kind: type[AzureBackend]) -> Any:
    """Make a module's fixture ``place``: a home with one model in its registry."""

    @pytest.fixture(scope="module")
    def place(tmp_path_factory: pytest.TempPathFactory, emulated: Emulated) -> Place:
        found = place_in(emulated(tmp_path_factory.mktemp("more") / "project"), kind)
        found.register(1)
        return found

    return place
