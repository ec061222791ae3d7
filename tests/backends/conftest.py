"""One emulator and one sign-in for all tests of the azureml backend: importing the SDK's estimators takes ten seconds.

The SDK reads which cloud there is once a process, so these tests share theirs, under whatever home.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from azure.core.pipeline.policies._retry import RetryPolicyBase
from urllib3.util import Retry

from azureml_emulator import Emulator, Endpoint, Settings
from backends.azure.base import AzureBackend
from backends.azure.session import sdk
from backends.azureml import AzureMLBackend
from backends.azureml_v2 import AzureMLV2Backend
from trainer.home import Home
from trainer.serving.settings import SCORING_SERVER

_SIGN_IN = ("MSI_ENDPOINT", "MSI_SECRET", "APPSETTING_WEBSITE_SITE_NAME")
# Faults are tested here by the dozen, and the SDK would wait for seconds after each.
_BACKOFFS = ("AZUREML_DEFAULT_BACKOFF", "AZUREML_DEFAULT_500_BACKOFF", "AZUREML_DEFAULT_503_BACKOFF")
# What both SDKs send requests with pauses too, for up to twenty seconds before it tries again.
_POLICIES = ("azureml._vendor.azure_storage.blob._shared.policies", "azure.storage.blob._shared.policies")
# The SDK leaves timer threads behind that go on warning about themselves while other tests run.
_SDK_NOISE = "ignore::DeprecationWarning:azureml"


def pytest_collection_modifyitems(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", _SDK_NOISE)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """The emulator. A request to a route that it doesn't have fails the session."""
    settings = Settings(phase_duration=0.0, cancel_grace=2.0, scoring_server=SCORING_SERVER)
    with Emulator(tmp_path_factory.mktemp("emulator"), settings=settings) as one:
        yield one
        assert one.unknown_requests() == []


@pytest.fixture
def faults(service: Endpoint) -> Iterator[Callable[..., None]]:
    """Sets the emulator's fault switches; puts them back afterwards."""
    yield service.set_faults
    service.clear_faults()


@pytest.fixture(scope="module")
def emulated(service: Endpoint) -> Iterator[Callable[[Path], Home]]:
    """Makes homes whose emulator is the shared one, in an environment that the SDK finds it by."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in service.env().items():
            if name not in _SIGN_IN:
                patch.setenv(name, value)
        for name in _BACKOFFS:
            patch.setenv(name, "0")
        patch.setattr(Retry, "get_backoff_time", lambda _: 0.0)
        patch.setattr(RetryPolicyBase, "get_backoff_time", lambda *_: 0.0)
        for module in map(sdk, _POLICIES):
            patch.setattr(module.ExponentialRetry, "get_backoff_time", lambda *_: 0.0)
        yield lambda project: share(service, project)
    service.clear_faults()


def share(service: Endpoint, project: Path) -> Home:
    """A home in ``project`` that has the shared emulator for its own."""
    home = Home(project / ".trainer", project)
    home.path.mkdir(parents=True, exist_ok=True)
    link = home.path / "emulator"
    if not link.is_symlink():
        link.symlink_to(service.state_dir, target_is_directory=True)
    return home


@pytest.fixture
def azure_home(emulated: Callable[[Path], Home], tmp_path: Path) -> Home:
    """A home of the test's own, on the shared emulator."""
    return emulated(tmp_path / "project")


@pytest.fixture
def azure(azure_home: Home) -> AzureMLBackend:
    """The backend, on the shared emulator."""
    return AzureMLBackend(azure_home, {"emulator": True})


@pytest.fixture(params=[AzureMLBackend, AzureMLV2Backend], ids=lambda kind: kind.name)
def either(request: pytest.FixtureRequest, azure_home: Home) -> AzureBackend:
    """The backend of each SDK in turn, on the shared emulator."""
    kind: type[AzureBackend] = request.param
    return kind(azure_home, {"emulator": True})
