"""SDK v2 on the emulator: every request of a submission is lost once, before it was served and after."""

from __future__ import annotations

import re
from pathlib import Path

from azureml_emulator import Emulator, FaultAction, FaultRule, Settings
from tests.drills.drill import Drill
from tests.emulator.clients import SdkV2

_SETTINGS = Settings(phase_duration=0.0)
_ONE_TIME = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(-[0-9a-f]{20})?|[0-9a-f]{64}")


def lost_requests(scratch: Path, scale: float) -> dict[str, int]:
    """Submit once for each request that a submission makes, and lose that one, or its answer."""
    (scratch / "client").mkdir()
    with Emulator(scratch / "state", settings=_SETTINGS) as endpoint:
        sdk = SdkV2(endpoint, scratch / "client")
        submit(sdk, scratch, "first")
        endpoint.clear_requests()
        submit(sdk, scratch, "recorded")
        seen = dict.fromkeys(f"{each.method} {each.path}" for each in endpoint.recorded_requests())
        # The cloud's description and tokens are asked for all the time. What is of one submission has other names in
        # the next.
        asked = [route for route in seen if "/metadata/" not in route and "/msi/" not in route]
        routes = list(dict.fromkeys(_ONE_TIME.sub("*", route).replace("recorded", "*") for route in asked))
        tries = [(route, action) for route in routes for action in (FaultAction.DROP, FaultAction.DROP_ANSWER)]
        tries = tries[: max(2, round(len(tries) * scale))]
        again = 0
        for number, (route, action) in enumerate(tries):
            endpoint.set_faults(rules=[FaultRule(route=route, action=action, times=1)])
            again += submit(sdk, scratch, f"lost-{number}")
            assert endpoint.faults().rules[0].times == 0, f"{route} was not asked for"
            endpoint.clear_faults()
        assert endpoint.unknown_requests() == []
        sdk.close()
    return {"requests": len(tries), "submissions repeated": again}


def submit(sdk: SdkV2, scratch: Path, name: str) -> int:
    """Submit a job of new code, as often as it takes.

    Returns:
        How many submissions failed.
    """
    code, ran = scratch / name, scratch / f"{name}.ran"
    code.mkdir()
    (code / "word.txt").write_text(name)
    line = f"cat word.txt && echo once >> {ran}"
    ended = sdk.submit_until_it_works(command_line=line, code=str(code), name=name)
    assert sdk.wait(name=name) == "Completed"
    assert ran.read_text() == "once\n", "not run once"
    assert sdk.names().count(name) == 1
    return len(ended["errors"])


DRILLS = (
    Drill(
        "sdk-v2-lost-requests",
        "A job that SDK v2 submits until it works runs once, whichever request or answer gets lost.",
        lost_requests,
    ),
)
