"""A service principal's sign-in, as azure-identity does it where it is told nothing but the variables.

MSAL asks Microsoft whether an authority that it does not know may be trusted, unless the tenant's name is ``adfs``:
then it is a server of one's own, as Active Directory Federation Services is. So that is the name of the emulator's
tenant.
"""

# What a route is for is in its summary, from which the documentation's table is made.

from __future__ import annotations

import hmac
from urllib.parse import parse_qs

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from azureml_emulator.api.common import ServiceDep, guarded_router
from azureml_emulator.api.v2.common import only_query
from azureml_emulator.state import PRINCIPAL_ID, PRINCIPAL_TENANT
from azureml_emulator.tokens import Scope, TokenError

_LARGEST = 10_000
_DEFAULT = "/.default"


router = guarded_router("Sign-in of a service principal")


@router.get(
    f"/{PRINCIPAL_TENANT}/.well-known/openid-configuration", summary="azure-identity's `EnvironmentCredential`, once"
)
def describe_authority(service: ServiceDep) -> dict[str, str]:
    """OpenID Connect Discovery 1.0, as far as MSAL reads it."""
    base = f"{service.base_url}/{PRINCIPAL_TENANT}"
    return {
        "issuer": base,
        "authorization_endpoint": f"{base}/oauth2/authorize",
        "token_endpoint": f"{base}/oauth2/token",
    }


@router.post(
    f"/{PRINCIPAL_TENANT}/oauth2/token",
    dependencies=[only_query()],
    summary="`EnvironmentCredential`, `ClientSecretCredential`",
)
async def principal_token(request: Request, service: ServiceDep) -> Response:
    """RFC 6749, section 4.4, with the secret in the body."""
    body = await request.body()
    form = {name: values[0] for name, values in parse_qs(body[:_LARGEST].decode("utf-8", "replace")).items()}
    if form.get("grant_type") != "client_credentials":
        return _refused("unsupported_grant_type", "Only a service principal with a secret signs in here.")
    try:
        service.authority.check_msi_secret(form.get("client_secret"))
    except TokenError:
        return _refused("invalid_client", "The service principal's secret is wrong.")
    if not hmac.compare_digest(form.get("client_id", "").encode(), PRINCIPAL_ID.encode()):
        return _refused("invalid_client", "There is no such service principal.")
    audience = form.get("scope", "").split(" ")[0].removesuffix(_DEFAULT)
    token, _ = service.issue_token(Scope.USER, audience=audience)
    lifetime = max(0, int(service.settings.token_lifetime))
    return JSONResponse({"access_token": token, "token_type": "Bearer", "expires_in": lifetime})


def _refused(error: str, why: str) -> Response:
    status = 401 if error == "invalid_client" else 400
    return JSONResponse({"error": error, "error_description": why}, status_code=status)
