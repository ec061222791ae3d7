"""A short form of the drill in ``tests/drills/hostile_bodies.py``."""

from typing import Any

import pytest

from tests.drills.hostile_bodies import drill


@pytest.mark.slow
def test_hostile_requests_leave_no_trace(serve: Any) -> None:
    found = drill(serve("digits", "--max-body", "1"), 1000, seed=7)
    assert {status for _, status in found} >= {200, 400, 401, 404, 405, 413, 415, 431}
