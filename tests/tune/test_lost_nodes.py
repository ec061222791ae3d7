"""Trials on Azure ML that lose their node: whoever drives the study, they go on from their last checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tune.lost_nodes import EvictedStudy, failing_nodes


@pytest.mark.slow
def test_trials_that_lose_their_node_are_sent_again(tmp_path: Path, tiny_data: Path) -> None:
    with failing_nodes(tmp_path, tiny_data) as (project, endpoint):
        studies = [
            EvictedStudy(project, endpoint, "azureml", "client"),
            EvictedStudy(project, endpoint, "azureml-v2", "service"),
        ]
        for study in studies:
            endpoint.evict(study.until(study.checkpointed))
        for study in studies:
            study.end_completed()
