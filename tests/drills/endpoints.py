"""SIGKILL of clients at any moment of a deployment, an update and a removal of a managed online endpoint."""

from __future__ import annotations

import json
import random
import subprocess
import time
from pathlib import Path
from typing import Any

from azureml_emulator import Emulator, Settings
from backends.azure.session import find_workspace
from backends.azure.v2 import endpoints
from backends.azure.v2.connection import open_connection
from backends.azureml_v2 import AzureMLV2Backend
from tests.backends.conftest import share
from tests.cli.conftest import Project
from tests.contract.deploy_contract import NAME, Place
from tests.drills.drill import Drill
from trainer.serving.settings import SCORING_SERVER

_ROUNDS = 20
_WORDS = ("--backend", "azureml-v2", "--emulator")
_SECONDS = 20.0
_WAIT_SECONDS = 120.0


def kills(scratch: Path, scale: float) -> dict[str, int]:
    settings = Settings(phase_duration=0.0, cancel_grace=2.0, scoring_server=SCORING_SERVER)
    with Emulator(scratch / "state", settings=settings) as emulator:
        project = Project(scratch / "project", scratch, scratch)
        backend = AzureMLV2Backend(share(emulator, project.path), {"emulator": True})
        place = Place(backend, _WORDS)
        for seed in (1, 2):
            place.register(seed)
        place.write("body.json", json.dumps({"data": [0.5] * 784}))
        chance = random.Random(2)  # a schedule, not a secret
        rounds = max(2, round(_ROUNDS * scale))
        for _ in range(rounds):
            words = chance.choice(
                [
                    ["deploy", f"{NAME}:1", "--overwrite", *_WORDS],
                    ["deploy", f"{NAME}:2", "--overwrite", *_WORDS],
                    ["undeploy", NAME, *_WORDS],
                ]
            )
            client = project.start(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(chance.random() * _SECONDS)
            client.kill()
            client.wait()
            _check(project, backend)
        project.trainer("undeploy", NAME, *_WORDS)
        assert not list((scratch / "state" / "webservices").iterdir())
        assert emulator.unknown_requests() == []
    return {"clients killed": rounds}


def _check(project: Project, backend: AzureMLV2Backend) -> None:
    """Whatever happened, the service becomes what it can be, and is told as it is."""
    end = time.monotonic() + _WAIT_SECONDS
    while True:
        asked = project.trainer("services", NAME, *_WORDS, "--json")
        assert asked.returncode in (0, 5), asked.stderr
        if asked.returncode == 5:
            return
        # Found by its record, which alone says whose deployment is to be finished.
        project.trainer("services", NAME, "--json")
        service: dict[str, Any] = json.loads(asked.stdout)
        found = endpoints.find_endpoint(open_connection(find_workspace(backend.options, backend.home)), NAME)
        if service["state"] == "Healthy" and found is not None and len(found.deployments) == 1:
            break
        if found is not None and not found.deployments:
            return  # killed before anything was deployed to it
        assert time.monotonic() < end, (service, found)
        time.sleep(0.2)
    assert list(found.traffic.values()) == [100]
    scored = project.trainer("score", NAME, "--data", "body.json", "--json")
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["model"] == service["model"]


DRILLS = (
    Drill(
        "kills-endpoints",
        "A client that is killed while it deploys to a managed online endpoint leaves one that answers as before or "
        "with the new version, which the next look finishes: one deployment has all traffic, and no other is left.",
        kills,
    ),
)
