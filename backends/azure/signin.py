"""Signing in with the credentials that are there; no option chooses among them.

In this order: a service principal in the environment, a managed identity, the Azure CLI's login, and, in a
terminal, the SDK's interactive login. Tokens stay in memory.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

from backends.azure.deadline import Deadline, no_answer
from backends.azure.errors import explained, first_line
from trainer.errors import SignInError

if TYPE_CHECKING:
    from collections.abc import Callable

    from backends.azure.sdk import Auth

# The SDK's own variables, then the ones that every newer Azure tool reads.
PRINCIPAL = (
    ("AZUREML_SERVICE_PRINCIPAL_TENANT_ID", "AZUREML_SERVICE_PRINCIPAL_ID", "AZUREML_SERVICE_PRINCIPAL_PASSWORD"),
    ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"),
)
IDENTITY = ("MSI_ENDPOINT", "IDENTITY_ENDPOINT")
# The chassis asset tag of every Azure VM; cloud-init recognises Azure by it too.
_AZURE_VM = "7783-7084-3265-9085-8269-3286-77"
_CHASSIS = Path("/sys/class/dmi/id/chassis_asset_tag")
# From the first question to the workspace's answer.
ANSWER_SECONDS = 20.0
_CLI_SECONDS = 15
_PROBE_SECONDS = 15
_LOGIN = "https://login.microsoftonline.com/"
# A token is renewed this many seconds before it expires, so that no request goes out with an expired one.
_SPARE_SECONDS = 300


def sign_in(deadline: Deadline | None = None) -> Auth:
    """Make an azureml authentication object, which has a token or gets one at its first use.

    Args:
        deadline: By when whoever is asked must have answered. It begins anew once a person has logged in.

    Raises:
        SignInError: There is nothing to sign in with, or it was not accepted.
        NoAnswerError: Who was asked doesn't answer.
    """
    deadline = deadline or Deadline(ANSWER_SECONDS)
    signed_in = deadline.wait(_service_principal, "sign in as the service principal of the environment")
    if signed_in is not None:
        return signed_in
    named = any(os.environ.get(name) for name in IDENTITY)
    if named or on_azure_vm():
        identity = deadline.wait(lambda: _managed_identity(required=named), "sign in with the managed identity")
        if identity is not None:
            return identity
    cli = deadline.wait(_azure_cli, "sign in through the Azure CLI")
    if cli is not None:
        return cli
    if not is_interactive():
        raise SignInError(
            "There is nothing to sign in to Azure with, and no terminal to ask on.",
            f"Run az login, or set {', '.join(PRINCIPAL[0])}.",
        )
    from azureml.core.authentication import InteractiveLoginAuthentication

    # The SDK waits without limit, for the network as for the person: so the network is tried first.
    deadline.wait(reach_login, "reach Azure's login page")
    found = cast("Auth", InteractiveLoginAuthentication())
    deadline.restart()
    return found


def reach_login() -> None:
    """Find out whether a person could log in.

    Raises:
        ServiceUnavailableError: The login page can't be reached.
    """
    import requests

    with explained("reach Azure's login page"):
        requests.head(_LOGIN, timeout=_PROBE_SECONDS)


def principal() -> tuple[str, str, str] | None:
    """Return the service principal of the environment: its tenant, id and password.

    Raises:
        SignInError: The environment has a part of one.
    """
    for names in PRINCIPAL:
        tenant, name, password = (os.environ.get(variable) for variable in names)
        if tenant and name and password:
            return tenant, name, password
    missing = [name for name in PRINCIPAL[0] if not os.environ.get(name)]
    if len(missing) < len(PRINCIPAL[0]):
        raise SignInError(
            f"The service principal in the environment lacks {', '.join(missing)}.",
            "Set all three variables, or none to sign in another way.",
        )
    return None


def _service_principal() -> Auth | None:
    from azureml.core.authentication import ServicePrincipalAuthentication

    values = principal()
    if values is None:
        return None
    tenant, name, password = values
    found: Auth = ServicePrincipalAuthentication(
        tenant_id=tenant, service_principal_id=name, service_principal_password=password
    )
    return found


def _managed_identity(*, required: bool) -> Auth | None:
    from azureml.core.authentication import MsiAuthentication

    auth: Auth
    client = os.environ.get("AZURE_CLIENT_ID") or os.environ.get("DEFAULT_IDENTITY_CLIENT_ID")
    try:
        auth = MsiAuthentication(identity_config={"client_id": client}) if client else MsiAuthentication()
        auth.get_authentication_header()
    except Exception as error:
        if not required:
            return None
        raise SignInError(
            f"The managed identity gives no token: {first_line(error).rstrip('.')}.",
            f"Check the identity, or unset {' and '.join(name for name in IDENTITY if os.environ.get(name))}.",
        ) from error
    return auth


def on_azure_vm() -> bool:
    """Return whether this machine is an Azure VM."""
    try:
        return _CHASSIS.read_text().strip() == _AZURE_VM
    except OSError:
        return False


def _azure_cli() -> Auth | None:
    """Use the login of the ``az`` command, asked for tokens as they are needed; None without one.

    The SDK's own class for it needs the azure-cli package in this very environment; the command does not.
    """
    command = shutil.which("az")
    if command is None:
        return None
    tokens = _CliTokens(command)
    try:
        tokens("https://management.core.windows.net/")
    except SignInError:
        return None
    return token_authentication(tokens)


def token_authentication(get_token: Callable[[str], str], cloud: str | None = None) -> Auth:
    """Make an authentication object from a function that gives tokens, which the SDK documents for this.

    Args:
        get_token: Takes the audience, gives a token.
        cloud: The cloud's name; None for the configured one.
    """
    from azureml.core.authentication import TokenAuthentication

    return cast("Auth", TokenAuthentication(get_token, cloud))


class _CliTokens:
    def __init__(self, command: str) -> None:
        self._command = command
        self._known: dict[str, tuple[str, float]] = {}

    def __call__(self, audience: str) -> str:
        token, ends = self._known.get(audience, ("", 0.0))
        if ends - time.time() < _SPARE_SECONDS:
            token, ends = self._ask(audience)
            self._known[audience] = token, ends
        return token

    def _ask(self, audience: str) -> tuple[str, float]:
        words = [self._command, "account", "get-access-token", "--resource", audience, "--output", "json"]
        try:
            answer = subprocess.run(
                words, capture_output=True, text=True, timeout=_CLI_SECONDS, stdin=subprocess.DEVNULL, check=True
            )
            found = json.loads(answer.stdout)
            token = str(found["accessToken"])
        except subprocess.TimeoutExpired as error:
            raise no_answer("get a token from the Azure CLI", _CLI_SECONDS) from error
        except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
            raise SignInError("The Azure CLI gives no token.", "Sign in: az login") from error
        return token, float(found.get("expires_on") or time.time() + _SPARE_SECONDS + 60)


def is_interactive() -> bool:
    """Return whether there is a terminal to ask a person on."""
    # The SDK prints a code or opens a browser and then waits; in a script or a CI job it would wait for ever.
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
