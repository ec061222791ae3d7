"""The artifact layer: save, register, fetch, list.

A run's outputs are saved into its folder by its backend; ``outputs/model.npz`` is registered as the next version
of a named model; any version can be fetched again. A store keeps versions; everything else is the same for all.
"""

from trainer.artifacts.fetching import RECORD_FILE, FetchedModel, fetch, file_sha256, read_record
from trainer.artifacts.provenance import describe_model, environment_problems, environment_versions, model_output
from trainer.artifacts.store import (
    ArtifactStore,
    ModelVersion,
    check_model_name,
    find_model,
    parse_model_reference,
)

__all__ = [
    "RECORD_FILE",
    "ArtifactStore",
    "FetchedModel",
    "ModelVersion",
    "check_model_name",
    "describe_model",
    "environment_problems",
    "environment_versions",
    "fetch",
    "file_sha256",
    "find_model",
    "model_output",
    "parse_model_reference",
    "read_record",
]
