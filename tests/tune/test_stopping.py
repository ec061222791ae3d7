"""Azure's three policies at equal intervals."""

import pytest

from trainer.errors import UsageError
from trainer.records import Stopped
from trainer.tune.stopping import Curve, intervals, judge, parse_policy


def stops(policy: str, number: int, interval: int, *curves: Curve, goal: str = "max") -> Stopped | None:
    return judge(parse_policy(policy), goal, number, interval, dict(enumerate(curves)))


def test_bandit_takes_the_leader_at_the_same_interval() -> None:
    leader = [0.40, 0.60, 0.80]
    # The example of azureml's docstring: Y + Y * 0.2 is compared with 0.8.
    assert stops("bandit:slack=0.2", 1, 3, leader, [0.3, 0.5, 0.66]) == Stopped(
        by="bandit", step=3, value=0.66, bound=pytest.approx(0.8 / 1.2)
    )
    assert stops("bandit:slack=0.2", 1, 3, leader, [0.3, 0.5, 0.67]) is None
    # A young trial with the leader's own curve is never stopped by the leader's later values.
    for interval in (1, 2, 3):
        assert stops("bandit:slack=0.1", 1, interval, leader, leader[:interval]) is None


def test_bandit_with_an_amount() -> None:
    # The other example: an AUC of less than 0.8 - 0.2 is stopped.
    assert stops("bandit:amount=0.2", 1, 1, [0.8], [0.59]) is not None
    assert stops("bandit:amount=0.2", 1, 1, [0.8], [0.61]) is None


def test_bandit_when_less_is_better() -> None:
    assert stops("bandit:slack=0.1", 1, 1, [1.0], [1.11], goal="min") == Stopped(
        by="bandit", step=1, value=1.11, bound=pytest.approx(1.1)
    )
    assert stops("bandit:slack=0.1", 1, 1, [1.0], [1.09], goal="min") is None


@pytest.mark.parametrize("goal", ["max", "min"])
def test_the_leader_of_a_negative_metric_goes_on(goal: str) -> None:
    assert stops("bandit:slack=0.5", 0, 1, [-1.0], [-1.0], goal=goal) is None


def test_bandit_counts_the_best_value_so_far() -> None:
    assert stops("bandit:slack=0.1", 1, 2, [0.5, 0.8], [0.79, 0.1]) is None


def test_median_compares_the_best_with_the_median_of_running_averages() -> None:
    others: list[Curve] = [[0.2, 0.4], [0.4, 0.6], [0.6, 0.8]]  # averages 0.3, 0.5, 0.7
    # With the trial's own average, 0.35, the median of the four is 0.425... of 0.3, 0.35, 0.5, 0.7.
    assert stops("median", 3, 2, *others, [0.3, 0.4]) == Stopped(
        by="median", step=2, value=0.4, bound=pytest.approx(0.425)
    )
    assert stops("median", 3, 2, *others, [0.3, 0.5]) is None


def test_median_leaves_out_trials_that_did_not_get_so_far() -> None:
    assert stops("median", 1, 2, [0.9], [0.1, 0.2]) is None


def test_truncation_stops_the_lowest_share_at_the_interval() -> None:
    curves: list[Curve] = [[value / 10] for value in range(10)]
    stopped = [number for number in range(10) if stops("truncation:percent=20", number, 1, *curves)]
    assert stopped == [0, 1]
    found = stops("truncation:percent=20", 1, 1, *curves)
    assert found == Stopped(by="truncation", step=1, value=0.1, bound=0.2)
    assert stops("truncation:percent=20", 0, 1, *curves[:4]) is None, "20 % of four is none"


def test_truncation_when_less_is_better() -> None:
    curves: list[Curve] = [[value / 10] for value in range(10)]
    assert [n for n in range(10) if stops("truncation:percent=20", n, 1, *curves, goal="min")] == [8, 9]


def test_equal_trials_don_t_stop_each_other() -> None:
    for policy in ("bandit:slack=0", "bandit:amount=0", "median", "truncation:percent=50"):
        assert not any(stops(policy, number, 1, [0.5], [0.5], [0.5], [0.5]) for number in range(4)), policy


def test_nan_is_worse_than_anything() -> None:
    found = stops("bandit:slack=0.1", 1, 1, [0.5], [None])
    assert found is not None
    assert found.value is None


def test_delay_and_interval_are_azures() -> None:
    # "every multiple of evaluation_interval that is greater than or equal to delay_evaluation"
    policy = parse_policy("bandit:slack=0.1,interval=2,delay=5")
    assert intervals(policy, 0, 9) == [6, 8]
    assert intervals(policy, 6, 9) == [8]
    assert [n for n in range(1, 10) if stops("bandit:slack=0.1,interval=2,delay=5", 1, n, [1.0] * 9, [0.1] * 9)] == [
        6,
        8,
    ]


@pytest.mark.parametrize(
    "text",
    [
        *("hyperband", "bandit:foo=1", "bandit:slack", "bandit:slack=x", "bandit:interval=0", "bandit:interval=1.5"),
        *("truncation:percent=0", "truncation:percent=100", "bandit:slack=0.1,amount=0.1", "median:slack=1"),
        "asha:factor=1",
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_policy(text)
    assert raised.value.hint


def test_a_negative_setting_is_told_from_no_number() -> None:
    with pytest.raises(UsageError, match="slack must be at least 0"):
        parse_policy("bandit:slack=-0.1")


@pytest.mark.parametrize(
    "text", ["bandit", "median:delay=5", "truncation:percent=30", "asha:factor=4", "bandit:amount=0.2"]
)
def test_what_is_described_is_read_back(text: str) -> None:
    assert parse_policy(parse_policy(text).describe()) == parse_policy(text)
