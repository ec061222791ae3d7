"""The parts of the Azure ML backend, each with one reason to change.

    options       what the user may set
    vm_sizes      Azure's list: GPUs, retirements, successors, what CUDA each takes
    image         the pins of what is installed here, and the Dockerfile made of them
    signin        who we are
    session       the SDK, imported quietly and once, and a workspace
    emulator      a loopback service instead of Azure
    errors        the SDK's errors in this project's words
    cluster       the AmlCompute cluster, reused or created
    submit        the estimator, and a submit that can't run a job twice
    sync          a run's status, log, metrics and outputs, brought home
    sdk           what is used of the SDK, as types
    store         the workspace's model registry

Nothing here is imported before the backend is used, and nothing at all imports azureml at its top level: it
takes seconds, and most commands end without it.
"""
