"""The parts of the backend ``azureml-v2`` that SDK v2 is the reason for; see :mod:`backends.azure` for the rest.

    cloud        the addresses of the Azure that is meant
    signin       credentials, through azure-identity
    connection   the workspace's REST interfaces, with a token
    run          a run: status, log, metrics, files
    computes     compute clusters
    store        the model registry
    submit       the SDK itself: code, environment and job
    sweep        a study as a sweep job
    workspace    the client that the backend uses

The SDK takes eight seconds to import, so it is used where it does what a request can't: to upload and submit a job, and
to make a cluster. Everything else is plain HTTPS, by interfaces that are documented: ARM's REST reference for Azure
Machine Learning, MLflow's REST interface, and run history as the SDK itself asks it.
"""
