"""The backends that come with trainer, each imported when it is used."""

BACKENDS = {
    "local": "backends.local:LocalBackend",
    "azureml": "backends.azureml:AzureMLBackend",
    "azureml-v2": "backends.azureml_v2:AzureMLV2Backend",
}
