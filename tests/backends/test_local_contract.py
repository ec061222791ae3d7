"""The local backend keeps the contract."""

import pytest

from backends.local import LocalBackend
from tests.contract.backend_contract import BackendContract
from trainer.home import Home


class TestLocalBackend(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls, home: Home) -> LocalBackend:
        return LocalBackend(home, {})
