"""The SDK and what it stands on warn about themselves, and leave sockets for the garbage collector."""

import pytest

IGNORED = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::PendingDeprecationWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
