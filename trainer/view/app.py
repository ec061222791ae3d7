"""The page's server: what it answers, and to whom.

It listens on this machine alone, and whoever asks needs the token that was printed when it started. It is taken from
the address once and then kept in a cookie that scripts can't read. The ``Host`` of a request must be this machine, so
that a foreign page can't reach it through a name of its own that resolves to 127.0.0.1. Nothing here changes anything.
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from trainer.backend import DEFAULT_BACKEND, load_backend
from trainer.console.output import log_line
from trainer.errors import NotFoundError, RefusedError, TrainerError
from trainer.home import Home
from trainer.runids import RUN_ID
from trainer.view.curves import Curves
from trainer.view.feed import Feed, safe
from trainer.view.studies import Studies

STATIC = Path(__file__).parent / "static"
_PICTURES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
}
_TEXTS = (".txt", ".log", ".json", ".jsonl", ".csv", ".py", ".md", ".yaml", ".yml", ".toml", "")
_LOG_TAIL = 64 * 1024
# Bytes of metrics that are read before a request is answered with what there is: a few tenths of a second.
_BUDGET = 96 << 20
_MOST_RUNS = 200
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_Next = Callable[[Request], Awaitable[Response]]


def make_app(home: Home, token: str, port: int) -> Starlette:
    """Make the application.

    Args:
        home: Where runs and models are kept.
        token: What a request must show.
        port: The port that it is reached at.
    """
    curves = Curves(home.runs)
    page = _Page(home, Feed(home, curves), curves, Studies(home, curves))
    app = Starlette(
        routes=[
            Route("/", page.index),
            Route("/api/runs", page.runs),
            Route("/api/run/{run_id}", page.run),
            Route("/api/curves", page.curves),
            Route("/api/log/{run_id}", page.log),
            Route("/api/models", page.models),
            Route("/api/studies", page.studies),
            Route("/api/study/{study_id}", page.study),
            Route("/files/{run_id}/{path:path}", page.file),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        exception_handlers={TrainerError: _explain},
    )
    app.add_middleware(BaseHTTPMiddleware, dispatch=_gate(token, port))
    return app


def _gate(token: str, port: int) -> Callable[[Request, _Next], Awaitable[Response]]:
    hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
    cookie = f"trainer-view-{port}"

    async def dispatch(request: Request, go_on: _Next) -> Response:
        response = await answer(request, go_on)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    async def answer(request: Request, go_on: _Next) -> Response:
        if request.headers.get("host", "").lower() not in hosts:
            return PlainTextResponse("This server answers at 127.0.0.1 only.\n", 421)
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("This server only shows.\n", 405, {"Allow": "GET, HEAD"})
        given = request.query_params.get("token", "")
        if given and _same(given, token) and request.url.path == "/":
            # The token leaves the address, and with it the history and what is copied from there.
            redirect = RedirectResponse("/", 303)
            redirect.set_cookie(cookie, token, httponly=True, samesite="strict")
            return redirect
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not any(_same(shown, token) for shown in (given, bearer, request.cookies.get(cookie, ""))):
            return PlainTextResponse("The address that 'trainer view' printed has a token in it. Open that one.\n", 403)
        return await go_on(request)

    return dispatch


class _Page:
    def __init__(self, home: Home, feed: Feed, curves: Curves, studies: Studies) -> None:
        self._home, self._feed, self._curves, self._studies = home, feed, curves, studies

    async def index(self, _: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def runs(self, request: Request) -> Response:
        since = _whole(request, "since", 0)
        answer = await run_in_threadpool(self._feed.changes, since)
        return _json(answer | {"project": self._home.project.name})

    async def run(self, request: Request) -> Response:
        return _json(await run_in_threadpool(self._feed.run, _run_id(request)))

    async def curves(self, request: Request) -> Response:
        query = request.query_params
        run_ids = [run_id for run_id in query.get("runs", "").split(",") if RUN_ID.fullmatch(run_id)][:_MOST_RUNS]
        try:
            between = (float(query["from"]), float(query["to"])) if "from" in query and "to" in query else None
        except ValueError:
            between = None
        found = await run_in_threadpool(
            lambda: self._curves.together(
                run_ids,
                query.get("metric", ""),
                by_time=query.get("x") == "time",
                points=min(max(_whole(request, "points", 1200), 10), 5000),
                between=between,
                budget=_BUDGET,
            )
        )
        return _json(found)

    async def log(self, request: Request) -> Response:
        folder = self._feed.folder(_run_id(request))
        size = folder.log_path.stat().st_size if folder.log_path.is_file() else 0
        since = _whole(request, "since", -1)
        start = since if 0 <= since <= size else max(0, size - _LOG_TAIL)
        data = folder.read_log(start)[: 4 * _LOG_TAIL]
        # Only whole lines: the rest comes with the next look.
        data = data if folder.info().status.terminal else data[: data.rfind(b"\n") + 1]
        lines = [log_line(line, io.StringIO()) for line in data.decode("utf-8", "replace").split("\n")]
        return _json({"text": "\n".join(lines), "next": start + len(data), "cut": since < 0 < start})

    async def models(self, _: Request) -> Response:
        return _json(await run_in_threadpool(self._local_models))

    async def studies(self, _: Request) -> Response:
        return _json(await run_in_threadpool(self._studies.listed))

    async def study(self, request: Request) -> Response:
        study_id, since = request.path_params["study_id"], request.query_params.get("since", "")
        return _json(await run_in_threadpool(self._studies.one, study_id, since))

    def _local_models(self) -> list[Any]:
        try:
            return list(load_backend(DEFAULT_BACKEND, self._home).store().versions())
        except RefusedError:
            return []

    async def file(self, request: Request) -> Response:
        root = self._feed.folder(_run_id(request)).outputs.resolve()
        name = request.path_params["path"]
        path = root / name
        if "\0" in name or not safe(root, path) or not path.is_file():
            raise NotFoundError("There is no such file.", "")
        kind = _PICTURES.get(path.suffix.lower())
        headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}
        if kind is not None:
            return FileResponse(path, media_type=kind, headers=headers)
        if path.suffix.lower() in _TEXTS:
            return FileResponse(path, media_type="text/plain; charset=utf-8", headers=headers)
        return FileResponse(path, media_type="application/octet-stream", filename=path.name, headers=headers)


async def _explain(_: Request, error: Exception) -> Response:
    message = error.message if isinstance(error, TrainerError) else str(error)
    return _json({"error": message}, 404 if isinstance(error, NotFoundError) else 500)


def _run_id(request: Request) -> str:
    run_id: str = request.path_params["run_id"]
    if not RUN_ID.fullmatch(run_id):
        raise NotFoundError(f"{run_id[:60]!r} is no run's id.", "")
    return run_id


def _whole(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    return int(text) if text.lstrip("-").isdecimal() and len(text) < 16 else default


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value, enc_hook=str), status, media_type="application/json")


def _same(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(), token.encode())
