"""Signing in through azure-identity, with the credentials that are there; no option chooses among them.

The order is that of the backend of SDK v1 (:mod:`backends.azure.signin`): a service principal in the environment, a
managed identity, the Azure CLI's login, and, in a terminal, a code to type in a browser. Tokens stay in memory.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from backends.azure import signin
from backends.azure.errors import first_line, is_transient
from trainer.errors import SignInError

if TYPE_CHECKING:
    from backends.azure.deadline import Deadline
    from backends.azure.v2.cloud import Cloud


class Token(NamedTuple):
    """As ``azure.core.credentials.AccessToken``, without its import."""

    token: str
    expires_on: int


class Credential(Protocol):
    """``azure.core.credentials.TokenCredential``."""

    def get_token(self, *scopes: str, **_: Any) -> Any:  # noqa: ANN401  # azure-core's or ours
        """Return a token for a scope, with ``token`` and ``expires_on``."""


class FunctionCredential:
    """A credential made of a function that gives tokens.

    Args:
        get_token: Takes the audience, gives a token that is good for a minute at least.
    """

    def __init__(self, get_token: Callable[[str], str]) -> None:
        self._get_token = get_token

    def get_token(self, *scopes: str, **_: Any) -> Token:
        """See :class:`Credential`."""
        return Token(self._get_token(scopes[0].removesuffix("/.default")), int(time.time()) + 60)


def sign_in(cloud: Cloud, deadline: Deadline) -> Credential:
    """Find a credential that gives a token.

    Args:
        cloud: Where to sign in.
        deadline: By when whoever is asked must have answered. It begins anew once a person has logged in.

    Raises:
        SignInError: There is nothing to sign in with, or it was not accepted.
        NoAnswerError: Who was asked doesn't answer.
    """
    # It warns of each way to sign in that is not there.
    logging.getLogger("azure.identity").setLevel(logging.ERROR)
    import azure.identity as ways

    scope = f"{cloud.resource_manager}/.default"

    def works(credential: Any, doing: str) -> Exception | None:  # noqa: ANN401  # azure-identity's
        try:
            deadline.wait(lambda: credential.get_token(scope), doing)
        except Exception as error:
            if is_transient(error):
                raise
            return error
        return None

    principal = _service_principal(ways, cloud)
    if principal is not None:
        error = works(principal, "sign in as the service principal of the environment")
        if error is not None:
            raise SignInError(
                f"The service principal in the environment is not accepted: {first_line(error)}",
                "Correct its three variables, or unset them to sign in another way.",
            ) from error
        return principal
    named = [name for name in signin.IDENTITY if os.environ.get(name)]
    if named or signin.on_azure_vm():
        client = os.environ.get("AZURE_CLIENT_ID") or os.environ.get("DEFAULT_IDENTITY_CLIENT_ID")
        identity: Credential = ways.ManagedIdentityCredential(**({"client_id": client} if client else {}))
        error = works(identity, "sign in with the managed identity")
        if error is None:
            return identity
        if named:
            raise SignInError(
                f"The managed identity gives no token: {first_line(error).rstrip('.')}.",
                f"Check the identity, or unset {' and '.join(named)}.",
            ) from error
    if shutil.which("az") is not None:
        cli: Credential = ways.AzureCliCredential()
        if works(cli, "sign in through the Azure CLI") is None:
            return cli
    if not signin.is_interactive():
        raise SignInError(
            "There is nothing to sign in to Azure with, and no terminal to ask on.",
            f"Run az login, or set {', '.join(signin.PRINCIPAL[0])}.",
        )
    deadline.wait(signin.reach_login, "reach Azure's login page")
    person: Credential = ways.DeviceCodeCredential(authority=cloud.login, prompt_callback=_show_code)
    person.get_token(scope)
    deadline.restart()
    return person


def _show_code(address: str, code: str, _: object) -> None:
    sys.stderr.write(f"Open {address} in a browser and enter the code {code}.\n")


def _service_principal(ways: Any, cloud: Cloud) -> Credential | None:  # noqa: ANN401  # the module
    values = signin.principal()
    if values is None:
        return None
    tenant, principal, password = values
    found: Credential = ways.ClientSecretCredential(tenant, principal, password, authority=cloud.login)
    return found
