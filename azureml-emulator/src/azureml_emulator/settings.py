"""What an emulator is configured with when it starts.

Settings are fixed for the life of one emulator process. What a test wants to change while it runs is in
:mod:`azureml_emulator.faults`.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """The emulator's configuration. Every duration is in seconds.

    Attributes:
        subscription_id: Subscription of the one workspace that is served.
        resource_group: Its resource group.
        workspace_name: Its name.
        location: The Azure region it claims to be in.
        token_lifetime: Life of a bearer token given to a client.
        run_token_lifetime: Life of the token a job gets; the SDK in the job renews it.
        sas_lifetime: Life of a signed blob URL.
        phase_duration: Least time a run stays in each of Preparing and Queued, so that a poller can see them.
        node_start_duration: Time a node takes to come up when a cluster scales from idle.
        cluster_create_duration: Time a new cluster stays in ``Creating``.
        upload_grace: Time that the SDK has after a script's end to upload what the script wrote into watched folders.
        cancel_grace: Time between SIGTERM and SIGKILL for a job that is cancelled or ran out of time.
        default_max_run_duration: Time cap for runs that set none.
        offer_retired_sizes: Whether VM sizes that Azure has retired (STANDARD_NC6) are offered too.
        blob_overwrite: Whether a file of a run may be uploaded again: Put Blob ignores ``If-None-Match: *``.
        job_site: A directory that is put on the PYTHONPATH of jobs, for a ``sitecustomize`` that prepares their Python
            as an image would. None: none.
        scoring_server: Command that serves a web service's score script. It listens on the Unix socket whose path takes
            the place of ``{socket}`` in it, and finds the rest in the variables of Azure's inference container.
        scoring_python: A Python that has azureml-inference-server-http, which then serves the score scripts. It comes
            before ``scoring_server``, and the emulator's variable ``AZUREML_EMULATOR_SCORING_PYTHON`` before both. With
            none of them, the emulator's own Python does, if it has that server.
        service_timeout: Time that a web service has to become healthy.
        service_idle: Time without a request after which a web service's processes end; it is started again when its
            keys or its token are asked for. None: they stay.
        sweep_seed: Seed of the samples that sweeps draw. None: each sweep draws its own.
        idle_exit: Exit after this long without a request and without an active run. None: never.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    subscription_id: str = "00000000-0000-0000-0000-00000000ac1e"
    resource_group: str = "emulator-rg"
    workspace_name: str = "emulator-ws"
    location: str = "eastus"
    token_lifetime: float = Field(default=3600.0, gt=0)
    run_token_lifetime: float = Field(default=3600.0, gt=0)
    sas_lifetime: float = Field(default=3600.0, gt=0)
    phase_duration: float = Field(default=0.1, ge=0)
    node_start_duration: float = Field(default=0.0, ge=0)
    cluster_create_duration: float = Field(default=0.0, ge=0)
    upload_grace: float = Field(default=30.0, ge=0)
    cancel_grace: float = Field(default=5.0, ge=0)
    default_max_run_duration: float | None = Field(default=None, gt=0)
    offer_retired_sizes: bool = False
    blob_overwrite: bool = False
    job_site: Path | None = None
    scoring_server: tuple[str, ...] | None = None
    scoring_python: Path | None = None
    service_timeout: float = Field(default=1200.0, gt=0)
    service_idle: float | None = Field(default=3600.0, gt=0)
    sweep_seed: int | None = None
    idle_exit: float | None = Field(default=None, gt=0)

    @property
    def workspace_path(self) -> str:
        """The workspace's ARM id."""
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.workspace_name}"
        )
