"""Bearer tokens and signed blob URLs.

Bearer tokens are JSON Web Tokens (RFC 7519) signed with HS256. Signed URLs follow the shape of Azure's service SAS
(``sv``, ``sr``, ``sp``, ``se``, ``sig``), but sign less than Azure does: key, permissions and expiry.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from urllib.parse import quote, urlencode

from azureml_emulator.errors import EmulatorError
from azureml_emulator.private import read_file, write_atomically
from azureml_emulator.state import StateDir

TENANT_ID = "11111111-1111-1111-1111-111111111111"
ISSUER = "azureml-emulator"
_ALGORITHM = "HS256"
_KEY_BYTES = 32


class Scope(StrEnum):
    """What a token may be used for."""

    USER = "user"
    RUN = "run"
    ADMIN = "admin"


class TokenError(Exception):
    """A token or a signature that is missing, wrong or expired."""


@dataclass(frozen=True)
class Claims:
    """What a valid token says. ``run_id`` is set for a job's token only."""

    scope: Scope
    run_id: str | None
    expires: float


class TokenAuthority:
    """Issues and checks tokens and blob signatures with one secret key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def for_state(cls, state: StateDir) -> TokenAuthority:
        """Return the authority of a state directory; its key is made on first use.

        Raises:
            EmulatorError: The key is damaged, or others could have read it.
        """
        if not state.key.exists():
            write_atomically(state.key, secrets.token_bytes(_KEY_BYTES))
        key = read_file(state.key)
        if len(key) < _KEY_BYTES:
            raise EmulatorError(f"{state.key} is damaged.", "Remove it; the emulator makes a new one.")
        return cls(key)

    def issue(self, scope: Scope, lifetime: float, *, audience: str = "emulator", run_id: str | None = None) -> str:
        """Issue a token that expires ``lifetime`` seconds from now. A negative lifetime gives an expired one."""
        # PyJWT imports cryptography, which a client that only looks for an emulator can do without.
        import jwt

        now = time.time()
        claims = {
            "iss": ISSUER,
            "aud": audience,
            "tid": TENANT_ID,
            "oid": str(uuid.uuid5(uuid.NAMESPACE_URL, ISSUER)),
            "iat": int(now),
            "exp": int(now + lifetime),
            "scope": scope.value,
            "run_id": run_id,
        }
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM)

    def check(self, token: str, leeway: float = 0.0) -> Claims:
        """Return the claims of a valid token.

        Args:
            token: The token.
            leeway: Seconds for which one that has expired is still valid.

        Raises:
            TokenError: The token is malformed, was signed by another key, or has expired.
        """
        import jwt

        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[_ALGORITHM],
                issuer=ISSUER,
                leeway=leeway,
                # One emulator stands in for every audience the SDK asks tokens for.
                options={"verify_aud": False, "require": ["exp", "iss"]},
            )
            return Claims(Scope(claims["scope"]), claims.get("run_id"), float(claims["exp"]))
        except (jwt.PyJWTError, KeyError, ValueError) as error:
            raise TokenError(str(error)) from None

    @property
    def msi_secret(self) -> str:
        """What a client of the managed identity sends as the header ``secret``, and shows nowhere else."""
        return hmac.new(self._key, b"managed identity: secret header", hashlib.sha256).hexdigest()

    def check_msi_secret(self, given: str | None) -> None:
        """Check such a header.

        Raises:
            TokenError: It is missing or wrong.
        """
        if not hmac.compare_digest(self.msi_secret.encode(), (given or "").encode("utf-8", "replace")):
            raise TokenError("The managed identity's secret is missing or wrong.")

    def sign_blob(self, key: str, permissions: str, lifetime: float) -> str:
        """Return the query string that permits ``permissions`` (of ``rcw``) on blob ``key`` for so many seconds."""
        return self._sign(key, "b", permissions, lifetime)

    def sign_container(self, container: str, lifetime: float) -> str:
        """Return the query string that permits reading, writing and listing a container for so many seconds."""
        return self._sign(_container_key(container), "c", "racwl", lifetime)

    def sign_named(self, container: str, name: str, lifetime: float) -> str:
        """Return the query string that permits reading and writing one blob of a container for so many seconds."""
        return self._sign(_container_key(container, name), "b", "rcw", lifetime)

    def check_container(self, container: str, name: str, permission: str, query: dict[str, str]) -> None:
        """Check the signature for a container, or for the blob of it that is asked for ("": none).

        Raises:
            TokenError: It is wrong, lacks ``permission`` (of ``racwl``), or has expired.
        """
        key = _container_key(container, name) if query.get("sr") == "b" else _container_key(container)
        self.check_blob(key, permission, query)

    def _sign(self, key: str, resource: str, permissions: str, lifetime: float) -> str:
        expiry = datetime.fromtimestamp(time.time() + lifetime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        signature = self._blob_signature(key, permissions, expiry)
        query = {"sv": "2021-08-06", "sr": resource, "sp": permissions, "se": expiry, "sig": signature}
        return urlencode(query, quote_via=quote)

    def check_blob(self, key: str, permission: str, query: dict[str, str]) -> None:
        """Check a signed URL.

        Raises:
            TokenError: The signature is wrong, lacks ``permission``, or has expired.
        """
        granted, expiry = query.get("sp", ""), query.get("se", "")
        expected = self._blob_signature(key, granted, expiry)
        if not hmac.compare_digest(expected.encode(), query.get("sig", "").encode("utf-8", "replace")):
            raise TokenError("Signature did not match.")
        if permission not in granted:
            raise TokenError(f"The signature does not grant {permission!r}.")
        if datetime.fromisoformat(expiry) <= datetime.now(UTC):
            raise TokenError(f"Signature not valid after {expiry}.")

    def _blob_signature(self, key: str, permissions: str, expiry: str) -> str:
        message = "\n".join((key, permissions, expiry)).encode()
        return base64.b64encode(hmac.new(self._key, message, hashlib.sha256).digest()).decode()


def _container_key(container: str, name: str | None = None) -> str:
    # No other blob has such a key: those have no colon. No container's name has a slash.
    return f"container:{container}" if name is None else f"container:{container}/{name}"
