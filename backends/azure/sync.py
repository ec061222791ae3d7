"""Bring a run on Azure ML into its folder: status, log, metrics, and at the end its outputs and model.

How often to look is decided by :class:`Pace`.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from backends.azure import rank_logs, restarts
from backends.azure.errors import (
    ServiceUnavailableError,
    explained,
    first_line,
    is_transient,
    retry,
    status_of,
)
from backends.azure.outputs import download_outputs
from trainer.errors import ConfigError, RefusedError
from trainer.failures import LINES, failure, signal_in
from trainer.finish import Outcome, finish
from trainer.records import Metric, RunFailure, RunInfo, RunStatus
from trainer.runtime.atomic import write_bytes
from trainer.runtime.layout import ENVIRONMENT_FILE, LOGS_DIR, METRICS_FILE, NOT_KEPT
from trainer.snapshot import DEFAULT_SCRIPT

if TYPE_CHECKING:
    from backends.azure.sdk import FollowedRun
    from trainer.artifacts import ArtifactStore
    from trainer.runfolder import RunFolder

# Keys of what this backend keeps in RunInfo.detail.
WORKSPACE = "workspace"
"""A :class:`~backends.azure.session.WorkspaceRef`: where the run is. Set before the run is sent."""

RUN = "run"
"""The id under which the service has the run. It is ours too, but of a trial that HyperDrive has started."""

SENT = "sent"
"""When it was sent, in seconds since the epoch."""

CANCEL_ASKED = restarts.CANCEL_ASKED

# Azure ML has more statuses than the phases of its documentation.
_STATUSES = {
    **{"NotStarted": RunStatus.NOT_STARTED, "Unapproved": RunStatus.NOT_STARTED},
    **{"Starting": RunStatus.PREPARING, "Provisioning": RunStatus.PREPARING, "Preparing": RunStatus.PREPARING},
    **{"Queued": RunStatus.QUEUED, "Paused": RunStatus.QUEUED, "Pausing": RunStatus.QUEUED},
    **{"Running": RunStatus.RUNNING, "NotResponding": RunStatus.RUNNING, "CancelRequested": RunStatus.RUNNING},
    **{"Finalizing": RunStatus.FINALIZING, "Completed": RunStatus.COMPLETED},
    **{"Failed": RunStatus.FAILED, "Canceled": RunStatus.CANCELED},
}
# The log of what the script prints: names in older workspaces, then today's. The last match is used.
_SCRIPT_LOGS = (
    re.compile(r"azureml-logs/\d\d.+\.txt"),
    re.compile(r"azureml-logs/70_driver_log[\w-]*\.txt"),
    re.compile(r"user_logs/std_log[\w-]*\.txt"),
)
# Lines of trainer.runtime.reporting, with the steps and times that Run.get_metrics() leaves out.
_METRICS_ARTIFACT = f"{LOGS_DIR}/{METRICS_FILE}"
_TIMEOUT_SECONDS = 60
_CHUNK = 1 << 20
_LARGEST_LOG = 1 << 30
_LONGEST_SENTENCE = 1000
_MOST_SENTENCES = 10
# The service's clock starts and stops a little beside the job's own.
_CAP_SLACK_SECONDS = 5.0
# Errors at the end of a run that may pass: no network, no sign-in, the service down or overloaded, a quota.
_RETRY_ON = (OSError, ConfigError, RefusedError)
_GROWTH = 1.25
_PATIENCE_SECONDS = 300.0


def run_name(info: RunInfo) -> str:
    """Return the id under which the service has a run."""
    name = info.detail.get(RUN)
    return name if isinstance(name, str) else info.run_id


class Pace:
    """When to look at one run again.

    A follower asks several times per second; the service is asked less often the longer nothing changes, and
    at the shortest interval again when something has.

    Args:
        shortest: Seconds between two looks at first.
        longest: Seconds between two looks at most.
    """

    def __init__(self, shortest: float, longest: float) -> None:
        self._shortest, self._longest = shortest, longest
        self._interval = shortest
        self._next = 0.0
        self._answered: float | None = None

    def is_due(self) -> bool:
        """Return whether it is time to look."""
        return time.monotonic() >= self._next

    def record_answer(self, *, changed: bool) -> None:
        """Note that the service has answered.

        Args:
            changed: Whether with something new.
        """
        self._answered = time.monotonic()
        self._interval = self._shortest if changed else min(self._longest, self._interval * _GROWTH)
        self._next = self._answered + self._interval

    def record_failure(self) -> bool:
        """Note that the service has not answered, and put off the next look.

        Returns:
            Whether to keep trying: it has answered within the last five minutes.
        """
        self._interval = min(self._longest, self._interval * _GROWTH)
        self._next = time.monotonic() + self._interval
        return self._answered is not None and time.monotonic() - self._answered < _PATIENCE_SECONDS


def sync_run(
    run: FollowedRun,
    folder: RunFolder,
    store: Callable[[], ArtifactStore],
    again: Callable[[FollowedRun], None] | None = None,
    ranks: Iterable[int] = (),
) -> RunInfo:
    """Bring the folder up to date with the run. The caller holds the run's lock for this.

    Args:
        run: The run.
        folder: Its folder.
        store: Gives the model registry.
        again: Sends the run again if it has lost its node and may be; None where it is not to be.
        ranks: Those whose logs are wanted while it runs; the logs of all are at its end.

    The record becomes terminal last: a client that is killed before that, or loses the network, does it again.

    Raises:
        TrainerError: The service can't be reached, or refuses.
    """
    with explained(f"look at run {folder.run_id}"):
        details = run.get_details()
        status = status_in(details)
        logs = dict(details.get("logFiles") or {})
        _download_metrics(run, folder, status)
        _download_log(logs.get(_script_log(logs) or ""), folder.log_path)
        _download_rank_logs(folder, logs, ranks)
    started = seconds(details.get("startTimeUtc"))
    if not status.terminal:
        return folder.update(status=status, started=started)
    lost = status is RunStatus.FAILED and restarts.lost_its_node(details)
    if lost and again is not None and restarts.may_restart(folder.info()):
        info, ended = folder.info(), seconds(details.get("endTimeUtc"))
        restarts.note_spent(folder, run_name(info), max(0.0, (ended or 0.0) - (started or ended or 0.0)))
        if not _is_over_cap(msgspec.structs.replace(info, started=started), folder.job().max_minutes, ended):
            again(run)
            return folder.info()
    folder.update(status=RunStatus.FINALIZING, started=started)

    def collect() -> tuple[str, ...]:
        with explained(f"collect the outputs of run {folder.run_id}"):
            _download_other_logs(folder, logs)
            problems = download_outputs(run, folder)
            if status is not RunStatus.COMPLETED:
                restarts.rescue(run, folder)
        return (*problems, *_not_kept(folder))

    if (several := folder.job().ranks) > 1:
        with explained(f"read the logs of run {folder.run_id}"):
            _download_rank_logs(folder, logs, range(several))
            _download_other_logs(folder, logs)
    return finish(folder, store, _outcome(folder, status, details), collect=collect, retry_on=_RETRY_ON)


def _outcome(folder: RunFolder, status: RunStatus, details: Mapping[str, Any]) -> Outcome:
    """Judge how the job ended. The service also gives the status Canceled to a run that reaches its time cap."""
    info, ended = folder.info(), seconds(details.get("endTimeUtc"))
    # One that loses its node while it is being canceled is not sent again, so it has ended as it was to.
    lost = status is RunStatus.FAILED and restarts.lost_its_node(details)
    canceled = CANCEL_ASKED in info.detail and (status is RunStatus.CANCELED or lost)
    if status is RunStatus.COMPLETED or canceled:
        return Outcome(RunStatus.CANCELED if canceled else status, ended=ended)
    if _is_over_cap(info, folder.job().max_minutes, ended):
        return Outcome.over_cap(folder, ended)
    if status is RunStatus.CANCELED:
        return Outcome(status, ended=ended)
    return Outcome(RunStatus.FAILED, _reason(folder, details), ended)


def _is_over_cap(info: RunInfo, cap: int | None, ended: float | None) -> bool:
    if cap is None or info.started is None or ended is None:
        return False
    earlier = restarts.spent_seconds(info, but=run_name(info))
    return earlier + ended - info.started >= cap * 60 - _CAP_SLACK_SECONDS


def _reason(folder: RunFolder, details: Mapping[str, Any]) -> RunFailure:
    """Describe the failure by the script's log, or by the service's message if the log gives no reason."""
    found = rank_logs.reason(folder) or failure(None, folder.log_tail(LINES))
    if restarts.lost_its_node(details):
        # Whatever the script's log ends with is not why.
        message = (
            f"{restarts.LOST[0].upper()}{restarts.LOST[1:]}: {' '.join(_said(details).split())[:_LONGEST_SENTENCE]}"
        )
        return msgspec.structs.replace(found, message=message, lost=True)
    said = _said(details)
    if said and found.message == failure(None, ()).message:
        if (ended_by := signal_in(said)) is not None:
            return failure(-ended_by, folder.log_tail(LINES))
        return msgspec.structs.replace(found, message=first_line(Exception(said)))
    return found


def _said(details: Mapping[str, Any]) -> str:
    """Return what the service says of a run's failure, or an empty text."""
    error = details.get("error")
    inner = error.get("error", error) if isinstance(error, dict) else {}
    said = inner.get("message") if isinstance(inner, dict) else None
    return str(said) if said else ""


def _download_rank_logs(folder: RunFolder, logs: Mapping[str, str], ranks: Iterable[int]) -> None:
    """Bring the logs of ranks other than 0 up to date; the run's own log is that of 0."""
    of_ranks = rank_logs.urls(logs)
    for rank in {*ranks} - {0}:
        _download_log(of_ranks.get(rank), folder.rank_log(rank))


def _download_log(url: str | None, path: Path) -> None:
    if url is None:
        return
    have = path.stat().st_size if path.exists() else 0
    with contextlib.ExitStack() as stack:
        chunks = _read_from(str(url), have)
        if chunks is None:  # shorter than what we have: a preempted job began again
            have, chunks = 0, _read_from(str(url), 0)
        stream = stack.enter_context(path.open("ab" if have else "wb"))
        for chunk in chunks or ():
            if stream.tell() < _LARGEST_LOG:
                stream.write(chunk)


def _script_log(logs: Mapping[str, str]) -> str | None:
    for pattern in reversed(_SCRIPT_LOGS):
        names = sorted(name for name in logs if pattern.fullmatch(name))
        if names:
            # Of several ranks' logs the first; of numbered phases the latest.
            return names[0] if pattern is not _SCRIPT_LOGS[0] else names[-1]
    return None


def _download_other_logs(folder: RunFolder, logs: Mapping[str, str]) -> None:
    """Keep the service's own logs too: why an image was not built is in one of them."""
    main, several = _script_log(logs), folder.job().ranks > 1
    for name, url in logs.items():
        target = folder.logs / re.sub(r"[^\w.-]+", "_", name)
        if name == main or target.exists() or (several and rank_logs.is_of_rank(name)):
            continue
        with contextlib.suppress(OSError):
            write_bytes(target, b"".join(_read_from(str(url), 0) or ()))


def _read_from(url: str, offset: int) -> Iterator[bytes] | None:
    """Read a blob from byte ``offset`` on; None if it is shorter."""
    import requests

    def read() -> requests.Response:
        answer = requests.get(url, headers={"Range": f"bytes={offset}-"}, stream=True, timeout=_TIMEOUT_SECONDS)
        if answer.status_code == 403:
            raise ServiceUnavailableError("A link to a log has expired.", "The next look gets a new one.")
        if answer.status_code not in (404, 416):
            answer.raise_for_status()
        return answer

    answer = retry(read)
    if answer.status_code == 404:
        return iter(())
    if answer.status_code == 416:  # nothing beyond: it has grown by nothing, or been replaced by a shorter one
        _, _, size = answer.headers.get("Content-Range", "").partition("*/")
        return None if size.isdecimal() and int(size) < offset else iter(())
    skip = offset if answer.status_code == 200 else 0
    if skip and int(answer.headers.get("Content-Length", offset)) < skip:
        return None
    return _skip_bytes(answer.iter_content(_CHUNK), skip)


def _skip_bytes(chunks: Iterator[bytes], skip: int) -> Iterator[bytes]:
    for chunk in chunks:
        if skip < len(chunk):
            yield chunk[skip:]
        skip = max(0, skip - len(chunk))


def _download_metrics(run: FollowedRun, folder: RunFolder, status: RunStatus) -> None:
    target = folder.path / METRICS_FILE
    lines = restarts.notice(folder, status, _streamed_metrics(run))
    if not lines and (status.terminal or folder.job().script != DEFAULT_SCRIPT):
        # Only for scripts that use Run themselves: our own would be listed twice, once without its steps.
        lines = _plain_metrics(retry(run.get_metrics))
    if lines and (not target.exists() or target.stat().st_size != len(lines)):
        write_bytes(target, lines)


def _streamed_metrics(run: FollowedRun) -> bytes:
    with tempfile.TemporaryDirectory(prefix="trainer-metrics-") as directory:
        path = Path(directory, METRICS_FILE)
        try:
            run.download_file(_METRICS_ARTIFACT, str(path))
        except Exception as error:
            if is_transient(error) or (status_of(error) not in (None, 404) and not _is_missing(error)):
                raise
            return b""
        data = path.read_bytes()
    return data[: data.rfind(b"\n") + 1]


def _is_missing(error: BaseException) -> bool:
    return bool(re.search(r"not found|does not exist|NotFound", str(error), re.IGNORECASE))


def _plain_metrics(values: Mapping[str, Any]) -> bytes:
    """Make the lines for what ``Run.get_metrics`` gives, as a job on this machine writes them.

    Numbers and lists of numbers are in the order of logging. Rows and tables are given as a mapping of columns, and
    become one metric per column, ``name/column``, with the row's number as step, counted from 0.
    """
    series: dict[str, tuple[list[Any], bool]] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            series.update({f"{name}/{column}": (_listed(cells), True) for column, cells in value.items()})
        else:
            series[name] = (_listed(value), False)
    longest = max((len(logged) for logged, _ in series.values()), default=0)
    lines = []
    for index in range(longest):
        for name, (logged, is_column) in series.items():
            if index < len(logged) and isinstance(logged[index], Metric):  # with the step that SDK v1 leaves out
                lines.append(msgspec.json.encode(logged[index]) + b"\n")
            elif index < len(logged) and isinstance(logged[index], int | float) and not isinstance(logged[index], bool):
                number = float(logged[index])
                finite = number == number and abs(number) != float("inf")
                step = float(index) if is_column else None
                metric = Metric(name=name, value=number if finite else None, step=step)
                lines.append(msgspec.json.encode(metric) + b"\n")
    return b"".join(lines)


def _listed(value: Any) -> list[Any]:  # noqa: ANN401  # whatever the service has
    return value if isinstance(value, list) else [value]


def _not_kept(folder: RunFolder) -> tuple[str, ...]:
    """What the job says of files that it wrote outside its outputs; see :mod:`trainer.runtime.collecting`."""
    path = folder.outputs / ENVIRONMENT_FILE
    with contextlib.suppress(OSError, msgspec.DecodeError):
        if path.is_file() and path.stat().st_size <= _CHUNK:
            facts = msgspec.json.decode(path.read_bytes())
            said = facts.get(NOT_KEPT) if isinstance(facts, dict) else None
            if isinstance(said, list):
                return tuple(text[:_LONGEST_SENTENCE] for text in said[:_MOST_SENTENCES] if isinstance(text, str))
    return ()


def status_in(details: Mapping[str, Any]) -> RunStatus:
    """Return the status in what the service says of a run."""
    return _STATUSES.get(str(details.get("status")), RunStatus.RUNNING)


def seconds(text: object) -> float | None:
    """Return one of the service's times in seconds since the epoch; None for none."""
    if not isinstance(text, str) or not text:
        return None
    with contextlib.suppress(ValueError):
        # The service writes up to seven decimals; Python takes six.
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return None
