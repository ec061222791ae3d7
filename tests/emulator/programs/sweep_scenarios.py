"""What users of HyperDrive do, one function a scenario. Plain SDK code; returns JSON.

azureml.train is imported where it is used: it takes longer than all the rest.
"""

# The SDK has no types, and this is code as its users write it.
# ruff: noqa: ANN001, ANN003, ANN201

import json

import scenarios
from azureml.core import Experiment, Run

EXPERIMENT = "sweeps"


def sweep(
    source,
    sampling,
    policy=None,
    goal="MAXIMIZE",
    total=4,
    concurrent=2,
    arguments=(),
    command=None,
    resume_from=None,
    resume_child_runs=None,
    child_of=None,
    target="cpu",
    **others,
):
    """Sampling is [class name, {parameter: [expression, *arguments]}], a policy [class name, arguments]."""
    from azureml.train import hyperdrive

    kind, space, *properties = sampling
    space = {name: getattr(hyperdrive, expression)(*values) for name, (expression, *values) in space.items()}
    scenarios.cluster(name=target)
    configuration = hyperdrive.HyperDriveConfig(
        run_config=scenarios.configure(source, arguments=arguments, command=command, target=target),
        hyperparameter_sampling=getattr(hyperdrive, kind)(space, *properties),
        policy=getattr(hyperdrive, policy[0])(**policy[1]) if policy else None,
        primary_metric_name="Accuracy",
        primary_metric_goal=hyperdrive.PrimaryMetricGoal[goal],
        max_total_runs=total,
        max_concurrent_runs=concurrent,
        resume_from=[find(run_id) for run_id in resume_from] if resume_from else None,
        resume_child_runs=[find(run_id) for run_id in resume_child_runs] if resume_child_runs else None,
        **others,
    )
    if child_of is not None:
        return Run.get(scenarios.workspace, child_of).submit_child(configuration).id
    return Experiment(scenarios.workspace, EXPERIMENT).submit(configuration).id


def find(run_id):
    import azureml.train.hyperdrive  # noqa: F401 - registers the type of run

    return Run.get(scenarios.workspace, run_id)


def sweep_result(run_id):
    run = find(run_id)
    best = run.get_best_run_by_primary_metric()
    return {
        "type": type(run).__name__,
        "status": run.get_status(),
        "children": {child.id: child.get_status() for child in run.get_children()},
        "hyperparameters": hyperparameters(run_id),
        "metrics": run.get_metrics(),
        "best": best.id if best else None,
        "sorted": [item["run_id"] for item in run.get_children_sorted_by_primary_metric()],
    }


def hyperparameters(run_id):
    return {child: json.loads(values) for child, values in find(run_id).get_hyperparameters().items()}


def best_run(run_id, **which):
    best = find(run_id).get_best_run_by_primary_metric(**which)
    return best.id if best else None


def parent_metrics(run_id):
    # HyperDriveRun.get_metrics gives those of the children.
    return Run.get_metrics(find(run_id))


def cancel_sweep(run_id):
    return find(run_id).cancel() is not None


def cancel_as_any_run(run_id):
    Run.cancel(find(run_id))


def parent_of(run_id):
    return Run.get(scenarios.workspace, run_id).parent.id


def settings_of(run_id):
    """What the SDK rebuilds of a sweep's configuration."""
    found = find(run_id).hyperdrive_config
    return {
        "generator": found._generator_config,
        "policy": found._policy_config,
        "resume_from": [key["run_id"] for key in found._resume_from or ()],
        "resume_child_runs": [key["run_id"] for key in found._resume_child_runs or ()],
    }


def arguments_of(run_id):
    return Run.get(scenarios.workspace, run_id).get_details()["runDefinition"]["arguments"]


def start_parent(experiment):
    run = Experiment(scenarios.workspace, experiment).start_logging(snapshot_directory=None)
    run.complete()
    return run.id
