"""What is Optuna's: TPE and ASHA."""

import json

import pytest

from tests.tune.conftest import Studies, result

optuna = pytest.importorskip("optuna")
SPACE = ("--space", "x=uniform:0..1")


@pytest.mark.slow
def test_tpe_is_the_same_whether_or_not_it_was_interrupted(studies: Studies) -> None:
    at_once = result(studies.tune(*SPACE, "--sampler", "tpe", "--trials", "14"))
    first = result(studies.tune(*SPACE, "--sampler", "tpe", "--trials", "6"))
    more = result(studies.trainer("tune", "--resume", first["study"], "--trials", "14", "--json"))
    values = [trial["values"] for trial in at_once["trials"]]
    assert len({json.dumps(each) for each in values}) == 14
    assert values == [trial["values"] for trial in more["trials"]]
    # After its ten random trials it looks where it was good.
    assert abs(values[-1]["x"] - 0.3) < 0.3
    # The journal is one that Optuna reads.
    backend = optuna.storages.journal.JournalFileBackend(str(studies.study.journal))
    storage = optuna.storages.JournalStorage(backend)
    loaded = optuna.load_study(study_name=first["study"], storage=storage)
    assert len(loaded.trials) == 14
    assert loaded.best_value == max(trial["value"] for trial in more["trials"])


@pytest.mark.slow
def test_a_warm_start_is_known_to_tpe(studies: Studies) -> None:
    earlier = result(studies.tune(*SPACE, "--sampler", "qmc", "--trials", "12", "--parallel", "2"))
    found = result(studies.tune(*SPACE, "--sampler", "tpe", "--trials", "3", "--warm-start", earlier["study"]))
    cold = result(studies.tune(*SPACE, "--sampler", "tpe", "--trials", "3"))
    assert [t["values"] for t in found["trials"]] != [t["values"] for t in cold["trials"]]
    # Even where it still draws at random, it doesn't begin with the values that it was told of.
    more = result(studies.tune(*SPACE, "--sampler", "tpe", "--trials", "3", "--warm-start", cold["study"]))
    assert not {t["values"]["x"] for t in more["trials"]} & {t["values"]["x"] for t in cold["trials"]}
    ran = studies.tune(*SPACE, "--trials", "3", "--warm-start", earlier["study"])
    assert ran.returncode == 2
    assert "learns nothing" in ran.stderr
    ran = studies.tune(*SPACE, "--sampler", "tpe", "--trials", "3", "--goal", "min", "--warm-start", earlier["study"])
    assert "has another goal: max" in ran.stderr


def test_every_kind_can_be_told_to_tpe(studies: Studies) -> None:
    text = "import sys\nfrom azureml.core.run import Run\nRun.get_context().log('score', len(sys.argv))\n"
    studies.script(text, "any.py")
    kinds = ["a=1,2", "b=log:1..9", "c=int:0..9:3", "d=quniform:0..1:0.1", "e=qlog:1..99:5", "f=normal:0,1"]
    kinds += ["g=lognormal:0,1", "h=qnormal:0,1:0.5", "i=qlognormal:0,1:0.5", "j=x,y"]
    words = [word for kind in kinds for word in ("--space", kind)]
    point = "a=1,b=2,c=3,d=0.5,e=5,f=0,g=1,h=0.5,i=0,j=y"
    ran = studies.trainer(
        *("tune", "--script", "any.py", "--metric", "score", "--sampler", "tpe", "--trials", "13", "--try", point),
        *(*words, "--json"),
    )
    trials = result(ran)["trials"]
    assert trials[0]["values"]["j"] == "y"
    assert all(trial["values"]["c"] % 3 == 0 for trial in trials)


def test_asha_stops_what_is_not_among_the_best_third(studies: Studies) -> None:
    tries = [word for x in (0.3, 0.9, 1.0, 0.95) for word in ("--try", f"x={x}")]
    words = (*SPACE, *tries, "--trials", "4", "--stop", "asha:factor=3")
    found = result(studies.tune(*words, script=("--seconds", "0.4")))
    assert [trial["state"] for trial in found["trials"]] == ["Completed", "Stopped", "Stopped", "Stopped"]
    stopped = found["trials"][2]["stopped"]
    assert (stopped["by"], stopped["step"], stopped["bound"]) == ("asha", 1, pytest.approx(1.0))
