"""The Azure ML backend: a job is a run on AmlCompute, made with the SDK v1's Chainer estimator.

    submit   workspace -> cluster, reused or created -> image -> estimator -> Experiment.submit under our run's id

Everything else is as in :mod:`backends.azure.base`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from backends.azure.base import SNAPSHOT_LIMITS, AzureBackend
from backends.azure.image import V1
from backends.azure.options import AzureOptions
from trainer.errors import MissingExtraError
from trainer.runtime.versions import installed_version

if TYPE_CHECKING:
    from backends.azure.hyperdrive import HyperDrive
    from backends.azure.services import AzureServices
    from backends.azure.session import WorkspaceRef
    from backends.azure.store import AzureMLStore
    from backends.azure.submit import SdkClient
    from trainer.job import TrainingJob

__all__ = ["SNAPSHOT_LIMITS", "AzureMLBackend"]


class AzureMLBackend(AzureBackend):
    """The backend for jobs on Azure ML through SDK v1. Thread-safe; see :class:`backends.azure.base.AzureBackend`."""

    name = "azureml"
    options_type = AzureOptions
    options: AzureOptions
    node_side = V1
    loading = "the SDK's Chainer estimator"

    def check(self, job: TrainingJob) -> None:
        """See :meth:`backends.azure.base.AzureBackend.check`.

        Raises:
            MissingExtraError: The SDK is not installed.
        """
        if installed_version("azureml-core") is None:
            raise MissingExtraError("The azureml backend", "azureml")
        super().check(job)

    def open(self, ref: WorkspaceRef) -> SdkClient:
        """See :meth:`backends.azure.base.AzureBackend.open`."""
        from backends.azure.session import open_workspace
        from backends.azure.submit import SdkClient

        return SdkClient(open_workspace(ref))

    def registry(self, ref: Callable[[], WorkspaceRef]) -> AzureMLStore:
        """See :meth:`backends.azure.base.AzureBackend.registry`."""
        from backends.azure.session import open_workspace
        from backends.azure.store import AzureMLStore

        return AzureMLStore(lambda: open_workspace(ref()))

    def forget(self) -> None:
        """See :meth:`backends.azure.base.AzureBackend.forget`."""
        from backends.azure.session import forget_workspaces

        forget_workspaces()

    def store(self) -> AzureMLStore:
        """Return the model registry of the workspace that the options name."""
        from backends.azure.session import find_workspace

        return self.registry(lambda: find_workspace(self.options, self.home))

    def study_service(self) -> HyperDrive:
        """See :meth:`trainer.backend.Backend.study_service`."""
        from backends.azure.hyperdrive import HyperDrive

        return HyperDrive(self.home, self.options, lambda text: self.notify(text))

    def services(self) -> AzureServices:
        """Return the services of the workspace that the options name."""
        from backends.azure.services import AzureServices

        return AzureServices(self.options, self.home, self.store, self.where)
