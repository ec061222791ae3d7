"""Keys of what this backend keeps in ``RunInfo.detail``."""

from __future__ import annotations

WORKSPACE = "workspace"
"""A :class:`~backends.azure.session.WorkspaceRef`: where the run is. There as soon as it is being sent."""

SENT = "sent"
"""When it was sent, in seconds since the epoch."""

MAX_MINUTES = "max_minutes"
"""The time cap it was submitted with, or None."""

CANCEL_ASKED = "cancel_asked"
"""There once somebody wanted it stopped: ``"sent"``, or ``"unsent"`` while the service doesn't have the run."""
