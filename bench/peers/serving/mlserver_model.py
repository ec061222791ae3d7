"""For MLServer: the V2 inference protocol."""

from __future__ import annotations

from typing import Any

import numpy_net
from mlserver import MLModel
from mlserver.codecs import NumpyCodec


class Digits(MLModel):  # type: ignore[misc]
    """The model."""

    async def load(self) -> bool:
        """Load the model."""
        self.net = numpy_net.Net()
        return True

    async def predict(self, payload: Any) -> Any:  # noqa: ANN401  # MLServer's own types
        """Score a body."""
        import numpy as np
        from mlserver.types import InferenceResponse

        rows = NumpyCodec.decode_input(payload.inputs[0])
        found = self.net.predictions(rows)
        part = np.array([each["probabilities"] for each in found])
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("probabilities", part)])
