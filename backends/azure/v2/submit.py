"""A job as the SDK's command job, submitted so that it can't run twice."""

from __future__ import annotations

import re
import shlex
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.azure import sending
from backends.azure.errors import explained, retry
from backends.azure.restarts import launcher_arguments, seconds_left
from backends.azure.v2 import run as runs
from backends.azure.v2.client import ml_client, quietly, sdk
from backends.azure.v2.computes import RestComputes
from trainer.runtime.layout import LAUNCHER, NO_TELEMETRY_VARIABLE, TRACKING_VARIABLE

if TYPE_CHECKING:
    from backends.azure.image import Environment
    from backends.azure.restarts import Again
    from backends.azure.v2.connection import Connection
    from trainer.job import TrainingJob
    from trainer.runfolder import RunFolder


class RestClient:
    """See :class:`backends.azure.base.Client`.

    Args:
        connection: Where it works.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def computes(self) -> RestComputes:
        """See :meth:`backends.azure.base.Client.computes`."""
        return RestComputes(self._connection)

    def find_run(self, name: str) -> runs.RestRun | None:
        """See :meth:`backends.azure.base.Client.find_run`."""
        with explained(f"look up run {name}"):
            return retry(lambda: runs.find_run(self._connection, name))

    def prepare(
        self, folder: RunFolder, image: Environment, compute: str, seconds: int, again: Again | None = None
    ) -> Callable[[], bool]:
        """See :meth:`backends.azure.base.Client.prepare`."""

        def make(context: Path) -> Any:  # noqa: ANN401
            return make_job(folder, image, compute, context, checkpoint_seconds=seconds, again=again)

        return prepare_job(self._connection, folder.run_id if again is None else again.name, make)


def prepare_job(connection: Connection, name: str, make: Callable[[Path], Any]) -> Callable[[], bool]:
    """Make a job of the SDK's, to be sent so that it can't run twice.

    Args:
        connection: The workspace.
        name: The job's.
        make: Makes it, given an empty directory for its image's build context.

    Returns:
        Sends it; tells whether the service is known to have it.
    """
    client = ml_client(connection)
    temporary = tempfile.mkdtemp(prefix="trainer-image-")
    # The directory's name is a part of the environment, and an environment of this content can be there already.
    context = Path(temporary, "image")
    context.mkdir()
    job = make(context)

    def send() -> None:
        with quietly():
            client.jobs.create_or_update(job)

    def send_once() -> bool:
        try:
            return sending.send_once(lambda: runs.find_run(connection, name), name, send)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    return send_once


def make_job(
    folder: RunFolder,
    image: Environment,
    compute: str,
    context: Path,
    *,
    checkpoint_seconds: int = 60,
    again: Again | None = None,
) -> Any:  # noqa: ANN401
    """Make the command job of a run.

    Args:
        folder: The run, with its staged snapshot.
        image: What it runs in.
        compute: The cluster's name.
        context: An empty directory for the image's build context, to be kept until the job is sent.
        checkpoint_seconds: Between two uploads of its checkpoint, at least.
        again: Of a further attempt, what is different.

    Returns:
        What ``MLClient.jobs.create_or_update`` takes. Sent again it is the same job.
    """
    job = folder.job()
    name, snapshot = (folder.run_id, folder.snapshot) if again is None else (again.name, again.snapshot)
    line = command_line(["python", LAUNCHER, *launcher_arguments(job, checkpoint_seconds, again)])
    staged = (snapshot, folder.info().snapshot)
    made = command_job(name, job, line, staged, image, compute, context)
    if (cap := seconds_left(folder)) is not None:
        made.set_limits(timeout=cap)
    return made


def command_job(
    name: str,
    job: TrainingJob,
    line: str,
    staged: tuple[Path, str],
    image: Environment,
    compute: str,
    context: Path,
) -> Any:  # noqa: ANN401
    """Make a command job, without limits.

    Args:
        name: Its name.
        job: What it is made from.
        line: What the node's shell runs.
        staged: The files that travel, and their digest.
        image: What it runs in.
        compute: The cluster's name.
        context: An empty directory for the image's build context, to be kept until the job is sent.

    Returns:
        An ``azure.ai.ml.entities.Command``.
    """
    ml, entities = sdk("azure.ai.ml"), sdk("azure.ai.ml.entities")
    (context / "Dockerfile").write_text(image.dockerfile)
    facts = {"trainer.snapshot": staged[1], "trainer.dataset": job.dataset, **job.tags}
    return ml.command(
        name=name,
        display_name=name,
        experiment_name=job.experiment,
        code=str(staged[0]),
        command=line,
        environment=entities.Environment(
            build=entities.BuildContext(path=str(context), dockerfile_path="Dockerfile"),
            tags={"trainer.name": image.name},
        ),
        environment_variables={NO_TELEMETRY_VARIABLE: "true", TRACKING_VARIABLE: "mlflow"},
        compute=compute,
        instance_count=job.nodes,
        distribution=None if job.ranks == 1 else ml.MpiDistribution(process_count_per_instance=job.processes_per_node),
        tags={name: str(value) for name, value in facts.items() if value is not None},
    )


def command_line(words: list[str]) -> str:
    """Write a command line for the node's shell.

    Azure ML puts values in place of ``${{...}}`` before the shell sees it, and the SDK takes ``{inputs.x}`` for that;
    a word of the user's may hold either.
    """
    return re.sub(r"\{(?=(inputs|outputs|search_space)\.)", "{''", shlex.join(words).replace("${{", "$''{{"))
