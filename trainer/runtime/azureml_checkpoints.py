"""On Azure ML: checkpoints leave the node while it lives, and an attempt finds those of the attempts before.

What is uploaded is kept by the service whatever becomes of the node, and no name of it can be used twice:

    trainer_checkpoints/<attempt>/<number>/<file>    a file of the outputs, as it was then
    trainer_checkpoints/<attempt>/<number>.json      written last: which files make the checkpoint, when they were
                                                     written, and the metrics that had been logged by then

At most one checkpoint per minute is uploaded, in a thread, and one when the node says that it is about to be taken.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from trainer.runtime import attempts, ranks, tracking
from trainer.runtime.atomic import write_bytes
from trainer.runtime.attempts import Checkpoint
from trainer.runtime.layout import (
    ATTEMPT_VARIABLE,
    CHECKPOINT_FILE,
    EARLIER_METRICS,
    LOGS_DIR,
    METRICS_FILE,
    OUTPUTS_DIR,
    RESUME_DIR,
    STREAMED_DIR_VARIABLE,
)

FOLDER = "trainer_checkpoints"
"""The first part of the artifacts' names."""
SECONDS = 60.0
"""Between two uploads, at least."""
ATTEMPT = "trainer attempt"
"""Name of the line, among the streamed metrics, that says which attempt goes on from where; not a metric."""
_INDEX = re.compile(rf"{FOLDER}/(\d{{1,6}})/(\d{{1,9}})\.json")
_UPLOADED = re.compile(rf"{FOLDER}/(\d{{1,6}})/")
_LOOK_SECONDS = 0.5
_END_SECONDS = 25.0
_LARGEST_INDEX = 512 << 20


class Artifacts(Protocol):
    """What is used of the SDK's ``Run``."""

    def get_file_names(self) -> Iterable[str]:
        """Return the names of all artifacts."""

    def download_file(self, name: str, output_file_path: str) -> None:
        """Download one; its name is percent-encoded."""


def restore(run: Artifacts, directory: Path, only: str | None = None) -> tuple[Checkpoint, bytes]:
    """Download the newest checkpoint that is whole.

    Args:
        run: The run, at whatever side.
        directory: An empty folder, for the files.
        only: The name of one checkpoint, which is the first part of its files' names below the folder.

    Returns:
        It, and the lines of metrics that were logged before it. Without files if there is none.

    Raises:
        Exception: What the SDK raises where the service does not answer.
    """
    names = list(run.get_file_names())
    found = [(int(match[1]), int(match[2]), match[0]) for name in names if (match := _INDEX.fullmatch(name))]
    for attempt, number, name in sorted(found, reverse=True):
        root = directory / f"{attempt}-{number}"
        if only not in (None, root.name):
            continue
        root.mkdir()
        index = root / ".index.json"
        run.download_file(name, str(index))
        entries, metrics = _read_index(index)
        index.unlink()
        for each, (artifact, written) in entries.items():
            target = root / each
            with suppress(FileExistsError, NotADirectoryError):
                target.parent.mkdir(parents=True, exist_ok=True)
                if artifact in names:
                    # Its name becomes a part of a URL.
                    run.download_file(quote(artifact), str(target))
                    os.utime(target, (written, written))
        checkpoint = attempts.find_checkpoint(root, "**/*")
        if checkpoint.files and set(checkpoint.files) == set(entries):
            return checkpoint, attempts.kept_metrics(metrics, checkpoint)
    return Checkpoint(), b""


def last_attempt(names: Iterable[str]) -> int:
    """Return the number of the last attempt that has uploaded any part of a checkpoint; 0 for none."""
    return max((int(match[1]) for name in names if (match := _UPLOADED.match(name))), default=0)


def _read_index(path: Path) -> tuple[dict[str, tuple[str, float]], bytes]:
    """Read which files make a checkpoint; nothing of an index that is damaged or leads out of its folder."""
    try:
        if path.stat().st_size > _LARGEST_INDEX:
            return {}, b""
        content = json.loads(path.read_bytes())
        entries = {str(name): (str(artifact), float(written)) for name, (artifact, written) in content["files"].items()}
        metrics = str(content["metrics"]).encode()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}, b""
    return (entries, metrics) if all(map(attempts.is_pattern, entries)) else ({}, b"")


class Uploader(threading.Thread):
    """Uploads checkpoints as they are written.

    Args:
        run: An ``azureml.core.Run`` of its own, or a :class:`trainer.runtime.azureml_artifacts.JobArtifacts`.
        root: The job's working directory.
        pattern: Of the files below its outputs.
        attempt: This attempt's number.
        seconds: Between two uploads, at least.
    """

    def __init__(self, run: Any, root: Path, pattern: str, attempt: int, seconds: float) -> None:  # noqa: ANN401
        super().__init__(name="trainer-checkpoints", daemon=True)
        self._run, self._outputs, self._pattern = run, root / OUTPUTS_DIR, pattern
        self._attempt, self._seconds = attempt, seconds
        self._metrics = Path(os.environ.get(STREAMED_DIR_VARIABLE, root / LOGS_DIR)) / METRICS_FILE
        self._number = 0
        self._sent: dict[str, tuple[str, int, int, float]] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        self._told = False
        self._stop_now, self._last = threading.Event(), threading.Event()

    def run(self) -> None:
        """Look for new checkpoints until told to stop; called in the thread."""
        due = 0.0
        while not self._stop_now.is_set():
            last = self._last.is_set()
            if last or time.monotonic() >= due:
                try:
                    if self._upload(at_once=last):
                        due = time.monotonic() + self._seconds
                except Exception as error:  # the service may be away; training goes on, and the next look tries again
                    due = time.monotonic() + self._seconds
                    if not self._told:
                        self._told = True
                        sys.stderr.write(f"warning: A checkpoint could not be uploaded: {error}\n")
            if last:
                return
            self._last.wait(_LOOK_SECONDS)

    def stop(self, *, save: bool) -> None:
        """End the thread, with a last upload if ``save``; waits for it, but not for ever."""
        (self._last if save else self._stop_now).set()
        if not save:
            self._last.set()
        self.join(_END_SECONDS)

    def _upload(self, *, at_once: bool) -> bool:
        """Upload what has changed since the last upload; return whether something had."""
        with tempfile.TemporaryDirectory(prefix="trainer-checkpoint-") as temporary:
            files = self._changed(Path(temporary), at_once=at_once)
            if not files:
                return False
            self._number += 1
            place = f"{FOLDER}/{self._attempt}/{self._number}"
            sent = dict(self._sent)
            for name, (path, size, changed, written) in files.items():
                self._run.upload_file(f"{place}/{name}", str(path))
                sent[name] = (f"{place}/{name}", size, changed, written)
            sent = {name: entry for name, entry in sent.items() if (self._outputs / name).is_file()}
            index = Path(temporary, "index")
            metrics = self._metrics.read_text("utf-8", "replace") if self._metrics.is_file() else ""
            entries = {name: (artifact, written) for name, (artifact, _, _, written) in sent.items()}
            index.write_text(json.dumps({"files": entries, "metrics": metrics[: metrics.rfind("\n") + 1]}))
            self._run.upload_file(f"{place}.json", str(index))
            self._sent = sent
        return True

    def _changed(self, temporary: Path, *, at_once: bool) -> dict[str, tuple[Path, int, int, float]]:
        """Copy the files that are new or changed, and that nobody is writing."""
        found = {}
        seen = {}
        for number, path in enumerate(attempts.matching(self._outputs, self._pattern)):
            name = path.relative_to(self._outputs).as_posix()
            copy = temporary / str(number)
            with suppress(OSError), path.open("rb") as source, copy.open("wb") as target:
                status = os.fstat(source.fileno())
                seen[name] = (status.st_mtime_ns, status.st_size)
                # Ours is replaced whole, and may be at every look.
                if name != CHECKPOINT_FILE and not at_once and self._seen.get(name) != seen[name]:
                    continue
                if self._sent.get(name, ("", 0, 0, 0.0))[1:3] == (status.st_size, status.st_mtime_ns):
                    continue
                shutil.copyfileobj(source, target)
                after = os.fstat(source.fileno())
                if (after.st_mtime_ns, after.st_size) == (status.st_mtime_ns, status.st_size):
                    found[name] = (copy, status.st_size, status.st_mtime_ns, status.st_mtime)
        self._seen = seen
        return found


_uploader: Uploader | None = None


def begin(script: Path, pattern: str | None, attempt: int, seconds: float) -> tuple[str, ...]:
    """Look for a checkpoint of an earlier attempt, lay it out, and begin to upload this one's.

    Of a job of several ranks each calls it, and rank 0 alone looks and uploads.

    Args:
        script: The job's script, in the working directory.
        pattern: Of its checkpoints; None for those of ours, where it writes them.
        attempt: The attempt's number as the client knows it.
        seconds: Between two uploads, at least.

    Returns:
        What is added to the script's arguments.
    """
    global _uploader
    root = Path.cwd()
    leads = ranks.rank() == 0
    os.environ[ATTEMPT_VARIABLE] = str(attempt)
    earlier = root / RESUME_DIR / EARLIER_METRICS
    metrics = earlier.read_bytes() if leads and earlier.is_file() else b""
    words: tuple[str, ...] = ()
    chosen = attempts.pattern_for(script, pattern)
    if chosen is not None:
        try:
            with tempfile.TemporaryDirectory(prefix="trainer-resume-") as temporary:
                before, found, lines = _look(Path(temporary)) if leads else (0, Checkpoint(), b"")
                attempt = max(attempt, before + 1)
                attempt, found = _lay(script, root, Path(temporary), attempt, found)
                os.environ[ATTEMPT_VARIABLE] = str(attempt)
                if found.files:
                    words, metrics = attempts.words_for(script, found), lines
                if before:
                    metrics += _mark(attempt, found)
                    sys.stdout.write(f"Attempt {attempt} goes on from {_place(found)}.\n")
            if leads:
                _uploader = Uploader(_run(), root, chosen, attempt, seconds)
        except Exception as error:  # without its checkpoint the job starts over, which is better than not at all
            _warn(error)
    if metrics:
        _begin_metrics(root, metrics)
    if leads and attempt > 1 and attempts.continues_by_option(script):
        _keep(root)
    if _uploader is not None:
        _uploader.start()
        atexit.register(_uploader.stop, save=False)
    return words


def _look(temporary: Path) -> tuple[int, Checkpoint, bytes]:
    """Return the last attempt that has uploaded a checkpoint, 0 for none; the newest one; the metrics before it."""
    try:
        run = _run()
        before = last_attempt(run.get_file_names())
        return (before, *restore(run, temporary)) if before else (0, Checkpoint(), b"")
    except Exception as error:
        if ranks.size() == 1:
            raise
        _warn(error)  # the other ranks wait to be told
        return 0, Checkpoint(), b""


def _lay(script: Path, root: Path, temporary: Path, attempt: int, found: Checkpoint) -> tuple[int, Checkpoint]:
    """Lay a checkpoint out for the script, on every node; return the attempt and what it goes on from."""
    if ranks.size() == 1:
        if found.files:
            attempts.lay(found, root)
        return attempt, found
    from trainer.runtime import azureml_ranks

    def bring(name: str) -> Checkpoint:
        return restore(_run(), temporary, name)[0]

    name = next((path.relative_to(temporary).parts[0] for path in found.files.values()), "")
    return azureml_ranks.share(script, attempt, name, found, bring)


def _warn(error: Exception) -> None:
    sys.stderr.write(f"warning: No checkpoint can be looked for or uploaded: {type(error).__name__}: {error}\n")


def save_last() -> None:
    """Upload the last checkpoint: the node is about to be taken away. Waits for it."""
    if _uploader is not None and _uploader.is_alive():
        _uploader.stop(save=True)


def _run() -> Any:  # noqa: ANN401  # an azureml.core.Run, or what does the same
    if tracking.is_wanted():  # a node of SDK v2 has no SDK to upload with
        from trainer.runtime.azureml_artifacts import JobArtifacts

        return JobArtifacts()
    from azureml.core.run import Run

    return Run.get_context(allow_offline=False)


def _keep(root: Path) -> None:
    """Put our checkpoint among the outputs: an attempt that has nothing left to train writes none."""
    source, target = root / RESUME_DIR / CHECKPOINT_FILE, root / OUTPUTS_DIR / CHECKPOINT_FILE
    if source.is_file() and not target.exists():
        with suppress(OSError):
            target.parent.mkdir(exist_ok=True)
            shutil.copy2(source, target)


def _begin_metrics(root: Path, lines: bytes) -> None:
    folder = Path(os.environ.get(STREAMED_DIR_VARIABLE, root / LOGS_DIR))
    with suppress(OSError):  # the values are with the service too
        folder.mkdir(exist_ok=True)
        write_bytes(folder / METRICS_FILE, lines)


def _mark(attempt: int, found: Checkpoint) -> bytes:
    line = {
        "name": ATTEMPT,
        "value": attempt,
        "step": found.epoch,
        "text": found.newest,
        "time": round(time.time(), 3),
        "attempt": attempt,
    }
    return json.dumps(line).encode() + b"\n"


def _place(found: Checkpoint) -> str:
    return "the start" if found.newest is None else found.newest if found.epoch is None else f"epoch {found.epoch:g}"
