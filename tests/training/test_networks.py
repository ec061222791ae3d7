"""A network of the user's own: what is refused before training, and that trying it changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainer.runtime.faults import RuntimeFault
from trainer.runtime.networks import load_network

NETWORKS = """\
import chainer
import chainer.functions as F
import chainer.links as L


def good(shape, n_out):
    return chainer.Sequential(L.Linear(3, 4), F.dropout, L.BatchNormalization(4), L.Linear(None, n_out))


def nothing(shape, n_out):
    pass


def text(shape, n_out):
    return "a network"


def no_arguments():
    return chainer.Sequential(L.Linear(None, 3))


def one_score(shape, n_out):
    return chainer.Sequential(L.Linear(None, n_out), F.sum)


def other_input(shape, n_out):
    return chainer.Sequential(L.Linear(5, n_out))


class Lines(chainer.Chain):
    def forward(self, x):
        raise KeyError("no")


def lines(shape, n_out):
    return Lines()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own_networks.py"
    path.write_text(NETWORKS)
    return path


def test_trying_it_changes_neither_the_network_nor_what_is_drawn_next(file: Path) -> None:
    made = []
    for build in (lambda: load_network(f"{file}:good"), lambda: _unchecked(file)):
        make = build()
        np.random.seed(3)
        network = make((3,), 2)
        values = [None if p.array is None else p.array.tolist() for _, p in sorted(network.namedparams())]
        statistics = [value.tolist() for _, value in sorted(vars(network[2]).items()) if isinstance(value, np.ndarray)]
        made.append((values, statistics, np.random.rand(3).tolist()))
    assert made[0] == made[1]


def _unchecked(file: Path) -> object:
    names: dict[str, object] = {}
    exec(compile(file.read_text(), str(file), "exec"), names)
    return names["good"]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("nothing", r"returned nothing, not a chainer\.Chain"),
        ("text", r"returned an object of the type str, not a chainer\.Chain"),
        ("no_arguments", r"no_arguments can't be called with the shape of an example and the number of classes"),
        ("one_score", r"gives shape \(\) for two examples; it must give scores of shape \(2, 2\)"),
        ("other_input", r"fails on two examples of shape \(3,\): InvalidType: .*Actual: 3 != 5"),
        ("lines", r"fails on two examples of shape \(3,\) \(line 32\): KeyError: 'no'"),
        ("absent", r"has no function 'absent'"),
    ],
)
def test_what_is_no_network_is_said_in_a_line(file: Path, name: str, complaint: str) -> None:
    with pytest.raises(RuntimeFault, match=complaint) as caught:
        load_network(f"{file}:{name}")((3,), 2)
    assert "\n" not in caught.value.message


def test_a_file_that_fails_on_import_is_named(tmp_path: Path) -> None:
    (tmp_path / "own_import.py").write_text("import chainer\nimport no_such_module\n")
    with pytest.raises(RuntimeFault, match=r"own_import\.py can't be imported \(line 2\): ModuleNotFoundError"):
        load_network(f"{tmp_path / 'own_import.py'}:make")
    with pytest.raises(RuntimeFault, match="There is no file"):
        load_network(f"{tmp_path / 'absent.py'}:make")
