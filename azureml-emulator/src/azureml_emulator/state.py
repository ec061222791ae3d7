"""The state directory: where an emulator keeps things, and the files in it that clients are pointed at."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from azureml_emulator.private import check_directory, make_directory, make_file, tighten, tighten_all, write_atomically
from azureml_emulator.settings import Settings


@dataclass(frozen=True)
class StateDir:
    """The state directory. Private to its owner, because it holds the key that signs tokens."""

    root: Path

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> StateDir:
        """Return the state directory at ``path``, which need not exist yet."""
        return cls(Path(path).expanduser().resolve())

    def create(self) -> None:
        """Make the directories, for their owner only.

        Raises:
            EmulatorError: The root is there already and is someone else's or open to others.
        """
        make_directory(self.root)
        for path in (self.blobs, self.uploads, self.jobs, self.webservices, self.tls, self.client, self.client_home):
            # Below a private root nobody else can have been, but an older emulator may have been less strict.
            tighten(path)
            make_directory(path)
        for path in (self.database, self.log):
            make_file(path)

    def check(self) -> None:
        """See that nobody else can write or read here.

        Raises:
            FileNotFoundError: There is no such directory.
            EmulatorError: Someone can.
        """
        check_directory(self.root)

    def tighten(self) -> None:
        """Make everything in it private, also what clients have written there."""
        tighten_all(self.root)

    @property
    def lock(self) -> Path:
        """Held by the emulator that serves this state."""
        return self.root / "lock"

    @property
    def endpoint(self) -> Path:
        """Where the running emulator says how it is reached."""
        return self.root / "endpoint.json"

    @property
    def key(self) -> Path:
        """Key that signs tokens and blob URLs."""
        return self.root / "secret.key"

    @property
    def database(self) -> Path:
        """The SQLite database."""
        return self.root / "emulator.db"

    @property
    def log(self) -> Path:
        """Log of requests and problems."""
        return self.root / "emulator.log"

    @property
    def startup_log(self) -> Path:
        """What the emulator that was last started in the background had to say."""
        return self.root / "startup.log"

    @property
    def tls(self) -> Path:
        """The server's certificates."""
        return self.root / "tls"

    @property
    def ca(self) -> Path:
        """The emulator's own CA certificate, and nothing else."""
        return self.tls / "ca.pem"

    @property
    def blobs(self) -> Path:
        """Content of blobs."""
        return self.root / "blobs"

    @property
    def uploads(self) -> Path:
        """Blobs that are being received."""
        return self.root / "uploads"

    @property
    def jobs(self) -> Path:
        """The jobs' directories."""
        return self.root / "jobs"

    @property
    def webservices(self) -> Path:
        """The web services' directories."""
        return self.root / "webservices"

    @property
    def client(self) -> Path:
        """Files that clients are pointed at by their environment."""
        return self.root / "client"

    @property
    def client_home(self) -> Path:
        """HOME for clients: the SDK keeps caches in ~/.azureml."""
        return self.client / "home"


CLOUD_NAME = "AzureMLEmulator"
STORAGE_ACCOUNT = "emu"
PRINCIPAL_ID = "22222222-2222-2222-2222-222222222222"
"""The client id of the one service principal."""
PRINCIPAL_TENANT = "adfs"
"""Its tenant."""
# What SDK v1's ``Run`` asks for in a job, whatever the environment names. Not found, it would be asked for at Azure.
_PUBLIC_CLOUD_NAME = "AzureCloud"
METADATA_PATH = "/metadata/endpoints?api-version=2019-05-01"
"""Where the cloud is described."""


def existing_ca_bundle(environment: Mapping[str, str], but_not: Path) -> Path:
    """Return the bundle that requests would use without the emulator, whose own bundle is ``but_not``."""
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
    write_atomically(target, existing.rstrip() + "\n" + own)


def storage_suffix(base_url: str) -> str:
    """Return what the SDKs put behind ``https://ACCOUNT.blob.`` for the address of an account.

    With the emulator's address behind the sign for user-info, that leads to loopback without a name to resolve.
    """
    return f"core.windows.net@{base_url.removeprefix('https://')}"


def cloud_description(base_url: str) -> str:
    """Return the JSON of ARM's /metadata/endpoints with no cloud but the emulator. No URL may end in a slash."""
    cloud = {
        "name": CLOUD_NAME,
        "resourceManager": base_url,
        "portal": "https://portal.emulator.invalid",
        "graphAudience": "https://graph.emulator.invalid/",
        "authentication": {"loginEndpoint": base_url, "audiences": ["https://management.core.windows.net/"]},
        "suffixes": {"storage": storage_suffix(base_url)},
    }
    return json.dumps([cloud, {**cloud, "name": _PUBLIC_CLOUD_NAME}], indent=2)


def workspace_config(settings: Settings) -> str:
    """Return the content of the ``config.json`` that ``Workspace.from_config`` reads."""
    config = {
        "subscription_id": settings.subscription_id,
        "resource_group": settings.resource_group,
        "workspace_name": settings.workspace_name,
    }
    return json.dumps(config, indent=2) + "\n"


def write_client_files(state: StateDir, settings: Settings) -> Path:
    """Write everything clients and jobs are pointed at.

    Returns:
        The CA bundle.
    """
    bundle = state.client / "ca-bundle.pem"
    write_ca_bundle(state, bundle, os.environ)
    write_atomically(state.client / "config.json", workspace_config(settings))
    return bundle
