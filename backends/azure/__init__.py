"""The parts of the Azure ML backend, each with one reason to change. backends/azureml.py uses them.

    options       what the user may set
    vm_sizes      Azure's VM sizes: GPUs, retirements, successors, CUDA versions
    image         the pins of what is installed here, and the Dockerfile made of them
    signin        credentials
    deadline      the limit on how long signing in may wait
    session       the SDK's import, and a workspace
    emulator      a loopback service instead of Azure
    errors        the SDK's errors in this project's words
    cluster       the AmlCompute cluster, reused or created
    submit        the estimator, submitted so that a job can't run twice
    sync          a run's status, log and metrics, brought into its folder
    outputs       its outputs, each downloaded by itself
    sdk           what is used of the SDK, as types
    store         the workspace's model registry

Nothing here is imported before the backend is used, and nothing at all imports azureml at its top level: it
takes seconds, and most commands end without it.
"""
