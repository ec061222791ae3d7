"""Finished runs in a local home, without running anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from trainer.job import TrainingJob
from trainer.records import Metric, RunStatus
from trainer.runfolder import RunFolder

DIGEST = "5e" * 32
ENVIRONMENT = {"python": "3.13.1", "numpy": "2.4.6", "chainer": "7.8.1"}


def make_local_run(
    runs: Path,
    model: bytes | None,
    *,
    metrics: Mapping[str, Sequence[float]] | None = None,
    tags: Mapping[str, str] | None = None,
    dataset: str | None = "mnist-5k",
) -> RunFolder:
    """The folder of a run that has ended well, with these outputs."""
    job = TrainingJob(script="chainer_mnist.py", dataset=dataset, tags=dict(tags or {}))
    folder = RunFolder.create(runs, job, backend="local", snapshot=DIGEST)
    if model is not None:
        (folder.outputs / "model.npz").write_bytes(model)
    (folder.outputs / "environment.json").write_bytes(msgspec.json.encode(ENVIRONMENT))
    logged = [
        Metric(name=name, value=value, step=step)
        for name, values in (metrics or {}).items()
        for step, value in enumerate(values, 1)
    ]
    (folder.path / "metrics.jsonl").write_bytes(b"".join(msgspec.json.encode(metric) + b"\n" for metric in logged))
    folder.update(status=RunStatus.COMPLETED)
    return folder
