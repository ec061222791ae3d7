"""For Azure's inference server, and for ``trainer serve --script``."""

from __future__ import annotations

import json
from typing import Any

import numpy_net

net: Any = None


def init() -> None:
    """Load the model."""
    global net
    net = numpy_net.Net()


def run(data: str) -> dict[str, Any]:
    """Score a body."""
    return {"predictions": net.predictions(json.loads(data)["data"])}
