"""What the real Chainer estimator makes of a job: its run configuration, as it would be sent."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from backends.azure import submit
from backends.azure.image import find_pins, make_environment
from backends.azure.session import sdk
from tests.backends import sdk_warnings
from trainer.home import Home
from trainer.job import TrainingJob
from trainer.runfolder import RunFolder
from trainer.runtime.layout import LAUNCHER
from trainer.snapshot import build_snapshot

pytestmark = sdk_warnings.IGNORED
# Repeats, order, empty words and spaces: a dictionary of script_params would lose them.
WORDS = ("--tag", "b", "--tag", "a", "--empty", "", "two words", "-0.5", "--flag")
TINY = Path(__file__).parent / "scripts" / "tiny" / "train.py"


@pytest.fixture
def folder(azure_home: Home) -> RunFolder:
    snapshot = build_snapshot(TINY)
    job = TrainingJob(script="train.py", arguments=WORDS, max_minutes=7)
    folder = RunFolder.create(azure_home.runs, job, backend="azureml", snapshot=snapshot.digest)
    snapshot.stage(folder.snapshot)
    return folder


def sent(config: Any) -> dict[str, Any]:
    """The JSON of a run configuration, as the SDK sends it."""
    serialize = sdk("azureml._execution._commands")._serialize_run_config_to_dict
    return dict(json.loads(json.dumps(serialize(config.run_config))))


@pytest.mark.slow
def test_the_run_configuration_is_ours(folder: RunFolder) -> None:
    image = make_environment(find_pins([], [], "12"), "12")
    config = submit.make_config(folder, image, "gpu-cluster", 420)
    assert config.source_directory == str(folder.snapshot)
    found = sent(config)
    assert found["script"] == LAUNCHER
    assert found["arguments"] == ["train.py", *WORDS]
    assert ["python", found["script"], *found["arguments"]] == folder.job().command("python")
    assert (found["target"], found["nodeCount"], found["maxRunDurationSeconds"]) == ("gpu-cluster", 1, 420)
    assert found["docker"]["useDocker"] is True
    assert found["environment"]["name"] == image.name
    assert found["environment"]["docker"]["baseDockerfile"] == image.dockerfile
    assert found["environment"]["docker"]["baseImage"] is None
    assert found["environment"]["python"]["userManagedDependencies"] is True
    assert found["history"]["directoriesToWatch"] == ["logs"]


def test_no_cap_is_no_cap(folder: RunFolder) -> None:
    image = make_environment(find_pins([], [], None), None)
    assert sent(submit.make_config(folder, image, "c1", None))["maxRunDurationSeconds"] is None


def test_the_sdks_deprecation_noise_is_dropped_and_real_warnings_are_not(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    sdk("azureml.train.dnn")
    submit.make_config(folder, make_environment(find_pins([], [], None), None), "c1", None)
    assert capsys.readouterr().err == ""
    logging.getLogger("azureml.core.compute").warning("the cluster is in another region")
    assert capsys.readouterr().err == "warning: Azure ML SDK: the cluster is in another region\n", "told once"
    logging.getLogger("azureml.core.compute").warning("\x1b[2J%s", "\u202e")
    assert capsys.readouterr().err == "warning: Azure ML SDK: \\x1b[2J\\u202e\n"
