"""Fixtures: one emulator, and one process with the SDK, for the whole session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from azureml_emulator import Emulator, Endpoint, Settings
from tests.emulator.clients import PROGRAMS, Http, Sdk
from trainer.serving.settings import SCORING_SERVER

SETTINGS = Settings(phase_duration=0.0, cancel_grace=2.0, offer_retired_sizes=True, scoring_server=SCORING_SERVER)


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """The session's emulator. A request to an unknown route that no test expects fails the session."""
    with Emulator(tmp_path_factory.mktemp("state"), settings=SETTINGS) as endpoint:
        yield endpoint
        assert endpoint.unknown_requests() == []


@pytest.fixture(scope="session")
def sdk(emulator: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sdk]:
    """The SDK, connected to the session's emulator."""
    session = Sdk(emulator, tmp_path_factory.mktemp("sdk"))
    yield session
    session.close()


@pytest.fixture
def http(emulator: Endpoint) -> Http:
    """Plain HTTP to the session's emulator."""
    return Http(emulator)


@pytest.fixture
def job_source() -> str:
    """Directory of a small training script."""
    return str(PROGRAMS / "job")
