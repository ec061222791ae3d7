"""A job as the SDK's Chainer estimator, submitted so that it can't run twice.

Which of the estimator's parameters are used, and why, is in docs/azureml.md.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.azure import sending
from backends.azure.computes import SdkComputes
from backends.azure.errors import explained, status_of
from backends.azure.image import PARSING
from backends.azure.restarts import launcher_arguments, seconds_left
from backends.azure.session import sdk
from trainer.errors import ConfigError, RefusedError
from trainer.home import user_home
from trainer.locks import locked
from trainer.runtime.layout import LAUNCHER

if TYPE_CHECKING:
    from backends.azure.image import Environment
    from backends.azure.restarts import Again
    from backends.azure.sdk import Run, Workspace
    from trainer.job import TrainingJob
    from trainer.runfolder import RunFolder

_one_thread = threading.Lock()
_URL_WITH_CREDENTIALS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^/@\s]+@")


class SdkClient:
    """See :class:`backends.azure.base.Client`.

    Args:
        workspace: Where it works.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def computes(self) -> SdkComputes:
        """See :meth:`backends.azure.base.Client.computes`."""
        sdk("azureml.core.compute")  # importing it waits for nobody
        return SdkComputes(self._workspace)

    def find_run(self, name: str) -> Run | None:
        """See :meth:`backends.azure.base.Client.find_run`."""
        return find_run(self._workspace, name)

    def prepare(
        self, folder: RunFolder, image: Environment, compute: str, seconds: int, again: Again | None = None
    ) -> Callable[[], bool]:
        """See :meth:`backends.azure.base.Client.prepare`."""
        job = folder.job()
        target = self._target(compute, job)
        config = make_config(folder, image, target, seconds_left(folder), checkpoint_seconds=seconds, again=again)

        def send() -> bool:
            sent = submit_once(self._workspace, folder, config, again)
            if sent:
                set_tags(self._workspace, folder, folder.run_id if again is None else again.name)
            return sent

        return send

    def _target(self, compute: str, job: TrainingJob) -> Any:  # noqa: ANN401
        """What the estimator takes for a cluster: of a job of several ranks, the SDK's own object for it."""
        if job.ranks == 1:
            return compute
        found = self.computes().find(compute)
        if found is None:
            raise RefusedError(f"The cluster {compute} is gone.", "Start the run again; it is made anew.")
        return found


def make_config(
    folder: RunFolder,
    environment: Environment,
    compute: Any,  # noqa: ANN401
    max_seconds: int | None,
    *,
    checkpoint_seconds: int = 60,
    again: Again | None = None,
) -> Any:  # noqa: ANN401
    """Make the Chainer estimator for a run, in the form that ``Experiment.submit`` takes. Thread-safe.

    An estimator can't be given a run id: ``Experiment.submit(estimator, run_id=...)`` is refused. So the run
    configuration that it made is submitted, as the estimator itself would do, with the id beside it.

    Args:
        folder: The run, with its staged snapshot.
        environment: What it runs in.
        compute: The cluster's name; for several ranks the SDK's object for it.
        max_seconds: Its time cap, or None.
        checkpoint_seconds: Between two uploads of its checkpoint, at least.
        again: Of a further attempt, what is different.

    Returns:
        An ``azureml.core.ScriptRunConfig``.
    """
    job = folder.job()
    arguments = launcher_arguments(job, checkpoint_seconds, again)
    ranks = None if job.ranks == 1 else (job.nodes, job.processes_per_node)
    snapshot = folder.snapshot if again is None else again.snapshot
    return script_config(snapshot, arguments, environment, compute, max_seconds, ranks)


def script_config(
    snapshot: Path,
    arguments: list[str],
    environment: Environment,
    compute: Any,  # noqa: ANN401
    max_seconds: int | None,
    ranks: tuple[int, int] | None = None,
) -> Any:  # noqa: ANN401
    """Make the estimator for the launcher in a staged snapshot with those arguments; see :func:`make_config`.

    ``ranks`` are the nodes and the processes on each, for a job of MPI.
    """
    chainer_estimator, definition = sdk("azureml.train.dnn").Chainer, _definition(environment)
    several: dict[str, Any] = {}
    if ranks is not None:
        nodes, processes = ranks
        mpi = sdk("azureml.core.runconfig").MpiConfiguration(process_count_per_node=processes, node_count=nodes)
        several = {"node_count": nodes, "distributed_training": mpi}
    with PARSING:  # the estimator parses the entry script
        estimator = chainer_estimator(
            source_directory=str(snapshot),
            entry_script=LAUNCHER,
            compute_target=compute,
            environment_definition=definition,
            max_run_duration_seconds=max_seconds,
            **several,
        )
    configuration = estimator.run_config
    # Not Environment.docker.enabled, which is deprecated and says so.
    configuration.docker = sdk("azureml.core.runconfig").DockerConfiguration(use_docker=True)
    # script_params is a dictionary: it can't repeat a flag and loses empty words.
    configuration.arguments = arguments
    return sdk("azureml.core").ScriptRunConfig(source_directory=str(snapshot), run_config=configuration)


def _definition(environment: Environment) -> Any:  # noqa: ANN401
    definition = sdk("azureml.core").Environment.from_dockerfile(environment.name, environment.dockerfile)
    # The Dockerfile has installed everything; Azure ML is not to build a conda environment on top.
    definition.python.user_managed_dependencies = True
    return definition


def submit_once(workspace: Workspace, folder: RunFolder, config: Any, again: Again | None = None) -> bool:  # noqa: ANN401
    """Submit a run under the id of its folder, or of a further attempt. Thread-safe.

    The id makes a lost answer harmless: whether the service took the run can be looked up.

    Returns:
        Whether the service is known to have it. False: it could not be reached any more to ask.

    Raises:
        TrainerError: It does not have it, and won't.
    """
    core = sdk("azureml.core")
    run_id, snapshot = (folder.run_id, folder.snapshot) if again is None else (again.name, again.snapshot)

    def send() -> None:
        experiment = core.Experiment(workspace, folder.job().experiment)
        experiment.submit(config, run_id=run_id)

    return send_once(workspace, run_id, snapshot, send)


def send_once(workspace: Workspace, run_id: str, snapshot: Path, send: Callable[[], None]) -> bool:
    """Send what gets an id of our own; see :func:`submit_once`.

    Args:
        workspace: Where to.
        run_id: The id.
        snapshot: What travels.
        send: Sends it, once.
    """

    def exclusively() -> None:
        with exclusive_upload(), _without_credentials(snapshot):
            send()

    return sending.send_once(lambda: find_run(workspace, run_id), run_id, exclusively)


def find_run(workspace: Workspace, run_id: str) -> Run | None:
    """Look up the run with that id; None if the service has none."""
    core = sdk("azureml.core")
    with explained(f"look up run {run_id}"):
        try:
            found: Run = core.Run.get(workspace, run_id)
        except Exception as error:
            if status_of(error) == 404:
                return None
            raise
    return found


def set_tags(workspace: Workspace, folder: RunFolder, name: str) -> None:
    """Put the job's tags and what it is made of on a run. Nothing depends on them, so errors are ignored."""
    job = folder.job()
    facts = {"trainer.snapshot": folder.info().snapshot, "trainer.dataset": job.dataset, **job.tags}
    with contextlib.suppress(Exception):
        found = find_run(workspace, name)
        if found is not None:
            found.set_tags({name: str(value) for name, value in facts.items() if value is not None})


@contextlib.contextmanager
def exclusive_upload() -> Iterator[None]:
    """Allow one upload at a time on this machine, and send what the SDK prints to standard error. Thread-safe.

    The SDK keeps the last snapshot's tree and id in a file in the home directory, written without a lock and read
    to send only what changed: two at once can pair one's tree with the other's id, and a run would get the wrong
    files. The working directory and standard output are the process's, so threads exclude each other too.
    """
    home = user_home()
    if home is None:
        raise ConfigError("The Azure ML SDK needs a home directory, and this user has none.", "Set HOME to one.")
    directory = home / ".azureml"
    directory.mkdir(parents=True, exist_ok=True)
    with _one_thread, locked(directory / ".trainer-upload.lock"), contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def _without_credentials(directory: Path) -> Iterator[None]:
    """Keep a password in the git remote's URL from being recorded on the run, as the SDK would."""
    name = "AZUREML_GIT_REPOSITORY_URI"  # the SDK's own override
    url = os.environ.get(name) or _git_remote(directory)
    clean = _URL_WITH_CREDENTIALS.sub(r"\g<scheme>", url or "")
    if clean == (url or ""):
        yield
        return
    before: Mapping[str, str] = {name: os.environ[name]} if name in os.environ else {}
    os.environ[name] = clean
    try:
        yield
    finally:
        del os.environ[name]
        os.environ.update(before)


def _git_remote(directory: Path) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "ls-remote", "--get-url"],  # noqa: S607  # as the SDK runs it
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
