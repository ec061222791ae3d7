"""The Azure ML backend: a job is a run on AmlCompute, made with the SDK v1's Chainer estimator.

    submit   workspace -> cluster, reused or created -> image -> estimator -> Experiment.submit under our run's id

Everything else is as in :mod:`backends.azure.base`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.azure import restarts, sync, vm_sizes
from backends.azure.base import SNAPSHOT_LIMITS, AzureBackend, workspace_ref
from backends.azure.image import V1, environment_of
from backends.azure.options import AzureOptions
from trainer.errors import MissingExtraError
from trainer.runtime.versions import installed_version
from trainer.snapshot import Snapshot

if TYPE_CHECKING:
    from backends.azure.hyperdrive import HyperDrive
    from backends.azure.sdk import FollowedRun
    from backends.azure.services import AzureServices
    from backends.azure.session import WorkspaceRef
    from backends.azure.store import AzureMLStore
    from backends.azure.submit import SdkClient
    from trainer.job import TrainingJob
    from trainer.runfolder import RunFolder

# Key of what this backend keeps in RunInfo.detail.
_CHECKPOINT_SECONDS = "checkpoint_seconds"
__all__ = ["SNAPSHOT_LIMITS", "AzureMLBackend"]


class AzureMLBackend(AzureBackend):
    """The backend for jobs on Azure ML through SDK v1. Thread-safe; see :class:`backends.azure.base.AzureBackend`."""

    name = "azureml"
    options_type = AzureOptions
    options: AzureOptions
    node_side = V1
    sends_again = True
    runs_ranks = True
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

        return SdkClient(open_workspace(ref), self.options.checkpoint_seconds)

    def send_again(self, run: FollowedRun, folder: RunFolder) -> None:
        """See :meth:`backends.azure.base.AzureBackend.send_again`."""
        from backends.azure.session import open_workspace
        from backends.azure.submit import Again, SdkClient

        info = folder.info()
        seconds = info.detail.get(_CHECKPOINT_SECONDS)
        client = SdkClient(open_workspace(workspace_ref(info)), seconds if isinstance(seconds, int) else 60)

        def send(snapshot: Path, name: str, attempt: int, words: tuple[str, ...]) -> bool:
            size = vm_sizes.look_up(str(info.detail["vm_size"]))
            image = environment_of(Snapshot.load(folder.snapshot), size, self.node_side, folder.job().kernels)
            again = Again(snapshot, name, attempt, words)
            return client.send_again(folder, image, str(info.detail["compute"]), again)

        self.notify(f"Run {folder.run_id} has lost its node, and is sent again.")
        restarts.send_again(run, folder, send, sync.RUN)

    def notes(self) -> dict[str, Any]:
        """See :meth:`backends.azure.base.AzureBackend.notes`."""
        return {_CHECKPOINT_SECONDS: self.options.checkpoint_seconds}

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
