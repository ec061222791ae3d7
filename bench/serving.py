"""``trainer serve`` beside azmlinfsrv, BentoML, MLServer and LitServe: the same network, one worker, loopback.

Every peer has an environment of its own, made with uv in the folder that is given; one that can't be made is left out.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import http.client
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

HERE = Path(__file__).parent / "peers" / "serving"
ROOT = Path(__file__).parents[1]
PEERS = {
    "azmlinfsrv": ("azureml-inference-server-http==1.5.1",),
    "BentoML": ("bentoml==1.4.40",),
    "MLServer": ("mlserver==1.7.1",),
    "LitServe": ("litserve==0.2.19",),
}
OURS = "trainer serve"
_START_SECONDS = 180.0
_STEP_SECONDS = 3.0
CONNECTIONS = 64
_IMAGE: list[float] = [round(value, 4) for value in map(random.Random(0).uniform, [0.0] * 784, [1.0] * 784)]


@dataclass(frozen=True)
class Subject:
    """A server to measure.

    Attributes:
        command: Starts it.
        port: Where it listens.
        path: Where it scores.
        ready: Answers 200 when it can.
        body: Makes the body for so many images.
        kind: Media type of that body.
        environment: Added to this process's.
        cwd: Where it is started.
    """

    command: tuple[str, ...]
    port: int
    path: str = "/score"
    ready: str = "/"
    body: Callable[[int], bytes] = lambda count: json.dumps({"data": [_IMAGE] * count}).encode()
    kind: str = "application/json"
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = HERE


@dataclass
class Row:
    """What was measured of one server; the least of its rounds counts."""

    start_cpu: list[float] = field(default_factory=list)
    start_wall: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    one: list[tuple[float, float, float]] = field(default_factory=list)
    hundred: list[tuple[float, float, float]] = field(default_factory=list)
    load: tuple[int, int, float] | None = None


def measure(folder: Path, peers: Path, rounds: int, load_seconds: float) -> tuple[str, list[str]]:
    """Measure all that can be had.

    Args:
        folder: For models and logs.
        peers: Where the peers' environments are, or are made.
        rounds: How often each server is started and measured, in turns.
        load_seconds: How long 64 connections ask ours at once; its other forms at most 5 seconds.

    Returns:
        A Markdown table, and notes.
    """
    folder.mkdir(parents=True)
    model = _model(folder)
    subjects, notes = _subjects(folder, model, peers)
    rows = {name: Row() for name in subjects}
    for number in range(rounds):
        for name, subject in subjects.items():
            ours = load_seconds if name == OURS else min(5.0, load_seconds)
            load = ours if number == 0 and name.startswith(OURS) else 0.0
            try:
                _measure(subject, rows[name], folder / f"{name}-{number}.txt".replace(" ", "_"), load)
            except (RuntimeError, OSError) as error:
                notes.append(f"{name}: {error}")
    return _table({name: row for name, row in rows.items() if row.one}), notes


def _subjects(folder: Path, model: Path, peers: Path) -> tuple[dict[str, Subject], list[str]]:
    trainer = (sys.executable, "-m", "trainer", "serve", str(model), "--no-key", "--no-log", "--port")
    common = {"PYTHONPATH": str(ROOT), "TRAINER_HOME": str(folder / "home"), "BENCH_MODEL": str(model)}
    subjects = {}

    def ours(name: str, *words: str, **more: object) -> None:
        port = _free_port()
        options = {"ready": "/ready", "environment": common, "cwd": folder} | more
        subjects[name] = Subject((*trainer, str(port), *words), port, **options)  # type: ignore[arg-type]

    ours(OURS)
    ours(
        f"{OURS}, float32 bytes",
        body=lambda count: array.array("f", _IMAGE * count).tobytes(),
        kind="application/octet-stream",
    )
    ours(f"{OURS} --script", "--script", str(HERE / "azure_score.py"))
    notes = []
    for name, packages in PEERS.items():
        python = peers / name.lower() / "bin" / "python"
        problem = _make(python, packages)
        if problem:
            notes.append(f"{name} is left out: {problem}")
        else:
            subjects[name] = _peer(name, python, model, folder)
    return subjects, notes


def _peer(name: str, python: Path, model: Path, folder: Path) -> Subject:
    port = _free_port()
    environment = {
        "BENCH_MODEL": str(model),
        "PYTHONPATH": str(HERE),
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    }
    if name == "azmlinfsrv":
        start = "import sys; from azureml_inference_server_http import amlserver_linux as s"
        code = f"{start}; s.run('127.0.0.1', {port}, 1)"
        more = {
            "AML_APP_ROOT": str(HERE),
            "AZUREML_ENTRY_SCRIPT": "azure_score.py",
            "AZUREML_MODEL_DIR": str(model.parent),
        }
        return Subject((str(python), "-c", code), port, environment=environment | more)
    if name == "BentoML":
        environment |= {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(folder / "bentoml")}
        command = (
            str(python),
            "-m",
            "bentoml",
            "serve",
            "bento_service:Digits",
            "--host",
            "127.0.0.1",
            "-p",
            str(port),
        )
        return Subject(command, port, ready="/readyz", environment=environment)
    if name == "LitServe":
        return Subject(
            (str(python), str(HERE / "litserve_app.py"), str(port)), port, ready="/health", environment=environment
        )
    settings = folder / "mlserver"
    settings.mkdir(exist_ok=True)
    found = {"name": "digits", "implementation": "mlserver_model.Digits"}
    (settings / "model-settings.json").write_text(json.dumps(found))
    own = {"host": "127.0.0.1", "http_port": port, "grpc_port": _free_port(), "metrics_port": _free_port()}
    (settings / "settings.json").write_text(json.dumps({**own, "parallel_workers": 0, "debug": False}))

    def body(count: int) -> bytes:
        tensor = {"name": "x", "shape": [count, 784], "datatype": "FP32", "data": _IMAGE * count}
        return json.dumps({"inputs": [tensor]}).encode()

    return Subject(
        (str(python.parent / "mlserver"), "start", str(settings)),
        port,
        path="/v2/models/digits/infer",
        ready="/v2/models/digits/ready",
        body=body,
        environment=environment,
    )


def _make(python: Path, packages: tuple[str, ...]) -> str:
    """Make an environment unless it is there; gives what stood in the way."""
    if python.exists():
        return ""
    uv = shutil.which("uv")
    if uv is None:
        return "uv is not installed"
    commands = (
        [uv, "venv", "-q", "-p", "3.11", str(python.parents[1])],
        # Not with this project's pins, which uv would find in a folder above.
        [uv, "pip", "install", "--no-config", "-q", "-p", str(python), *packages, "numpy", "setuptools<82"],
    )
    for command in commands:
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            shutil.rmtree(python.parents[1], ignore_errors=True)
            return made.stderr.strip()[-300:]
    return ""


def _measure(subject: Subject, row: Row, log: Path, load_seconds: float) -> None:
    begun = time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            subject.command,
            cwd=subject.cwd,
            env=os.environ | subject.environment,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        _wait(subject, process, log)
        row.start_wall.append(time.perf_counter() - begun)
        row.start_cpu.append(_cpu(process.pid))
        row.one.append(_ask(subject, process.pid, 1))
        row.hundred.append(_ask(subject, process.pid, 100))
        row.memory.append(sum(each.memory_full_info().pss for each in _tree(process.pid)) / 1e6)
        if load_seconds:
            row.load = asyncio.run(_load(subject, load_seconds))
    finally:
        tree = _tree(process.pid)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        for each in tree:
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue
        process.wait()


def _wait(subject: Subject, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", subject.port, timeout=5)
        try:
            connection.request("GET", subject.ready)
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.02)
    raise RuntimeError(f"it did not start: {log.read_text(errors='replace')[-300:]}")


def _ask(subject: Subject, pid: int, count: int) -> tuple[float, float, float]:
    """Ask one request after the other; gives processor ms each, median ms and 99th percentile ms."""
    body = subject.body(count)
    connection = http.client.HTTPConnection("127.0.0.1", subject.port, timeout=60)
    waits: list[float] = []

    def one() -> None:
        begun = time.perf_counter()
        connection.request("POST", subject.path, body, {"Content-Type": subject.kind})
        answer = connection.getresponse()
        text = answer.read()
        waits.append(time.perf_counter() - begun)
        if answer.status != 200:
            raise RuntimeError(f"status {answer.status}: {text[:200]!r}")

    for _ in range(30):
        one()
    waits.clear()
    cpu, end = _cpu(pid), time.perf_counter() + _STEP_SECONDS
    while time.perf_counter() < end:
        one()
    used = (_cpu(pid) - cpu) / len(waits)
    connection.close()
    ordered = sorted(waits)
    return 1e3 * used, 1e3 * statistics.median(ordered), 1e3 * ordered[int(0.99 * len(ordered))]


async def _load(subject: Subject, seconds: float) -> tuple[int, int, float]:
    """Ask on 64 connections at once; gives requests, errors and requests per second."""
    body = subject.body(1)
    head = f"POST {subject.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {subject.kind}\r\n"
    message = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    done, errors, end = 0, 0, time.monotonic() + seconds

    async def client() -> None:
        nonlocal done, errors
        reader, writer = await asyncio.open_connection("127.0.0.1", subject.port)
        while time.monotonic() < end:
            writer.write(message)
            try:
                answer = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.partition(b":")[2]))
            except (asyncio.IncompleteReadError, ConnectionError):
                errors += 1
                return
            errors += not answer.startswith(b"HTTP/1.1 200")
            done += 1
        writer.close()

    begun = time.monotonic()
    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return done, errors, done / (time.monotonic() - begun)


def _table(rows: Mapping[str, Row]) -> str:
    head = [
        *("", "ready: CPU s", "clock s", "PSS MB", "1 image: CPU ms", "p50 / p99 ms", "100 images: CPU ms"),
        *("p50 / p99 ms", f"{CONNECTIONS} connections"),
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, row in rows.items():
        one, hundred = min(row.one), min(row.hundred)
        load = "" if row.load is None else f"{row.load[0]:,} requests, {row.load[1]} errors, {row.load[2]:,.0f} per s"
        cells = [
            name,
            f"{min(row.start_cpu):.2f}",
            f"{min(row.start_wall):.2f}",
            f"{min(row.memory):.0f}",
            f"{one[0]:.2f}",
            f"{one[1]:.2f} / {one[2]:.2f}",
            f"{hundred[0]:.1f}",
            f"{hundred[1]:.1f} / {hundred[2]:.1f}",
            load,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _tree(pid: int) -> list[psutil.Process]:
    try:
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _cpu(pid: int) -> float:
    """Processor seconds of a process, those below it, and those it has waited for."""
    total = 0.0
    for process in _tree(pid):
        times = process.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _model(folder: Path) -> Path:
    import numpy as np

    numbers = np.random.default_rng(0)
    arrays = {}
    for layer, (made, given) in enumerate(((100, 784), (100, 100), (10, 100)), 1):
        arrays[f"l{layer}/W"] = numbers.normal(0, 0.05, (made, given)).astype(np.float32)
        arrays[f"l{layer}/b"] = np.zeros(made, np.float32)
    path = folder / "model.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy's stub of savez
    return path
