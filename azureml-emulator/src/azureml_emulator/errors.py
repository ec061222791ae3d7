"""Errors.

EmulatorError       raised to callers of this package: message and hint
ServiceError        answered to HTTP clients: status, code, message
"""

from __future__ import annotations

STATE_IN_USE = "Another emulator serves"
"""How the error begins of an emulator whose state directory another one has locked."""


class EmulatorError(Exception):
    """The emulator could not do what its caller asked.

    Args:
        message: What happened, in one line.
        hint: What to do about it, in one line.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ServiceError(Exception):
    """An error answer of the service."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def body(self) -> dict[str, object]:
        """Return the answer's JSON: ARM's shape, and the flat one that the model registry's client reads."""
        return {
            "error": {"code": self.code, "message": self.message},
            "code": self.code,
            "statusCode": self.status,
            "message": self.message,
        }


def not_found(kind: str, name: str) -> ServiceError:
    """Make a 404 for a thing that is not there."""
    return ServiceError(404, f"{kind}NotFound", f"{kind} {name} not found.")


def bad_request(message: str, code: str = "UserError") -> ServiceError:
    """Make a 400 for a request that Azure would refuse or that the emulator does not emulate."""
    return ServiceError(400, code, message)
