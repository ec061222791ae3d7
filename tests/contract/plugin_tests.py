"""The contract on a backend from another package. Run by ``test_plugin.py``, in an environment that has the package."""

from __future__ import annotations

import pytest

from tests.contract.backend_contract import BackendContract
from trainer.backend import Backend, load_backend
from trainer.home import Home


class TestPlugin(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls, home: Home) -> Backend:
        return load_backend("mine", home)
