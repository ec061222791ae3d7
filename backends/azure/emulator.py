"""A loopback emulator in place of Azure, found or started for one project."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import ConfigError, MissingExtraError, SignInError
from trainer.runtime.compat import SITE
from trainer.serving.settings import SCORING_SERVER

if TYPE_CHECKING:
    from azureml_emulator import Endpoint

DOES_NOT_PROVE = (
    "This is the emulator on 127.0.0.1, not Azure. It proves the calls, and nothing about sign-in, quota, image "
    "builds or GPUs; the job runs on this machine."
)
SERVICE_DOES_NOT_PROVE = (
    "This is the emulator on 127.0.0.1, not Azure. It proves the calls, and nothing about sign-in, quota or image "
    "builds; the service is a process on this machine."
)
# One that was started for a run ends when for an hour nobody has asked it anything and no job is active.
_IDLE_SECONDS = 3600.0
_START_SECONDS = 90.0
# Ways to sign in are not for us: tokens are asked for over HTTP, and if the emulator is gone the SDK must
# not turn to login.microsoftonline.com, as it does when a managed identity doesn't answer.
_OTHER_SIGN_IN = ("MSI_ENDPOINT", "MSI_SECRET", "APPSETTING_WEBSITE_SITE_NAME")
_SPARE_SECONDS = 120.0


class EmulatorEndpoint:
    """A running emulator.

    Args:
        endpoint: As its own package describes it.

    Attributes:
        environment: The variables with which the SDK finds it.
        subscription_id: Subscription of its workspace.
        resource_group: Resource group of its workspace.
        workspace_name: Name of its workspace.

    Raises:
        azureml_emulator.EmulatorError: The files that it leaves for its clients are damaged.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.environment = {name: value for name, value in endpoint.env().items() if name not in _OTHER_SIGN_IN}
        self.subscription_id = endpoint.subscription_id
        self.resource_group = endpoint.resource_group
        self.workspace_name = endpoint.workspace_name
        self._endpoint = endpoint
        self._tokens: dict[str, tuple[str, float]] = {}

    def token(self, audience: str) -> str:
        """Give a bearer token, and ask for a new one before it ends.

        Raises:
            SignInError: The emulator gives none.
            requests.RequestException: It is down or busy, which passes.
        """
        from azureml_emulator import EmulatorError

        token, ends = self._tokens.get(audience, ("", 0.0))
        if ends - time.time() > _SPARE_SECONDS:
            return token
        try:
            self._tokens[audience] = self._endpoint.fetch_token(audience)
        except EmulatorError as error:
            raise SignInError(error.message, error.hint) from error
        return self._tokens[audience][0]


def running_emulator(state: Path) -> EmulatorEndpoint:
    """Find the emulator that keeps its state in a directory; start it in the background if none runs.

    Raises:
        MissingExtraError: What it needs is not installed.
        ConfigError: It does not start, or its state is damaged.
    """
    try:
        from azureml_emulator import EmulatorError, Settings, start_in_background
    except ImportError as error:
        raise MissingExtraError("The emulator", "emulator") from error
    try:
        # The same layer for Chainer as that of `trainer emulator`: whoever starts it first, others' jobs run on it too.
        settings = Settings(idle_exit=_IDLE_SECONDS, job_site=SITE, scoring_server=SCORING_SERVER)
        return EmulatorEndpoint(start_in_background(state.resolve(), settings=settings, timeout=_START_SECONDS))
    except EmulatorError as error:
        raise ConfigError(error.message, error.hint) from error
