"""What to run: a :class:`TrainingJob`, frozen before anything starts."""

from __future__ import annotations

import msgspec

DEFAULT_EXPERIMENT = "chainer-mnist"
DEFAULT_MODEL_NAME = "chainer-dnn-mnist"


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
        dataset_note: Why this data set and not another, where the choice was ours.
        max_minutes: Stop the run after this many minutes; None for no cap.
        resumed_from: Run id whose checkpoint this job continues.
        tags: Recorded on the run and on its model version.
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
    max_minutes: int | None = None
    resumed_from: str | None = None
    tags: dict[str, str] = {}
    study: str | None = None
    trial: int | None = None

    def command(self, python: str) -> list[str]:
        """The command line of a run, relative to the snapshot's root, on every backend.

        Args:
            python: The interpreter that runs it.
        """
        from trainer.runtime.layout import LAUNCHER

        return [python, LAUNCHER, self.script, *self.arguments]
