"""The table of training flags: what fits, what does not, and that every parser says so alike."""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any

import pytest

from trainer.runtime import devices
from trainer.runtime.faults import RuntimeFault
from trainer.runtime.flags import TRAINING, add_flags

FLAGS = {flag.name: flag for flag in TRAINING}


@pytest.mark.parametrize("flag", TRAINING, ids=lambda flag: flag.name)
def test_the_default_fits(flag: Any) -> None:
    if flag.default is None:
        assert flag.default_text
    else:
        assert flag.check(flag.default) == flag.parse(str(flag.default)) == flag.default


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epochs", "1", 1),
        ("seed", "0", 0),
        ("seed", str(2**32 - 1), 2**32 - 1),
        ("momentum", "0", 0.0),
        ("momentum", "0.999", 0.999),
        ("lr", "1e-300", 1e-300),
        ("lr", "5", 5.0),
        ("device", "auto", "auto"),
        ("device", "cuda:12", "cuda:12"),
    ],
)
def test_what_fits(name: str, text: str, value: Any) -> None:
    flag = FLAGS[name]
    for found in (flag.parse(text), flag.check(value)):
        assert found == value
        assert type(found) is flag.type


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epochs", 0, "0 is not a whole number of at least 1"),
        ("epochs", -(10**30), f"{-(10**30)} is not a whole number of at least 1"),
        ("batchsize", 1.5, "1.5 is not a whole number of at least 1"),
        ("seed", -1, "-1 is not a whole number from 0 to 4294967295"),
        ("seed", 2**32, "4294967296 is not a whole number from 0 to 4294967295"),
        ("lr", 0.0, "0.0 is not a finite number above 0"),
        ("lr", float("inf"), "inf is not a finite number above 0"),
        ("lr", float("nan"), "nan is not a finite number above 0"),
        ("momentum", 1.0, "1.0 is not a finite number from 0 to below 1"),
        ("momentum", -0.1, "-0.1 is not a finite number from 0 to below 1"),
    ],
)
def test_what_does_not_fit(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match="is not") as caught:
        FLAGS[name].check(value)
    assert str(caught.value) == expected
    # As a word of the command line.
    with pytest.raises(ValueError, match="is not") as caught:
        FLAGS[name].parse(str(value))
    assert str(caught.value).replace("'", "") == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", True), ("epochs", None), ("epochs", [1]), ("lr", 10**400), ("lr", "x"), ("device", 0), ("device", "")],
)
def test_other_types_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match="is not"):
        FLAGS[name].check(value)


@pytest.mark.parametrize("text", ["tpu", "cuda:", "cuda:x", "CPU", "cuda:1234", " cpu", "auto\n"])
def test_no_device(text: str) -> None:
    with pytest.raises(ValueError, match="is not auto, cpu, cuda or cuda:N"):
        FLAGS["device"].parse(text)


def test_what_is_no_device_here_is_none_there() -> None:
    with pytest.raises(RuntimeFault):
        devices.select("tpu")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="x", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_flags(made)
    return made


def test_a_parser_has_the_defaults() -> None:
    assert vars(parser().parse_args([])) == {flag.name: flag.default for flag in TRAINING}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-e 0", "argument --epochs/-e: 0 is not a whole number of at least 1"),
        ("-b many", "argument --batchsize/-b: 'many' is not a whole number of at least 1"),
        ("--device tpu", "argument --device: 'tpu' is not auto, cpu, cuda or cuda:N"),
        ("-g x", "argument --gpu_id/-g: 'x' is not a whole number"),
        ("-g 1 --device cpu", "argument --device: not allowed with argument --gpu_id/-g"),
    ],
)
def test_a_parser_refuses(capsys: pytest.CaptureFixture[str], words: str, message: str) -> None:
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(words.split())
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("number", "device"), [("-1", "cpu"), ("0", "cuda:0"), ("3", "cuda:3")])
def test_the_number_of_a_gpu_is_a_device(number: str, device: str) -> None:
    assert parser().parse_args(["--gpu_id", number]).device == device


def test_importing_the_table_costs_nothing() -> None:
    code = (
        "import sys, trainer.runtime.flags; print([m for m in ('numpy', 'chainer', 'dataclasses') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
