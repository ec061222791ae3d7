"""``trainer models``, ``fetch``, ``delete``, ``evaluate``, ``predict``, ``show``, as processes on a trained project."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Project


def test_models(trained_once: Project) -> None:
    listed = json.loads(trained_once.trainer("models", "--json").stdout)
    assert [(item["name"], item["version"], item["tags"]) for item in listed] == [
        ("chainer-dnn-mnist", 1, {"colour": "blue"})
    ]
    shown = trained_once.trainer("models").stdout.splitlines()
    assert shown[0].split()[:3] == ["MODEL", "LATEST", "VERSIONS"]
    assert shown[1].split()[:3] == ["chainer-dnn-mnist", "1", "1"]
    versions = trained_once.trainer("models", "chainer-dnn-mnist").stdout
    assert "chainer-dnn-mnist:1" in versions
    assert listed[0]["sha256"][:16] in versions
    assert "colour=blue" in versions


def test_where_there_are_no_models(project: Project) -> None:
    said = project.trainer("models").stderr
    assert "Train one: trainer run " in said
    assert "trainer models --backend NAME" in said


def test_fetch(trained: Project) -> None:
    fetched = json.loads(trained.trainer("fetch", "latest", "-o", "out", "--json").stdout)
    assert fetched["written"] is True
    assert (trained.path / fetched["path"]).is_file()
    again = trained.trainer("fetch", "chainer-dnn-mnist:1", "-o", "out")
    assert (again.returncode, again.stdout) == (0, "out/model.npz\n")
    assert "the same file is already there" in again.stderr
    (trained.path / "out" / "model.npz").write_bytes(b"something else")
    refused = trained.trainer("fetch", "chainer-dnn", "-o", "out")
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    assert trained.trainer("fetch", "chainer-dnn", "-o", "out", "--force").returncode == 0
    default = trained.trainer("fetch", "chainer-dnn-mnist")
    assert (default.returncode, default.stdout) == (0, "model/model.npz\n")


def test_delete(trained: Project) -> None:
    deleted = trained.trainer("delete", "chainer-dnn-mnist:1", "--json")
    assert json.loads(deleted.stdout) == {"name": "chainer-dnn-mnist", "version": 1, "deleted": True}
    assert trained.trainer("delete", "chainer-dnn-mnist:1").returncode == 5
    assert trained.trainer("fetch", "chainer-dnn-mnist").returncode == 5


def test_evaluate(trained_once: Project, tmp_path: Path) -> None:
    data = str(trained_once.data)
    found = json.loads(trained_once.trainer("evaluate", "latest", "--dataset", data, "--json").stdout)
    recorded = json.loads(trained_once.trainer("models", "--json").stdout)[0]["metrics"]
    assert found["accuracy"] == pytest.approx(recorded["Accuracy"])
    assert found["loss"] == pytest.approx(recorded["Validation loss"], rel=1e-5)
    assert sum(map(sum, found["confusion"])) == found["count"]
    shown = trained_once.trainer("evaluate", "latest", "--dataset", data)
    assert shown.returncode == 0
    assert f"Accuracy  {found['accuracy']:.4f}" in shown.stdout
    assert len([line for line in shown.stdout.splitlines() if line[:17].strip().isdigit()]) == 10


def test_plots(trained_once: Project, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    confusion, curves = tmp_path / "confusion.png", tmp_path / "curves.png"
    data = str(trained_once.data)
    ran = trained_once.trainer("evaluate", "latest", "--dataset", data, "--plot", str(confusion))
    assert ran.returncode == 0, ran.stderr
    ran = trained_once.trainer("show", "latest", "--plot", str(curves))
    assert ran.returncode == 0, ran.stderr
    for path in (confusion, curves):
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert len(image.convert("L").getcolors(100_000) or range(10)) > 1, "the picture is not empty"


def test_predict(trained_once: Project, tmp_path: Path) -> None:
    pixels = np.zeros((60, 40), np.uint8)
    pixels[10:50, 18:23] = 255
    good, bad = tmp_path / "digit.png", tmp_path / "bad.png"
    Image.fromarray(pixels).save(good)
    bad.write_bytes(b"no image")
    found = json.loads(trained_once.trainer("predict", "latest", str(good), str(good), "--json").stdout)
    assert [item["path"] for item in found] == [str(good)] * 2
    assert found[0]["class"] in range(10)
    assert sum(found[0]["probabilities"]) == pytest.approx(1)
    shown = trained_once.trainer("predict", "latest", str(good)).stdout.splitlines()
    assert shown[1].split()[:3] == [str(good), str(found[0]["class"]), f"{found[0]['probability']:.4f}"]
    refused = trained_once.trainer("predict", "latest", str(good), str(bad))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert str(bad) in refused.stderr


def test_show(trained_once: Project) -> None:
    result = json.loads((trained_once.path.parent / "run.json").read_text())
    shown = json.loads(trained_once.trainer("show", result["run_id"][:20], "--json").stdout)
    assert {name: shown[name] for name in result} == result
    assert "model.npz" in shown["files"]
    assert shown["job"]["script"] == "chainer_mnist.py"
    ran = trained_once.trainer("show", "latest")
    assert ran.returncode == 0, ran.stderr
    text = ran.stdout
    for part in (result["run_id"], "Completed", "colour=blue", "chainer-dnn-mnist:1", "Accuracy", result["snapshot"]):
        assert part in text


def test_runs(trained_once: Project) -> None:
    listed = json.loads(trained_once.trainer("runs", "--json").stdout)
    assert [(info["status"], info["model"]["version"]) for info in listed] == [("Completed", 1)]
    shown = trained_once.trainer("runs").stdout.splitlines()
    assert shown[0].split()[:2] == ["RUN", "STATUS"]
    assert shown[1].split()[:2] == [listed[0]["run_id"], "Completed"]
    assert "local" in shown[1]


def test_a_crafted_model_is_refused(trained: Project, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'owned')!r}, 'w')",)

    crafted = tmp_path / "model.npz"
    np.savez(crafted, **{"l1/W": np.array([Payload()], dtype=object)})
    for words in (["evaluate", str(crafted), "--dataset", str(trained.data)], ["predict", str(crafted), "x.png"]):
        ran = trained.trainer(*words)
        assert ran.returncode == 1, ran.stderr
        assert ran.stderr.startswith("error: ")
    assert not (tmp_path / "owned").exists()


def test_only_the_runs_that_are_shown_are_read(tmp_path: Path, trained_once: Project) -> None:
    project = Project(tmp_path / "project", trained_once.data, tmp_path)
    record = next(trained_once.runs.iterdir()) / "status.json"
    for number in range(300):
        folder = project.runs / f"20260101-{number:06}-aaaaaa"
        folder.mkdir(parents=True)
        whole = record.read_text().replace(record.parent.name, folder.name)
        (folder / "status.json").write_text(whole if number >= 250 else "damaged")
    ran = project.trainer("runs", "--limit", "50", "--json")
    assert (ran.returncode, ran.stderr, len(json.loads(ran.stdout))) == (0, "", 50)
    ran = project.trainer("runs", "--limit", "0", "--json")
    assert (ran.returncode, len(json.loads(ran.stdout))) == (0, 50)
    assert ran.stderr.count("status.json is damaged") == 250


def test_a_terminal_without_unicode(trained_once: Project) -> None:
    ran = trained_once.trainer("show", "latest", env={"PYTHONIOENCODING": "ascii"})
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "\\u2" in ran.stdout
