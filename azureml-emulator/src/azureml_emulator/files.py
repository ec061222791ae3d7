"""Files for clients: CA bundle, cloud description, workspace configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from azureml_emulator.settings import Settings
from azureml_emulator.state import StateDir, write_atomically

CLOUD_NAME = "AzureMLEmulator"


def existing_ca_bundle(environment: Mapping[str, str], but_not: Path) -> Path:
    """The bundle that requests would use without the emulator, whose own bundle is ``but_not``."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        path = environment.get(name)
        if path and Path(path).is_file() and Path(path).resolve() != but_not.resolve():
            return Path(path)
    import certifi

    return Path(certifi.where())


def write_ca_bundle(state: StateDir, target: Path, environment: Mapping[str, str]) -> None:
    """Write the bundle for clients: what they trust already, and the emulator's CA.

    With the emulator's CA alone, a program's other HTTPS requests would fail.
    """
    own = state.ca.read_text()
    existing = existing_ca_bundle(environment, but_not=target).read_text()
    write_atomically(target, existing.rstrip() + "\n" + own, mode=0o644)


def cloud_description(base_url: str) -> str:
    """JSON of ARM's /metadata/endpoints with one cloud: the emulator. No URL may end in a slash."""
    cloud = {
        "name": CLOUD_NAME,
        "resourceManager": base_url,
        "portal": "https://portal.emulator.invalid",
        "graphAudience": "https://graph.emulator.invalid/",
        "authentication": {"loginEndpoint": base_url, "audiences": ["https://management.core.windows.net/"]},
        "suffixes": {"storage": "core.windows.net"},
    }
    return json.dumps([cloud], indent=2)


def workspace_config(settings: Settings) -> str:
    """Content of the ``config.json`` that ``Workspace.from_config`` reads."""
    config = {
        "subscription_id": settings.subscription_id,
        "resource_group": settings.resource_group,
        "workspace_name": settings.workspace_name,
    }
    return json.dumps(config, indent=2) + "\n"


def write_client_files(state: StateDir, settings: Settings, base_url: str) -> Path:
    """Write everything clients and jobs are pointed at.

    Returns:
        The CA bundle.
    """
    bundle = state.client / "ca-bundle.pem"
    write_ca_bundle(state, bundle, os.environ)
    write_atomically(state.client / "cloud.json", cloud_description(base_url), mode=0o644)
    write_atomically(state.client / "config.json", workspace_config(settings), mode=0o644)
    return bundle
