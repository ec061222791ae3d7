"""For BentoML."""

from __future__ import annotations

from typing import Any

import bentoml
import numpy_net


@bentoml.service(workers=1, traffic={"timeout": 60}, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Digits:
    """The service."""

    def __init__(self) -> None:
        self.net = numpy_net.Net()

    @bentoml.api
    def score(self, data: list[list[float]]) -> dict[str, Any]:
        """Score a body."""
        return {"predictions": self.net.predictions(data)}
