"""HyperDrive's parts that need no server: parameter expressions, samplers, early termination."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azureml_emulator.errors import ServiceError
from azureml_emulator.sweeps.bayesian import Observation, bayesian_sample
from azureml_emulator.sweeps.policy import Curve, Policy, make_policy
from azureml_emulator.sweeps.sampling import check_space, grid, random_sample

BOUNDS = st.tuples(st.floats(-5, 5), st.floats(0.1, 5)).map(lambda pair: (pair[0], pair[0] + pair[1]))


# Sampling


@given(bounds=BOUNDS, seed=st.text())
def test_samples_stay_within_bounds(bounds: tuple[float, float], seed: str) -> None:
    low, high = bounds
    space: dict[str, list[Any]] = {
        "u": ["uniform", [low, high]],
        "l": ["loguniform", [low, high]],
        "c": ["choice", [[1, "b", 0.5]]],
        "r": ["randint", [7]],
        "q": ["quniform", [low, high, 2]],
        "ql": ["qloguniform", [low, high, 3.0]],
        "n": ["normal", [low, 0]],
        "ln": ["lognormal", [low, 0]],
        "qn": ["qnormal", [low, 1, 4]],
        "qln": ["qlognormal", [low, 0, 5]],
    }
    check_space(space, "RANDOM")
    samples = [random_sample(space, seed, number) for number in range(5)]
    for sample in samples:
        assert low <= sample["u"] <= high
        assert math.exp(low) * 0.999 <= sample["l"] <= math.exp(high) * 1.001
        assert sample["c"] in (1, "b", 0.5)
        assert sample["r"] in range(7)
        assert sample["q"] % 2 == 0
        assert isinstance(sample["q"], int)
        assert low - 1 <= sample["q"] <= high + 1
        assert sample["ql"] % 3 == 0
        assert sample["ql"] >= 0
        assert sample["n"] == low
        assert sample["ln"] == pytest.approx(math.exp(low))
        assert sample["qn"] % 4 == 0
        assert sample["qln"] == round(math.exp(low) / 5) * 5
    # A sample depends on its number, not on those before it.
    assert random_sample(space, seed, 4) == samples[4]
    assert len({sample["u"] for sample in samples}) > 1


def test_a_quantised_parameter_s_ends_have_half_the_weight() -> None:
    drawn = [random_sample({"q": ["quniform", [0, 10, 5]]}, "s", number)["q"] for number in range(2000)]
    assert {value: drawn.count(value) > 800 for value in (0, 5, 10)} == {0: False, 5: True, 10: False}


@given(st.dictionaries(st.text(), st.lists(st.integers(), min_size=1, max_size=4, unique=True), min_size=1, max_size=3))
def test_a_grid_has_every_point_once(values: dict[str, list[int]]) -> None:
    space: dict[str, list[Any]] = {name: ["choice", [options]] for name, options in values.items()}
    check_space(space, "GRID")
    points = grid(space, 1000)
    assert len(points) == math.prod(map(len, values.values()))
    assert len({tuple(point.items()) for point in points}) == len(points)
    assert grid(space, 1) == points[:1]


@pytest.mark.parametrize(
    ("expression", "method", "reason"),
    [
        (["choice", [[1]]], "SOBOL", "no sampling method 'SOBOL'"),
        (["uniform", [0, 1]], "GRID", "takes only choice"),
        (["cauchy", [0, 1]], "RANDOM", "no distribution 'cauchy'"),
        (["uniform", [0]], "RANDOM", "two numbers"),
        (["uniform", [1, 1]], "RANDOM", "the first less than the second"),
        (["uniform", ["0", "1"]], "RANDOM", "two numbers"),
        (["uniform", {"a": 1, "b": 2}], "RANDOM", "two numbers"),
        (["loguniform", [0, 1e9]], "RANDOM", "natural logarithms"),
        (["quniform", [0, 1, 0.5]], "RANDOM", "whole number q"),
        (["quniform", [0, 1, 0]], "RANDOM", "whole number q"),
        (["normal", [0, -1]], "RANDOM", "not negative"),
        (["randint", [0]], "RANDOM", "more than 0"),
        (["randint", [True]], "RANDOM", "more than 0"),
        (["choice", [[]]], "RANDOM", "texts and numbers"),
        (["choice", [[[1], [2]]]], "RANDOM", "texts and numbers"),
        (["choice", [[{"a": 1}]]], "RANDOM", "texts and numbers"),
        (["choice"], "RANDOM", "not a distribution"),
        ([["choice"], [[1]]], "RANDOM", "not a distribution"),
        (["loguniform", [0, 1]], "BayesianOptimization", "takes choice, uniform and quniform"),
        (["choice", [[1, "a"]]], "BayesianOptimization", "texts or numbers"),
        (["quniform", [0.5, 2.5, 1]], "BayesianOptimization", "whole numbers only"),
        (["quniform", [0, 1_000_000, 1]], "BayesianOptimization", "100000 points"),
    ],
)
def test_a_space_that_is_not_hyperdrive_s_is_refused(expression: list[Any], method: str, reason: str) -> None:
    with pytest.raises(ServiceError, match=reason) as refusal:
        check_space({"a": expression}, method)
    assert refusal.value.status == 400


SPACE: dict[str, list[Any]] = {
    "lr": ["uniform", [0.0, 1.0]],
    "units": ["quniform", [7, 100, 10]],
    "kind": ["choice", [["good", "bad", "worse"]]],
}


def _loss(sample: dict[str, Any]) -> float:
    return abs(sample["lr"] - 0.3) + abs(sample["units"] - 50) / 100 + float(sample["kind"] != "good")


def test_bayesian_sampling_learns_from_what_it_has_seen() -> None:
    check_space(SPACE, "BayesianOptimization")
    seen: list[Observation] = []
    for number in range(40):
        sample = bayesian_sample(SPACE, "seed", number, seen, "minimize")
        assert sample["units"] % 10 == 0
        assert 10 <= sample["units"] <= 100
        # Some are still going on, and some have ended without a value.
        value = None if number % 13 == 5 else _loss(sample)
        seen.append(Observation(sample, value, ended=number < 38))
    assert bayesian_sample(SPACE, "seed", 40, seen, "minimize") == bayesian_sample(SPACE, "seed", 40, seen, "minimize")
    first, last = seen[:15], seen[-15:]
    losses = [[_loss(each.sample) for each in some] for some in (first, last)]
    assert statistics.fmean(losses[1]) < statistics.fmean(losses[0]) / 2
    assert sum(each.sample["kind"] == "good" for each in last) > 10


# Early termination


def _policy(name: str, **properties: Any) -> Policy:
    found = make_policy(name, properties)
    assert found is not None
    return found


def _judge(policy: Policy, goal: str, mine: list[float], *others: list[float]) -> bool:
    curves = [Curve(values, goal) for values in (mine, *others)]
    return policy.judge(curves[0], curves[1:], len(mine)) is not None


@pytest.mark.parametrize(
    ("goal", "properties", "mine", "other", "stops"),
    [
        ("maximize", {"slack_factor": 0.25}, [0.79], [1.0], True),
        ("maximize", {"slack_factor": 0.25}, [0.81], [1.0], False),
        ("maximize", {"slack_amount": 0.1}, [0.5, 0.95, 0.2], [1.0], False),
        ("minimize", {"slack_factor": 0.5}, [1.6], [1.0], True),
        ("minimize", {"slack_amount": 0.5}, [1.5], [1.0], False),
        # At interval 2 an older run's later values don't count, and a younger one's first value does.
        ("maximize", {"slack_factor": 0.1}, [0.3, 0.5], [0.3, 0.5, 0.9, 0.99], False),
        ("maximize", {"slack_factor": 0.1}, [0.3, 0.5], [0.9], True),
        # The leader of a negative metric is not stopped by itself, and one far behind it is.
        ("maximize", {"slack_factor": 0.1}, [-1.0], [-1.0], False),
        ("maximize", {"slack_factor": 0.1}, [-1.2], [-1.0], True),
        ("minimize", {"slack_factor": 0.1}, [-1.0], [-1.0], False),
        # NaN is worse than all, also than nothing better being known.
        ("maximize", {"slack_factor": 0.1}, [math.nan], [0.1], True),
        ("minimize", {"slack_factor": 0.1}, [math.nan, 0.1], [0.1], False),
    ],
)
def test_bandit(goal: str, properties: dict[str, Any], mine: list[float], other: list[float], stops: bool) -> None:
    assert _judge(_policy("Bandit", **properties), goal, mine, other) is stops


def test_median_stopping_compares_the_best_value_with_running_averages() -> None:
    policy = _policy("MedianStopping")
    # Averages over 1 to 2: 0.3, 0.5, 0.6; the third run's later values don't count, the fourth has not got so far.
    assert _judge(policy, "maximize", [0.2, 0.4], [0.4, 0.6], [0.6, 0.6, 0.0], [0.9])
    assert not _judge(policy, "maximize", [0.5, 0.1], [0.4, 0.6], [0.6, 0.6, 0.0], [0.9])
    assert _judge(policy, "minimize", [0.7, 0.7], [0.4, 0.6], [0.6, 0.6])
    # Equal runs have a median of which none is worse, whatever the rounding of sums.
    assert not _judge(policy, "maximize", [0.1] * 3, [0.1] * 3, [0.1] * 3)


def test_truncation_stops_the_lowest_share_at_equal_intervals() -> None:
    policy = _policy("TruncationSelection", truncation_percentage=50, exclude_finished_jobs=False)
    others = [[0.9, 0.1], [0.8, 0.2], [0.4, 0.9], [0.2]]
    # At interval 1: 0.2 0.3 0.4 0.8 0.9; floor(5 / 2) of them are stopped.
    assert _judge(policy, "maximize", [0.3], *others)
    assert not _judge(policy, "maximize", [0.5], *others)
    # At interval 2 the one that has not got there does not count: 0.1 0.15 0.2 0.9.
    assert _judge(policy, "maximize", [0.9, 0.15], *others)
    assert not _judge(_policy("TruncationSelection", truncation_percentage=20), "maximize", [0.1], [0.2], [0.3])
    # Of equal ones none is lower than another.
    assert not _judge(policy, "minimize", [0.5], [0.5], [0.5])


@given(
    st.sampled_from(["Bandit", "MedianStopping", "TruncationSelection"]),
    st.sampled_from(["maximize", "minimize"]),
    st.lists(st.lists(st.floats(allow_nan=True, allow_infinity=False), min_size=3, max_size=3), min_size=1, max_size=5),
)
def test_no_policy_stops_the_leader(name: str, goal: str, runs: list[list[float]]) -> None:
    properties = {"Bandit": {"slack_factor": 0.01}, "TruncationSelection": {"truncation_percentage": 99}}.get(name, {})
    policy = _policy(name, **properties)
    curves = [Curve(values, goal) for values in runs]
    leader = max(curves, key=lambda curve: curve.values[2] if name == "TruncationSelection" else curve.best(3))
    assert policy.judge(leader, [curve for curve in curves if curve is not leader], 3) is None


@settings(max_examples=200)
@given(st.integers(1, 5), st.integers(0, 12), st.lists(st.integers(0, 7), max_size=8))
def test_every_interval_that_was_passed_is_judged_once(step: int, delay: int, arrivals: list[int]) -> None:
    policy = _policy("MedianStopping", evaluation_interval=step, delay_evaluation=delay)
    judged, logged = [0], 0
    for batch in arrivals:
        logged += batch
        judged.extend(policy.intervals(judged[-1], logged))
    assert judged[1:] == [n for n in range(1, logged + 1) if n % step == 0 and n >= delay]


def test_policies_that_azure_would_refuse_are_refused() -> None:
    assert make_policy("Default", {}) is None
    for name, properties, reason in (
        ("Hyperband", {}, "no policy 'Hyperband'"),
        ("Bandit", {}, "one of slack_factor"),
        ("Bandit", {"slack_amount": None}, "one of slack_factor"),
        ("Bandit", {"slack_factor": 0.1, "slack_amount": 1}, "one of slack_factor"),
        ("Bandit", {"slack_amount": 1, "x": 2}, "x: is not emulated"),
        ("MedianStopping", {"evaluation_interval": 0}, "evaluation_interval: .* greater than or equal to 1"),
        ("TruncationSelection", {"truncation_percentage": 100}, "less than or equal to 99"),
        ("TruncationSelection", {"truncation_percentage": 5, "exclude_finished_jobs": True}, "exclude_finished_jobs"),
    ):
        with pytest.raises(ServiceError, match=reason):
            make_policy(name, properties)
