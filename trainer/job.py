"""What to run: a :class:`TrainingJob`, frozen before anything starts."""

from __future__ import annotations

import msgspec

DEFAULT_SCRIPT = "chainer_mnist.py"
DEFAULT_EXPERIMENT = "chainer-mnist"
DEFAULT_MODEL_NAME = "chainer-dnn-mnist"


class DataRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What must be known of the user's own data to use a model that was trained on it. Travels with the model.

    Attributes:
        kind: ``idx``, ``pictures``, ``table`` or ``arrays``.
        shape: Of one example, as the training script reads it.
        classes: The names of the classes, by label.
        source: Where it lay on the machine that submitted the run.
        columns: Of a table, the columns of numbers, in order.
        mean: Of a table, what was taken from each column.
        scale: Of a table, what each column was then divided by.
        bits: Of pictures of 16 bits per pixel, how many were in use.
    """

    kind: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    source: str = ""
    columns: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    bits: int = 16


class TrainingJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to run, the same on every backend. Stored as ``job.json``.

    Attributes:
        script: The script's path inside the snapshot, with forward slashes.
        arguments: The script's command line, one item a word.
        experiment: Groups runs; Azure ML's experiment name.
        model_name: Register ``outputs/model.npz`` under this name; None registers nothing.
        dataset: Name of the data set that travels (``mnist``, ``mnist-5k``, a directory's name), or
            None if the script brings its own.
        dataset_digest: SHA-256 over that data set's files, or None.
        data: What is known of the data set where it is the user's own and the script the one that is included.
        network: ``FILE.py:NAME`` of the network that the included script trains, by its path inside the snapshot; None
            for its own.
        dataset_note: Why this data set and not another, where the choice was ours.
        max_minutes: Stop the run after this many minutes; None for no cap.
        resumed_from: Run id whose checkpoint this job continues.
        tags: Recorded on the run and on its model version.
        collect: How much of what the script writes outside ``outputs`` is kept (:mod:`trainer.runtime.collecting`);
            None for the default.
        max_restarts: How many times it is started again when its process or node is lost; None for the backend's
            default.
        checkpoints: Pattern of the outputs that a further attempt goes on from, such as ``checkpoints/*``; None for
            what the included script writes.
        kernels: Whose CPU kernels it uses (:mod:`trainer.runtime.kernels`); None for Chainer's own, unless the
            environment of the job says otherwise.
        nodes: How many nodes it runs on.
        processes_per_node: How many ranks, processes that MPI starts, each node has.
        study: The study that it is a trial of, or None.
        trial: Its number there.
    """

    script: str
    arguments: tuple[str, ...] = ()
    experiment: str = DEFAULT_EXPERIMENT
    model_name: str | None = DEFAULT_MODEL_NAME
    dataset: str | None = None
    dataset_digest: str | None = None
    dataset_note: str | None = None
    data: DataRecord | None = None
    network: str | None = None
    max_minutes: int | None = None
    resumed_from: str | None = None
    tags: dict[str, str] = {}
    collect: str | None = None
    max_restarts: int | None = None
    checkpoints: str | None = None
    kernels: str | None = None
    nodes: int = 1
    processes_per_node: int = 1
    study: str | None = None
    trial: int | None = None

    @property
    def ranks(self) -> int:
        """How many processes run the script together; 1 means that MPI is not used."""
        return self.nodes * self.processes_per_node

    def command(self, python: str) -> list[str]:
        """The command line of a run, relative to the snapshot's root, on every backend.

        Args:
            python: The interpreter that runs it.
        """
        from trainer.runtime.layout import LAUNCHER

        collect = [] if self.collect is None else [f"--collect={self.collect}"]
        kernels = [] if self.kernels is None else [f"--kernels={self.kernels}"]
        return [python, LAUNCHER, *collect, *kernels, self.script, *self.arguments]
