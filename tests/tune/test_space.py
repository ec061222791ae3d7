"""The search space: what is read, what is refused, and that every kind has HyperDrive's distribution."""

import math
import statistics
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.errors import UsageError
from trainer.tune.sampling import grid_point, grid_size, qmc_point, random_point, uniform
from trainer.tune.space import Parameter, arguments, parameter, parse, read_point, read_space

DRAWS = 20_000


def drawn(text: str) -> list[Any]:
    each = parse(text)
    return [each.at(uniform("test", number)) for number in range(DRAWS)]


def test_log_is_uniform_in_the_exponent() -> None:
    values = drawn("lr=log:1e-4..0.1")
    assert min(values) >= 1e-4
    assert max(values) <= 0.1
    exponents = [math.log10(value) for value in values]
    assert statistics.fmean(exponents) == pytest.approx(-2.5, abs=0.02)
    assert statistics.pstdev(exponents) == pytest.approx(3 / math.sqrt(12), abs=0.02)


def test_quantised_uniform_gives_the_ends_half_the_weight() -> None:
    # round(U / q) * q: HyperDrive's quniform(0, 10, 5).
    values = drawn("x=quniform:0..10:5")
    shares = [values.count(value) / DRAWS for value in (0, 5, 10)]
    assert sum(shares) == 1
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.01)


def test_int_gives_every_value_the_same_weight() -> None:
    values = drawn("units=int:50..400:50")
    assert set(values) == set(range(50, 401, 50))
    assert all(values.count(value) / DRAWS == pytest.approx(1 / 8, abs=0.01) for value in set(values))


def test_the_upper_end_of_int_need_not_be_a_step() -> None:
    assert parse("x=int:0..100:7").grid() == tuple(range(0, 99, 7))


@pytest.mark.parametrize(("text", "mean", "deviation"), [("x=normal:3,2", 3, 2), ("x=lognormal:0,0.5", None, None)])
def test_normal_kinds(text: str, mean: float | None, deviation: float | None) -> None:
    values = drawn(text)
    if mean is None or deviation is None:
        values = [math.log(value) for value in values]
        mean, deviation = 0, 0.5
    assert statistics.fmean(values) == pytest.approx(mean, abs=0.05)
    assert statistics.pstdev(values) == pytest.approx(deviation, abs=0.05)


def test_quantised_normal_kinds_are_multiples_of_the_step() -> None:
    assert {value % 0.5 for value in drawn("x=qnormal:0,1:0.5")} == {0.0}
    assert {value % 10 for value in drawn("x=qlognormal:3,1:10")} == {0}
    assert all(isinstance(value, int) for value in drawn("x=qlog:1..1000:10"))


def test_a_quantised_value_has_the_digits_of_its_step() -> None:
    assert set(drawn("x=quniform:0..1:0.1")) == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0}
    assert max(len(repr(value)) for value in drawn("x=quniform:0..1:0.025")) == 5


def test_the_exact_values_of_a_seed_never_change() -> None:
    space = read_space([parse("lr=log:1e-3..0.3"), parse("batchsize=128,256"), parse("units=int:50..400:50")])
    assert random_point(space, 0, 0) == {"lr": 0.12392786825925564, "batchsize": 128, "units": 50}
    assert random_point(space, 0, 3) == {"lr": 0.009978712246407838, "batchsize": 256, "units": 200}


def test_a_parameter_more_leaves_the_others_as_they_are() -> None:
    one, two = parse("lr=log:1e-3..0.3"), parse("momentum=uniform:0..0.9")
    assert random_point((two, one), 7, 5)["lr"] == random_point((one,), 7, 5)["lr"]


def test_a_seed_gives_other_values() -> None:
    space = (parse("lr=log:1e-3..0.3"),)
    assert len({random_point(space, seed, number)["lr"] for seed in range(5) for number in range(5)}) == 25


def test_qmc_covers_each_axis_evenly() -> None:
    space = tuple(parse(f"x{index}=uniform:0..1") for index in range(3))
    points = [qmc_point(space, 3, number) for number in range(30)]
    for each, cells in (("x0", 16), ("x1", 27), ("x2", 25)):
        # The first b^k points of a Halton sequence fall one into each interval of length 1 / b^k.
        found = sorted(int(float(point[each]) * cells) for point in points[:cells])
        assert found == list(range(cells))


def test_qmc_agrees_with_scipy_where_neither_scrambles(monkeypatch: pytest.MonkeyPatch) -> None:
    qmc = pytest.importorskip("scipy.stats.qmc")
    monkeypatch.setattr("trainer.tune.sampling._permutation", lambda base, *_: list(range(base)))
    theirs = qmc.Halton(4, scramble=False).random(50)
    space = tuple(parse(f"x{index}=uniform:0..1") for index in range(4))
    for number in range(50):
        assert list(qmc_point(space, 0, number).values()) == pytest.approx(list(theirs[number]), abs=1e-12)


def test_a_grid_has_every_point_once() -> None:
    space = read_space([parse("a=1,2,3"), parse("b=int:0..4:2"), parse("c=choice:x,y")])
    assert grid_size(space) == 18
    points = [tuple(grid_point(space, number).values()) for number in range(18)]
    assert len(set(points)) == 18
    assert points[:3] == [(1, 0, "x"), (1, 0, "y"), (1, 2, "x")]


def test_a_range_has_no_grid() -> None:
    with pytest.raises(UsageError, match="lr is log"):
        grid_size((parse("lr=log:1e-3..0.3"),))


def test_values_are_one_word_each() -> None:
    assert arguments({"lr": -1e-05, "act": "relu", "n": 3}) == ("--lr=-1e-05", "--act=relu", "--n=3")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr=log:0..1", "logarithm of 0"),
        ("lr=log:-1..1", "logarithm of -1"),
        ("x=1..2", "names no kind"),
        ("x=uniform:2..1", "2..1 is empty"),
        ("x=uniform:1..1", "is empty"),
        ("x=int:1..2.5", "whole numbers"),
        ("x=int:0..10:0", "the step is 0"),
        ("x=gauss:1..2", "no kind 'gauss'"),
        ("x=", "not NAME=VALUES"),
        ("x", "not NAME=VALUES"),
        ("=1,2", "can't name a flag"),
        ("a b=1,2", "can't name a flag"),
        ("x=1,,2", "value of the choice is missing"),
        ("x=128,128", "listed twice"),
        ("x=normal:0,0", "standard deviation is 0"),
        ("x=quniform:0..1", "needs a step"),
        ("x=uniform:0..1:0.1", "has no step"),
        ("x=uniform:0..nan", "not finite"),
        ("x=uniform:0..inf", "not finite"),
        ("x=uniform:0", "two numbers"),
        ("x=uniform:a..b", "'a' is not a number"),
        ("x=lognormal:600,10", "too large"),
        ("x=int:0..9000000", "more than"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(text)
    assert said in raised.value.message
    assert raised.value.hint
    assert "\n" not in raised.value.message + raised.value.hint


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ([128, 256], "x=128,256"),
        ({"log": [1e-3, 0.3]}, "x=log:1e-3..0.3"),
        ({"int": [50, 400], "step": 50}, "x=int:50..400:50"),
        ({"normal": [0, 1]}, "x=normal:0,1"),
        ({"qlog": [1, 1000], "step": 10}, "x=qlog:1..1000:10"),
        ({"choice": ["relu", "tanh"]}, "x=relu,tanh"),
        ("uniform:0..1", "x=uniform:0..1"),
    ],
)
def test_a_table_says_what_a_text_says(table: object, text: str) -> None:
    assert parameter("x", table) == parse(text)


@pytest.mark.parametrize("table", [3, {}, {"log": 3}, {"log": [1, 2], "int": [1, 2]}, {"gauss": [1, 2]}, [True], [[1]]])
def test_tables_that_are_refused(table: object) -> None:
    with pytest.raises(UsageError):
        parameter("x", table)


NUMBERS = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False).map(lambda x: round(x, 6))


@st.composite
def parameters(draw: st.DrawFn) -> Parameter:
    kind = draw(st.sampled_from(["uniform", "quniform", "log", "qlog", "int", "normal", "qnormal", "choice"]))
    if kind == "choice":
        return parameter("x", {"choice": draw(st.lists(st.integers(-99, 99), min_size=1, unique=True))})
    low, width = draw(NUMBERS), abs(draw(NUMBERS)) + 0.001
    step = {"step": abs(draw(NUMBERS)) + 0.001} if kind.startswith("q") else {}
    if kind in ("log", "qlog"):
        low = abs(low) + 0.001
    if kind == "int":
        return parameter("x", {"int": [int(low), int(low) + int(width) % 500 + 1], "step": draw(st.integers(1, 9))})
    return parameter("x", {kind: [low, width] if "normal" in kind else [low, low + width], **step})


@given(parameters(), st.floats(min_value=1e-9, max_value=1 - 1e-9))
def test_what_is_described_is_read_back_and_drawn_alike(each: Parameter, u: float) -> None:
    again = parse(each.describe())
    assert again == each
    value = again.at(u)
    assert value == each.at(u)
    if each.kind in ("uniform", "log", "int"):
        assert each.low <= float(value) <= each.high
    if each.grid() is not None:
        assert value in (each.grid() or ())


@given(st.text())
def test_any_text_is_read_or_refused_in_a_line(text: str) -> None:
    with suppress(UsageError):
        assert parse(text).name


def test_a_point_to_try_takes_the_values_of_the_space() -> None:
    space = read_space([parse("lr=log:1e-3..0.3"), parse("batchsize=128,256")])
    assert read_point("batchsize=128,lr=0.1", space) == {"lr": 0.1, "batchsize": 128}
    for text, said in (
        ("lr=0.1", "gives no batchsize"),
        ("lr=0.1,batchsize=64", "can't be 64"),
        ("lr=5,batchsize=128", "can't be 5"),
        ("lr=x,batchsize=128", "must be a number"),
        ("lr", "not NAME=VALUE"),
        ("lr=0.1,batchsize=128,units=3", "not in the space"),
    ):
        with pytest.raises(UsageError, match=said):
            read_point(text, space)
