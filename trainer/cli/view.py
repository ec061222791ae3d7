"""``trainer view``."""

from __future__ import annotations

from trainer.cli.parsing import Parser, add_json
from trainer.console.output import note, print_json, say
from trainer.errors import UsageError
from trainer.home import find_home


def add_view(parser: Parser) -> None:
    """Declare ``trainer view``."""
    parser.add_argument("--port", metavar="N", type=int, default=0, help="Port on 127.0.0.1 (default: a free one).")
    parser.add_argument("--open", dest="opened", action="store_true", help="Open the page in the browser.")
    add_json(parser, "Print the address as one JSON object.")


def view_command(*, port: int, opened: bool, as_json: bool) -> int:
    """Show the runs on a page until interrupted."""
    if not 0 <= port <= 65535:
        raise UsageError(f"--port must be between 0 and 65535 (got {port}).", "Leave it out, and a free one is taken.")
    from trainer.view.server import Server

    server = Server(find_home(), port)
    if as_json:
        print_json({"url": server.url, "port": server.port, "token": server.token})
    else:
        say(server.url)
        note("The runs of this project, live, for this machine alone. Ctrl-C ends it.")
    import sys

    sys.stdout.flush()
    if opened:
        import webbrowser

        webbrowser.open(server.url)
    try:
        server.serve()
    except KeyboardInterrupt:
        note("Ended.")
    return 0
