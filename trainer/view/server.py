"""Start the page's server on a port of this machine."""

from __future__ import annotations

import secrets
import socket

from trainer.errors import ConfigError, MissingExtraError
from trainer.home import Home


class Server:
    """A server that has its port already and answers once :meth:`serve` is called.

    Args:
        home: Where runs and models are kept.
        port: The port; 0 takes a free one.

    Raises:
        MissingExtraError: The extra ``view`` is not installed.
        ConfigError: The port can't be had.
    """

    def __init__(self, home: Home, port: int = 0) -> None:
        try:
            import uvicorn

            from trainer.view.app import make_app
        except ImportError as error:
            raise MissingExtraError("trainer view", "view") from error
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind(("127.0.0.1", port))
            # Whoever opens the address before the server runs waits.
            self._socket.listen(128)
        except OSError as error:
            raise ConfigError(
                f"Port {port} can't be had: {error.strerror}.", "Leave out --port, and a free one is taken."
            ) from error
        self.port: int = self._socket.getsockname()[1]
        self.token = secrets.token_urlsafe(24)
        config = uvicorn.Config(
            make_app(home, self.token, self.port),
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)

    @property
    def url(self) -> str:
        """The address to open, with its token."""
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    def serve(self) -> None:
        """Answer until the process is interrupted."""
        self._server.run(sockets=[self._socket])
