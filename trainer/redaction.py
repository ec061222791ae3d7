"""Secrets taken out of what others say: the one function, and the two places that call it.

What a service, an SDK or a proxy says about a failure may quote the request: its token, its signed link, its password.
Every such text becomes a :class:`~trainer.errors.TrainerError` or a :class:`~trainer.records.RunFailure` before anyone
sees it, on a terminal, in JSON, in a record or in a log. Both call :func:`redact` when they are made, so no path around
it exists. What is data (a script's log, ``trainer emulator --print-env``) passes neither and is not touched.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping

REDACTED = "[redacted]"
# Their values are secrets wherever they appear.
_VARIABLES = (
    *("AZUREML_SERVICE_PRINCIPAL_PASSWORD", "AZURE_CLIENT_SECRET", "AZURE_PASSWORD", "AZUREML_RUN_TOKEN"),
    *("MSI_SECRET", "IDENTITY_HEADER", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"),
)
# A shorter one would take ordinary words with it.
_SHORTEST = 8
# How the names of headers, fields and variables end that hold a secret.
_KEY = (
    r"(?:secret|password|passwd|pwd|(?:access|refresh|id|bearer|auth|sas|run)[_-]?token|assertion"
    r"|(?:account|access|shared|api|storage)[_-]?key|identity[_-]header)"
)


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Return a text without the secrets that it quotes. Doing it twice changes nothing more.

    Bearer tokens and JWTs (RFC 7519), Authorization headers, ``sig`` of a shared access signature, passwords in URLs,
    keys and fields called secret, password, token or key, the path ``/msi/<secret>/``, and the values of the variables
    that hold this process's own credentials.

    Args:
        text: What was said.
        environment: Where those variables are; by default this process's.
    """
    variables = os.environ if environment is None else environment
    for name in _VARIABLES:
        value = variables.get(name, "")
        if len(value) >= _SHORTEST and value in text:
            text = text.replace(value, REDACTED)
    for pattern in _rules():
        text = pattern.sub(rf"\1{REDACTED}", text)
    return text


@functools.cache
def _rules() -> tuple[re.Pattern[str], ...]:
    """The patterns, each with what stays as its group. Compiled at the first message: most commands end without one."""
    once = r"(?!\[redacted\])"
    rules = (
        # Authorization: Bearer x; 'Authorization': 'SharedKey account:x'
        rf"(\bauthorization[\"']?\s{{0,4}}[:=]\s{{0,4}}[\"']?){once}(?:[A-Za-z]{{1,30}}\s{{1,4}})?[^\s\"',;)}}\]]+",
        rf"(\b(?:Bearer|SharedAccessSignature|SharedKey)\s{{1,4}}){once}[A-Za-z0-9._~+/=:-]{{8,}}",
        r"()\beyJ[\w-]{8,}(?:\.[\w-]{0,}){0,4}",
        # sig=, also with ?, & and = written as escapes
        rf"((?:\b|%3F|%26)sig(?:=|%3D)){once}[^&\s\"'<>,;)}}\]]+",
        # "client_secret": "x", client_secret=x, password='x'
        rf"({_KEY}(?:[\"']\s{{0,4}}:\s{{0,4}}[\"']?|\s{{0,2}}=\s{{0,2}}[\"']?)){once}[^\s&\"',;<>)}}\]]+",
        # The headers of managed identities
        rf"(\b(?:x-identity-header|secret):\s{{0,4}}){once}[^\s\"']+",
        rf"(/msi/){once}[^/\s?#\"'<>)]+",
        rf"(\b[a-z][a-z0-9+.-]{{0,20}}://){once}[^/@\s\"'<>]+(?=@)",
    )
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in rules)
