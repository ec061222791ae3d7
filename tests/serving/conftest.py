"""``trainer serve`` processes."""

import http.client
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pytest

from tests.cli.conftest import Project


class Answered(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(
    url: str, method: str = "GET", path: str = "/", body: bytes | None = None, headers: dict[str, str] | None = None
) -> Answered:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=300)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return Answered(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


class Served:
    """A running ``trainer serve``. What it says is collected."""

    def __init__(self, project: Project, *words: str, port: int = 0, **options: Any) -> None:
        self.process = project.start("serve", *words, "--port", str(port), stdout=subprocess.DEVNULL, **options)
        self.key_file = project.path / ".trainer" / "serving" / "key"
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def said(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, seconds: float = 180) -> "re.Match[str]":
        def find() -> "re.Match[str] | None":
            return re.search(pattern, self.said)

        with self._news:
            self._news.wait_for(lambda: find() or self._ended, seconds)
        found = find()
        assert found, f"{pattern!r} not in:\n{self.said}"
        return found

    @property
    def url(self) -> str:
        return self.wait_for(r"Serving .* at (http://\S+)").group(1)

    @property
    def key(self) -> str:
        return self.key_file.read_text().split()[0]

    def ask(
        self, method: str = "GET", path: str = "/", body: bytes | None = None, *, key: str = "", **headers: str
    ) -> Answered:
        """Ask with the key, where there is one."""
        url = self.url  # it has started
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.key_file.exists():
            named.setdefault("Authorization", f"Bearer {key or self.key}")
        return request(url, method, path, body, named)

    def score(self, body: bytes, kind: str = "application/json", **headers: str) -> Answered:
        return self.ask("POST", "/score", body, Content_Type=kind, **headers)

    def stop(self) -> int:
        self.process.terminate()
        code = self.process.wait(120)
        self._reader.join()
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


def write_model(path: Path, seed: int = 0, units: int = 20) -> Path:
    """A network of three layers with random weights, as training writes it."""
    random = np.random.default_rng(seed)
    sizes = (784, units, units, 10)
    arrays = {}
    for number, (given, made) in enumerate(pairwise(sizes), 1):
        arrays[f"l{number}/W"] = random.normal(0, 0.1, (made, given)).astype(np.float32)
        arrays[f"l{number}/b"] = random.normal(0, 0.1, made).astype(np.float32)
    np.savez(path, **arrays)
    return path


def register(project: Project, name: str = "digits", seed: int = 0) -> None:
    """Register such a network as the next version of a model."""
    from backends.local_store import LocalStore
    from trainer.job import TrainingJob
    from trainer.records import RunStatus
    from trainer.runfolder import RunFolder

    home = project.path / ".trainer"
    run = RunFolder.create(home / "runs", TrainingJob(script="train.py"), backend="local", snapshot="0" * 64)
    run.update(status=RunStatus.COMPLETED)
    write_model(run.outputs / "model.npz", seed)
    LocalStore(home / "models").register(run, name)


@pytest.fixture
def bare_project(tmp_path: Path) -> Project:
    """A project with the model ``digits:1``."""
    project = Project(tmp_path / "project", tmp_path, tmp_path)
    register(project)
    return project


@pytest.fixture
def serve(bare_project: Project) -> Iterator[Any]:
    """Start ``trainer serve WORDS``; ended with the test."""
    running: list[Served] = []

    def start(*words: str, **options: Any) -> Served:
        running.append(Served(bare_project, *words, **options))
        return running[-1]

    yield start
    for each in running:
        each.close()
