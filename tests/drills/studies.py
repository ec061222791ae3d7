"""Trials of studies on Azure ML that lose their node, by either SDK and either driver, and studies canceled then."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.drills.drill import Drill
from tests.tune.lost_nodes import EvictedStudy, failing_nodes

_TIMES = 5


def evicted_trials(scratch: Path, scale: float) -> dict[str, int]:
    """Take the node of each study's trial away."""
    ways = [(kind, driver) for kind in ("azureml", "azureml-v2") for driver in ("client", "service")]
    completed = canceled = 0
    for _ in range(max(1, round(_TIMES * scale))):
        with failing_nodes(Path(tempfile.mkdtemp(dir=scratch)), scratch) as (project, endpoint):
            for kind, driver in ways:
                study = EvictedStudy(project, endpoint, kind, driver)
                endpoint.evict(study.until(study.checkpointed))
                study.end_completed()
                completed += 1
            for kind in ("azureml", "azureml-v2"):
                study = EvictedStudy(project, endpoint, kind, "service", "--wait")
                endpoint.evict(study.until(study.checkpointed))
                study.end_canceled()
                canceled += 1
    return {"studies completed": completed, "studies canceled": canceled}


DRILLS = (
    Drill(
        "evict-trials",
        "A trial of a study on Azure ML that loses its node goes on from its last checkpoint, whoever drives the "
        "study, and ends with the study when that is canceled.",
        evicted_trials,
    ),
)
