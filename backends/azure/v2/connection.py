"""A workspace's REST interfaces, with a token: ARM, run history, MLflow, and its storage."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from backends.azure.deadline import Deadline
from backends.azure.emulator import running_emulator
from backends.azure.errors import ServiceUnavailableError, explained, retry
from backends.azure.session import WorkspaceRef, answer_by, use_service
from backends.azure.v2.cloud import Cloud, current_cloud
from backends.azure.v2.signin import Credential, FunctionCredential, sign_in

if TYPE_CHECKING:
    import requests
    from requests import PreparedRequest

# The versions of ARM's interface that SDK v2 1.35 asks with.
API_VERSION = "2024-10-01-preview"
JOBS_VERSION = "2024-01-01-preview"
MODELS_VERSION = "2023-08-01-preview"
COMPUTES_VERSION = "2023-08-01-preview"
STORAGE_VERSION = "2023-11-03"

_SECONDS = 60
_TRIES = 4
_PASSING = (408, 429, 500, 502, 503, 504)
_MOST_PAGES = 1000
_LONGEST_WAIT = 30

_lock = threading.RLock()
_connections: dict[WorkspaceRef, Connection] = {}


class AnswerError(Exception):
    """An answer with an error status.

    Attributes:
        status_code: The HTTP status.
        code: The service's own code for it, or an empty text.
        message: What it says.
    """

    def __init__(self, answer: requests.Response) -> None:
        self.status_code = answer.status_code
        self.code, self.message = _said(answer)
        super().__init__(f"{self.status_code}: {self.message}")


class Connection:
    """A workspace, signed in to. Thread-safe.

    Args:
        ref: Which.
        cloud: Where.
        credential: Who we are.
    """

    def __init__(self, ref: WorkspaceRef, cloud: Cloud, credential: Credential) -> None:
        self.ref, self.cloud, self.credential = ref, cloud, credential
        self.path = (
            f"/subscriptions/{ref.subscription_id}/resourceGroups/{ref.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{ref.workspace_name}"
        )
        self._session = _session()
        self._api: str | None = None
        self.location = ""

    def open(self) -> None:
        """Ask for the workspace, and where its services are."""
        found = self.arm("GET", "")
        self.location = str(found.get("location", ""))
        properties = found.get("properties")
        url = str((properties if isinstance(properties, dict) else {}).get("discoveryUrl", ""))
        self._api = str(_object(self._checked(self._send("GET", _https(url)))).get("api", "")).rstrip("/")
        _https(self._api)

    def arm(
        self,
        method: str,
        path: str,
        *,
        version: str = API_VERSION,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Ask ARM something about the workspace.

        Args:
            method: Of HTTP.
            path: Below the workspace, quoted; see :func:`segments`.
            version: Of the interface.
            body: What is sent as JSON.
            params: The query beside the version.

        Raises:
            AnswerError: The answer has an error status.
            requests.RequestException: There is no answer.
        """
        url = f"{self.cloud.resource_manager}{self.path}{path}"
        return _object(self._ask(method, url, body, {"api-version": version, **(params or {})}))

    def subscription(self, path: str, version: str) -> dict[str, Any]:
        """Ask ARM something about the subscription; errors as for :meth:`arm`."""
        url = f"{self.cloud.resource_manager}/subscriptions/{self.ref.subscription_id}{path}"
        return _object(self._ask("GET", url, None, {"api-version": version}))

    def arm_list(self, path: str, *, version: str, params: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
        """Ask ARM for a list, page by page; arguments and errors as for :meth:`arm`."""
        page = self.arm("GET", path, version=version, params=params)
        for _ in range(_MOST_PAGES):
            values = page.get("value")
            yield from (item for item in (values if isinstance(values, list) else ()) if isinstance(item, dict))
            following = page.get("nextLink")
            # The token goes nowhere else.
            if not isinstance(following, str) or not following.startswith(f"{self.cloud.resource_manager}/"):
                return
            page = _object(self._ask("GET", following, None, {}))

    def ask(self, method: str, service: str, path: str, *, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Ask one of the workspace's own services.

        Args:
            method: Of HTTP.
            service: Its name and version, such as ``history/v1.0``.
            path: Below the workspace, quoted.
            params: The query.

        Raises:
            AnswerError, requests.RequestException: As for :meth:`arm`.
        """
        if self._api is None:
            self.open()
        return _object(self._ask(method, f"{self._api}/{service}{self.path}{path}", None, params or {}))

    def get(self, url: str) -> requests.Response:
        """Begin to read from a signed link; no token goes there.

        Raises:
            AnswerError, requests.RequestException: As for :meth:`arm`.
            ServiceUnavailableError: The link has expired.
        """
        answer = self._send("GET", _https(url), stream=True)
        if answer.status_code == 403:
            answer.close()
            raise ServiceUnavailableError("A link to a file has expired.", "The next look gets a new one.")
        return self._checked(answer)

    def put(self, url: str, data: Any, headers: Mapping[str, str]) -> None:  # noqa: ANN401  # bytes or a file
        """Write to a signed link.

        Raises:
            AnswerError, requests.RequestException: As for :meth:`arm`.
        """
        self._checked(self._send("PUT", _https(url), data=data, headers=dict(headers)))

    def blob_url(self, datastore: str, path: str) -> str:
        """Return a signed link to a blob of a data store.

        Raises:
            AnswerError, requests.RequestException: As for :meth:`arm`.
            ServiceUnavailableError: The data store is not one that gives signed links.
        """
        store = segments("datastores", datastore)
        found = self.arm("GET", store).get("properties")
        secret = self.arm("POST", f"{store}/listSecrets", body={"expirableSecret": True, "expireAfterHours": 1})
        account, container = (str((found or {}).get(name, "")) for name in ("accountName", "containerName"))
        if not account or not container or not secret.get("sasToken"):
            raise ServiceUnavailableError(
                f"The data store {datastore} gives no signed link.",
                "Give it an account key or a shared access signature.",
            )
        base = f"https://{account}.blob.{self.cloud.storage}/{container}"
        return f"{base}/{quote(path)}?{str(secret['sasToken']).lstrip('?')}"

    def default_datastore(self) -> str:
        """Return the name of the default data store."""
        for item in self.arm_list("/datastores", version=API_VERSION, params={"isDefault": "true", "count": "30"}):
            return str(item.get("name"))
        return "workspaceblobstore"

    def _ask(
        self, method: str, url: str, body: Mapping[str, Any] | None, params: Mapping[str, str]
    ) -> requests.Response:
        def sign(request: PreparedRequest) -> PreparedRequest:
            # As an authentication, not as a header: a netrc of the user's would replace that.
            token = self.credential.get_token(f"{self.cloud.resource_manager}/.default").token
            request.headers["Authorization"] = f"Bearer {token}"
            return request

        return self._checked(self._send(method, url, json=body, params=params, auth=sign, allow_redirects=False))

    def _send(self, method: str, url: str, **how: Any) -> requests.Response:
        how.setdefault("auth", _unsigned)
        return self._session.request(method, url, timeout=_SECONDS, **how)

    @staticmethod
    def _checked(answer: requests.Response) -> requests.Response:
        if answer.status_code >= 300:
            raise AnswerError(answer)
        return answer


def open_connection(ref: WorkspaceRef) -> Connection:
    """Sign in and ask for the workspace, once per process. Thread-safe.

    Raises:
        SignInError: We are not who the workspace wants.
        NotFoundError: There is no such workspace.
        ServiceUnavailableError: Azure or the emulator can't be reached.
        ConfigError: This process already works with another service.
    """
    with _lock:
        if ref not in _connections:
            _connections[ref] = _open(ref)
        return _connections[ref]


def forget_connections() -> None:
    """Sign in and look everything up again at the next use: a token was refused, or an emulator came back."""
    with _lock:
        _connections.clear()


def segments(*names: str) -> str:
    """Return a path of these names, quoted."""
    return "".join(f"/{quote(name, safe='')}" for name in names)


def _open(ref: WorkspaceRef) -> Connection:
    deadline = answer_by(ref)
    doing = f"open the workspace {ref.workspace_name}"
    with explained("sign in"):
        cloud, credential = _credential(ref, deadline)
    connection = Connection(ref, cloud, credential)
    with explained(doing):
        deadline.wait(lambda: retry(connection.open), doing)
    return connection


def _credential(ref: WorkspaceRef, deadline: Deadline) -> tuple[Cloud, Credential]:
    if ref.emulator is None:
        use_service("Azure", {})
        cloud = deadline.wait(current_cloud, "find out where Azure is")
        return cloud, sign_in(cloud, deadline)
    endpoint = running_emulator(Path(ref.emulator))
    use_service(f"the emulator in {ref.emulator}", endpoint.environment)
    return current_cloud(), FunctionCredential(endpoint.token)


def _session() -> requests.Session:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    # Every request of ours may be sent twice: what it makes has a name.
    again = Retry(
        total=_TRIES,
        backoff_factor=0.5,
        backoff_max=_LONGEST_WAIT,
        status_forcelist=_PASSING,
        allowed_methods=None,
        raise_on_status=False,
        redirect=0,
    )
    session = requests.Session()
    session.mount("https://", HTTPAdapter(max_retries=again))
    return session


def _unsigned(request: PreparedRequest) -> PreparedRequest:
    return request


def _https(url: str) -> str:
    if not url.startswith("https://"):
        raise ValueError("Azure ML names an address that is not https.")
    return url


def _object(answer: requests.Response) -> dict[str, Any]:
    """Return the JSON object of an answer; an empty one for an empty answer."""
    if not answer.content:
        return {}
    found = answer.json()
    if not isinstance(found, dict):
        raise ValueError("Azure ML answers something else than an object.")
    return found


def _said(answer: requests.Response) -> tuple[str, str]:
    try:
        found = json.loads(answer.text)
        inner = found.get("error", found)
        message = inner.get("message") or found.get("message")
        return str(inner.get("code") or found.get("error_code") or ""), str(message or answer.reason)
    except (ValueError, AttributeError, RecursionError):
        return "", str(answer.reason)
