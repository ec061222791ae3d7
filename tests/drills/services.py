"""The emulator's web services: kills of the emulator while services are deployed, changed and removed."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import requests

from azureml_emulator import Endpoint, Settings, start_in_background
from tests.drills.drill import Drill
from tests.emulator.clients import Http, image_of, kill
from trainer.serving.settings import SCORING_SERVER

_SETTINGS = Settings(phase_duration=0.0, cancel_grace=2.0, scoring_server=SCORING_SERVER)
_SCRIPT = "def init():\n    pass\n\ndef run(data):\n    return {number}\n"
_NAMES = ("first", "second")
_KEY = "the-one-key"
_WAIT = 180.0


def processes(state: Path) -> dict[str, int]:
    """How many fronts run of each service."""
    found: dict[str, int] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if command and command[-1].startswith(str(state)) and command[-1].endswith("front_spec.json"):
                name = Path(command[-1]).relative_to(state / "webservices").parts[0]
                found[name] = found.get(name, 0) + 1
    return found


class Round:
    """What is done to one service while the emulator is killed.

    Args:
        http: The emulator.
        name: The service.
        number: What its script is to answer.
        what: ``deploy``, ``update`` or ``delete``.
    """

    def __init__(self, http: Http, name: str, number: int, what: str) -> None:
        self._http, self._name, self._number, self._what = http, name, number, what
        self._base = f"/modelmanagement/v1.0{http.workspace}/services"
        self.answered = False
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with contextlib.suppress(requests.RequestException, KeyError, ValueError):
            if self._what == "delete":
                self.answered = self._http("DELETE", f"{self._base}/{self._name}").ok
                return
            image = image_of(self._http, f"{self._name}{self._number}", _SCRIPT.format(number=self._number))
            if self._what == "update":
                operation = {"op": "replace", "path": "/environmentImageRequest", "value": image}
                headers = {"Content-Type": "application/json-patch+json"}
                answer = self._http("PATCH", f"{self._base}/{self._name}", json=[operation], headers=headers)
            else:
                body = {"name": self._name, "computeType": "ACI", "authEnabled": True, "overwrite": True}
                body |= {"keys": {"primaryKey": _KEY}, "environmentImageRequest": image}
                answer = self._http("POST", self._base, json=body)
            self.answered = answer.status_code == 202

    def check(self, http: Http, before: int | None) -> int | None:
        """See that what was asked for has happened whole or not at all; gives what the service answers now.

        Args:
            http: The emulator that came after.
            before: What the service answered before, or None if there was none.
        """
        record = _eventually(lambda: _settled(http, f"{self._base}/{self._name}"))
        wanted = None if self._what == "delete" else self._number
        if record.status_code == 404:
            assert wanted is None or (before is None and not self.answered), "a deployment was lost"
            return None
        found = record.json()
        assert found["state"] == "Healthy", found
        http("POST", f"{self._base}/{self._name}/listkeys")
        answer = requests.post(found["scoringUri"], "1", headers={"Authorization": f"Bearer {_KEY}"}, timeout=60)
        now = int(answer.text)
        assert requests.post(found["scoringUri"], "1", timeout=60).status_code == 401
        assert now == wanted if self.answered else now in (wanted, before), (now, wanted, before)
        return now


def _settled(http: Http, url: str) -> requests.Response | None:
    answer = http("GET", url)
    if answer.status_code == 404:
        return answer
    operation = answer.json().get("operationId")
    if not operation:
        return answer
    found = http("GET", f"{url.rpartition('/services/')[0]}/operations/{operation}").json()
    return answer if found["state"] != "Running" and answer.json()["state"] != "Transitioning" else None


def _eventually(check: Callable[[], requests.Response | None]) -> requests.Response:
    end = time.monotonic() + _WAIT
    while (found := check()) is None:
        assert time.monotonic() < end, "a deployment goes on for ever"
        time.sleep(0.1)
    return found


def _one_each(state: Path, answers: dict[str, int | None]) -> None:
    """See that of every service there is one front, and of what there is none no process."""
    wanted = {name: 1 for name, number in answers.items() if number is not None}
    end = time.monotonic() + _WAIT
    while (found := processes(state)) != wanted:
        assert time.monotonic() < end, (found, wanted)
        time.sleep(0.1)


def kill_under_deployments(scratch: Path, scale: float) -> dict[str, int]:
    """Kill the emulator at any moment of a deployment, an update or a removal."""
    rounds = max(2, round(60 * scale))
    state = (scratch / "state").resolve()
    endpoint: Endpoint = start_in_background(state, settings=_SETTINGS)
    chance = random.Random(0)
    answers: dict[str, int | None] = dict.fromkeys(_NAMES)
    for number in range(1, rounds + 1):
        http = Http(endpoint)
        tried = []
        for name in _NAMES:
            known = answers[name] is not None
            what = chance.choice(("deploy", "update", "update", "delete")) if known else "deploy"
            tried.append((name, Round(http, name, number, what)))
        for _, one in tried:
            one.thread.start()
        time.sleep(chance.uniform(0, 3))
        kill(endpoint)
        for _, one in tried:
            one.thread.join()
        endpoint = start_in_background(state, settings=_SETTINGS)
        http = Http(endpoint)
        for name, one in tried:
            answers[name] = one.check(http, answers[name])
        _one_each(state, answers)
    endpoint.stop(kill_jobs=True)
    _one_each(state, {})
    return {"kills": rounds, "changes": rounds * len(_NAMES)}


DRILLS = (
    Drill(
        "services-kill",
        "A deployment, an update or a removal of a web service under which the emulator is killed happens whole or "
        "not at all; nothing is left running, nothing runs twice.",
        kill_under_deployments,
    ),
)
