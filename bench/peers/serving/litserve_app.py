"""For LitServe."""

import sys
from typing import Any

import litserve
import numpy_net


class Digits(litserve.LitAPI):  # type: ignore[misc]
    """The service."""

    def setup(self, device: str) -> None:  # noqa: ARG002  # LitServe calls it so
        """Load the model."""
        self.net = numpy_net.Net()

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201  # it reads the types
        """Take the rows out of a body."""
        return request["data"]

    def predict(self, x: list[list[float]]) -> list[dict[str, Any]]:
        """Score them."""
        found: list[dict[str, Any]] = self.net.predictions(x)
        return found

    def encode_response(self, output: list[dict[str, Any]]) -> dict[str, Any]:
        """Make the answer's body."""
        return {"predictions": output}


if __name__ == "__main__":
    server = litserve.LitServer(Digits(api_path="/score"), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
