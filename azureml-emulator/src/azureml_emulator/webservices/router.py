"""What stands before the deployments of an online endpoint, as in Azure: one port, the keys, the traffic.

``python -I -m azureml_emulator.webservices.router SPEC``: a front (:mod:`azureml_emulator.webservices.front`) that has
no scoring server of its own. It passes each request on to the front of a deployment, which listens on a Unix socket:
to the one that the request's header names, else to one that the traffic chooses, as a file says that is read again
whenever it changes.
"""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

from azureml_emulator.webservices.front import Front, main
from azureml_emulator.webservices.relay import Message, Receive, Send, answer, discard

NAMED = b"azureml-model-deployment"


class Router(Front):
    """The front of an endpoint.

    Args:
        spec: As for :class:`Front`, and ``routes``, a file: ``{"traffic": {NAME: percent}, "sockets": {NAME: path}}``.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        super().__init__(spec)
        self._routes = Routes(Path(spec["routes"]))

    async def _start(self) -> asyncio.Task[int]:
        return asyncio.create_task(_never())

    async def _is_ready(self) -> bool:
        return True

    async def _relay(self, scope: Message, receive: Receive, send: Send) -> None:
        named = dict(scope["headers"]).get(NAMED, b"").decode("latin-1")
        socket = self._routes.choose(named)
        if socket is not None:
            await self._forward(socket, scope, receive, send)
            return
        await discard(receive)
        said = f"there is no deployment {named[:40]}" if named else "no deployment has traffic"
        await answer(send, 404, f"No valid deployments to route to: {said}.")


class Routes:
    """Where requests go.

    Args:
        path: The file that says so.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._traffic: dict[str, int] = {}
        self._sockets: dict[str, str] = {}

    def choose(self, named: str = "") -> str | None:
        """Return the socket of a deployment: of the one that is named, else by the traffic; None if there is none."""
        self._read()
        if named:
            return self._sockets.get(named)
        shares = {name: share for name, share in self._traffic.items() if share > 0 and name in self._sockets}
        if not shares:
            return None
        name = random.choices(list(shares), weights=list(shares.values()))[0]  # noqa: S311 - no secret
        return self._sockets[name]

    def _read(self) -> None:
        try:
            found = self._path.stat()
            seen = (found.st_ino, found.st_mtime_ns)
            if seen != self._seen:
                content = json.loads(self._path.read_bytes())
                self._traffic, self._sockets, self._seen = content["traffic"], content["sockets"], seen
        except (OSError, ValueError, KeyError, TypeError):
            self._traffic, self._sockets, self._seen = {}, {}, None


async def _never() -> int:
    await asyncio.Event().wait()
    return 0


if __name__ == "__main__":
    main(Router)
