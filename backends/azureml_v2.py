"""The Azure ML backend of SDK v2: a job is a command job on AmlCompute.

    submit   workspace -> cluster, reused or created -> image -> command job, created under our run's id

Everything else is as in :mod:`backends.azure.base`; what speaks to the workspace is in :mod:`backends.azure.v2`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from backends.azure.base import AzureBackend
from backends.azure.image import V2
from backends.azure.options import ManagedOptions
from trainer.errors import MissingExtraError
from trainer.runtime.versions import installed_version

if TYPE_CHECKING:
    from backends.azure.session import WorkspaceRef
    from backends.azure.v2.services import ManagedServices
    from backends.azure.v2.store import AzureMLV2Store
    from backends.azure.v2.submit import RestClient
    from backends.azure.v2.sweep import SweepJobs
    from trainer.backend import Plan
    from trainer.job import TrainingJob
    from trainer.snapshot import Snapshot


class AzureMLV2Backend(AzureBackend):
    """The backend for jobs on Azure ML through SDK v2. Thread-safe; see :class:`backends.azure.base.AzureBackend`."""

    name = "azureml-v2"
    options_type = ManagedOptions
    options: ManagedOptions
    node_side = V2
    loading = "the SDK"

    def plan(self, job: TrainingJob, snapshot: Snapshot) -> Plan:
        """See :meth:`trainer.backend.Backend.plan`.

        Raises:
            MissingExtraError: The SDK is not installed.
        """
        _require_sdk()
        return super().plan(job, snapshot)

    def check(self, job: TrainingJob) -> None:
        """See :meth:`backends.azure.base.AzureBackend.check`.

        Raises:
            MissingExtraError: The SDK is not installed.
        """
        _require_sdk()
        super().check(job)

    def open(self, ref: WorkspaceRef) -> RestClient:
        """See :meth:`backends.azure.base.AzureBackend.open`."""
        from backends.azure.v2.connection import open_connection
        from backends.azure.v2.submit import RestClient

        _require_sdk()
        return RestClient(open_connection(ref))

    def registry(self, ref: Callable[[], WorkspaceRef]) -> AzureMLV2Store:
        """See :meth:`backends.azure.base.AzureBackend.registry`."""
        from backends.azure.v2.connection import open_connection
        from backends.azure.v2.store import AzureMLV2Store

        _require_sdk()
        return AzureMLV2Store(lambda: open_connection(ref()))

    def services(self) -> ManagedServices:
        """Return the services of the workspace that the options name."""
        from backends.azure.v2.services import ManagedServices

        _require_sdk()
        return ManagedServices(self.options, self.home, self.store, self.where)

    def forget(self) -> None:
        """See :meth:`backends.azure.base.AzureBackend.forget`."""
        from backends.azure.v2.connection import forget_connections

        forget_connections()

    def study_service(self) -> SweepJobs:
        """See :meth:`trainer.backend.Backend.study_service`."""
        from backends.azure.v2.sweep import SweepJobs

        _require_sdk()
        return SweepJobs(self.home, self.options, lambda text: self.notify(text))


def _require_sdk() -> None:
    # Following does without it, but not without its sign-in; and who has neither should hear it at once.
    if installed_version("azure-ai-ml") is None:
        raise MissingExtraError("The azureml-v2 backend", "azureml-v2")
