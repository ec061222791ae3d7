"""What every request meets first: is it for this emulator, and from a program rather than from a web page?

A browser that has been led to another site can be made to send requests to 127.0.0.1: from a page of that site, which
the browser says in ``Origin`` and ``Sec-Fetch-Site``, or under a name that resolves to 127.0.0.1 (DNS rebinding), which
is then in ``Host``. Neither gets further than here, and nothing of its body is read.
"""

from __future__ import annotations

import logging

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from azureml_emulator.errors import ServiceError
from azureml_emulator.logs import recordable

_OWN_SITES = ("none", "same-origin")

log = logging.getLogger(__name__)


class Gate:
    """Outermost layer: answers 403 to what names another host or comes from a page of one.

    Args:
        app: What the others get to.
        port: The port that the emulator listens on.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._hosts = frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost"))
        self._origins = frozenset(f"https://{host}" for host in self._hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request, or the application's lifespan."""
        reason = self._objection(scope) if scope["type"] == "http" else None
        if reason is None:
            await self._app(scope, receive, send)
            return
        log.warning("refused %s %s: %s", recordable(scope["method"]), recordable(scope["path"]), reason)
        error = ServiceError(403, "ForeignRequest", f"The emulator is for programs of this machine: {reason}.")
        # What is still being sent is not read, so the connection is of no more use.
        answer = JSONResponse(error.body(), status_code=error.status, headers={"Connection": "close"})
        await answer(scope, receive, send)

    def _objection(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return "its Host is another"
        if not scope["path"].startswith("/"):
            return "it is for a proxy"
        if any(origin.lower() not in self._origins for origin in headers.getlist("origin")):
            return "its Origin is another"
        if any(site.lower() not in _OWN_SITES for site in headers.getlist("sec-fetch-site")):
            return "it comes from another site"
        return None
