"""The Bandit policy.

After Azure's description of BanditPolicy: at each evaluation interval, a run whose best metric so far is worse than the
best of all runs by more than the slack is stopped. With best value b, a run with value v goes on when maximising if
v >= b / (1 + slack_factor) or v >= b - slack_amount; when minimising, v <= b * (1 + slack_factor) or
v <= b + slack_amount. An interval is one value of the primary metric.
"""

from __future__ import annotations

from typing import Any

from azureml_emulator.errors import bad_request


class Bandit:
    """The policy.

    Args:
        goal: ``maximize`` or ``minimize``.
        evaluation_interval: Judge a run at every so many values.
        delay_evaluation: Do not judge a run before it has logged so many values.
        slack_factor: Slack as a ratio.
        slack_amount: Slack as a difference.
    """

    def __init__(
        self,
        goal: str,
        *,
        evaluation_interval: int = 1,
        delay_evaluation: int = 0,
        slack_factor: float | None = None,
        slack_amount: float | None = None,
    ) -> None:
        if (slack_factor is None) == (slack_amount is None):
            raise bad_request("Bandit takes one of slack_factor and slack_amount.")
        self._maximise = goal == "maximize"
        self._interval = max(1, evaluation_interval)
        self._delay = delay_evaluation
        self._factor = slack_factor
        self._amount = slack_amount

    def stops(self, values: list[float], others: list[list[float]]) -> bool:
        """Tell whether a run is to be stopped.

        Args:
            values: What it has logged so far.
            others: What the other runs have logged.
        """
        if len(values) < max(1, self._delay) or len(values) % self._interval:
            return False
        best = max if self._maximise else min
        everything = [value for run in (values, *others) for value in run]
        mine, leader = best(values), best(everything)
        if self._amount is not None:
            bound = leader - self._amount if self._maximise else leader + self._amount
        else:
            assert self._factor is not None
            bound = leader / (1 + self._factor) if self._maximise else leader * (1 + self._factor)
        return mine < bound if self._maximise else mine > bound


def make_policy(name: str, properties: dict[str, Any], goal: str) -> Bandit | None:
    """Return the policy of a sweep; None for the default, which stops nothing.

    Raises:
        ServiceError: 400, a policy that is not emulated.
    """
    if name.lower() == "default":
        return None
    if name.lower() != "bandit":
        raise bad_request(f"The policy {name!r} is not emulated, only Bandit and Default.")
    given = {key: value for key, value in properties.items() if value is not None}
    try:
        return Bandit(goal, **given)
    except TypeError as error:
        raise bad_request(f"The Bandit policy is invalid: {error}") from None
