"""The addresses of the Azure that is meant: the public one, a national one, or an emulator's."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from trainer.errors import ConfigError

# The variables of the SDK and of the Azure CLI.
_NAME = "AZUREML_CURRENT_CLOUD"
_METADATA = "ARM_CLOUD_METADATA_URL"
_SECONDS = 30


class Cloud(NamedTuple):
    """Where a cloud is.

    Attributes:
        resource_manager: ARM's address, without a slash at its end. It is the audience of tokens too.
        login: The address of the sign-in service.
        storage: What follows ``https://ACCOUNT.blob.``.
    """

    resource_manager: str
    login: str
    storage: str


# https://learn.microsoft.com/azure/azure-government and azure/china: endpoints.
_CLOUDS = {
    "AzureCloud": Cloud("https://management.azure.com", "https://login.microsoftonline.com", "core.windows.net"),
    "AzureChinaCloud": Cloud(
        "https://management.chinacloudapi.cn", "https://login.chinacloudapi.cn", "core.chinacloudapi.cn"
    ),
    "AzureUSGovernment": Cloud(
        "https://management.usgovcloudapi.net", "https://login.microsoftonline.us", "core.usgovcloudapi.net"
    ),
}


def current_cloud() -> Cloud:
    """Return the cloud that the environment names, by default the public one.

    Raises:
        ConfigError: It is none that is known, and the environment doesn't say where it is described.
        requests.RequestException: Its description can't be had.
    """
    name = os.environ.get(_NAME) or "AzureCloud"
    url = os.environ.get(_METADATA, "")
    if name in _CLOUDS and not url:
        return _CLOUDS[name]
    if not url.startswith("https://"):
        raise ConfigError(
            f"{_NAME} is {name[:40]!r}, which is no cloud that is known.", f"Unset it, or set {_METADATA}."
        )
    import requests

    answer = requests.get(url, timeout=_SECONDS)
    answer.raise_for_status()
    try:
        described: list[dict[str, Any]] = answer.json()
        found = next(cloud for cloud in described if cloud.get("name") == name)
        return Cloud(
            str(found["resourceManager"]).rstrip("/"),
            str(found["authentication"]["loginEndpoint"]).rstrip("/"),
            str(found["suffixes"]["storage"]),
        )
    except (StopIteration, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{_METADATA} does not describe the cloud {name[:40]!r}.", "Correct it, or unset it."
        ) from error
