"""Fixtures for tests of code that uses the SDK v1 or v2.

    def test_training(azureml_emulator, tmp_path):
        azureml_emulator.write_config(tmp_path)
        subprocess.run([sys.executable, "submit.py"], cwd=tmp_path, env=azureml_emulator.env(), check=True)

A test that meets a route which the emulator does not have fails, unless it is marked ``allow_unknown_routes``.

pytest loads this module at every start, so it imports nothing of weight.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from azureml_emulator.endpoint import Endpoint
    from azureml_emulator.settings import Settings

ALLOW = "allow_unknown_routes"


def pytest_configure(config: pytest.Config) -> None:
    """Announce the marker."""
    config.addinivalue_line("markers", f"{ALLOW}: requests to routes that the Azure ML emulator lacks are fine")


@pytest.fixture(scope="session")
def azureml_emulator_settings() -> Settings:
    """Configuration of the session's emulator; override it in your conftest.py."""
    from azureml_emulator.settings import Settings

    return Settings()


@pytest.fixture(scope="session")
def azureml_emulator_session(
    tmp_path_factory: pytest.TempPathFactory, azureml_emulator_settings: Settings
) -> Iterator[Endpoint]:
    """Start the session's emulator, whose state is shared by all tests."""
    from azureml_emulator.background import Emulator

    state = tmp_path_factory.mktemp("azureml-emulator")
    with Emulator(state, settings=azureml_emulator_settings) as endpoint:
        yield endpoint


@pytest.fixture
def azureml_emulator(azureml_emulator_session: Endpoint) -> Iterator[Endpoint]:
    """Give the session's emulator, without faults and without the last test's requests."""
    azureml_emulator_session.clear_faults()
    azureml_emulator_session.clear_requests()
    yield azureml_emulator_session
    azureml_emulator_session.clear_faults()


@pytest.fixture
def azureml_environment(azureml_emulator: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    """Set this process's environment and current directory so that the SDK finds the emulator.

    The SDK reads its environment while it is being imported. Import it inside of the test, and in no module that is
    imported before.
    """
    for name, value in azureml_emulator.env().items():
        monkeypatch.setenv(name, value)
    azureml_emulator.write_config(tmp_path)
    monkeypatch.chdir(tmp_path)
    return azureml_emulator


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that has met an unknown route."""
    result = yield
    fixtures = getattr(item, "funcargs", {})
    endpoint: Endpoint | None = fixtures.get("azureml_emulator") or fixtures.get("azureml_environment")
    if endpoint is not None and item.get_closest_marker(ALLOW) is None:
        unknown = [f"{request.method} {request.path}" for request in endpoint.unknown_requests()]
        if unknown:
            pytest.fail("The emulator has no route:\n  " + "\n  ".join(unknown), pytrace=False)
    return result
