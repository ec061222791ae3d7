"""Models of the user's own data and networks, by the record that travels with them."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser import CHROMIUM, Browser
from tests.cli.conftest import Project
from tests.serving.conftest import Served

NAMES = ("apple", "lime", "plum")
NET = """
import chainer
import chainer.functions as F
import chainer.links as L

class Net(chainer.Chain):
    def __init__(self, n_out):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(None, 2, 3)
            self.out = L.Linear(None, n_out)

    def forward(self, x):
        return self.out(F.relu(self.conv(x)))

def make(shape, n_out):
    return Net(n_out)
"""


def register(project: Project, name: str, arrays: dict[str, Any], data: Any) -> None:
    """Register arrays with a record of the data that they were trained on."""
    from backends.local_store import LocalStore
    from trainer.job import TrainingJob
    from trainer.records import RunStatus
    from trainer.runfolder import RunFolder

    home = project.path / ".trainer"
    job = TrainingJob(script="chainer_mnist.py", dataset=name, data=data)
    run = RunFolder.create(home / "runs", job, backend="local", snapshot="0" * 64)
    run.update(status=RunStatus.COMPLETED)
    np.savez(run.outputs / "model.npz", **arrays)
    LocalStore(home / "models").register(run, name)


def layers(*shapes: tuple[int, int]) -> dict[str, Any]:
    random = np.random.default_rng(3)
    weights = {f"l{number}/W": random.normal(0, 0.2, shape) for number, shape in enumerate(shapes, 1)}
    biases = {f"l{number}/b": random.normal(0, 0.2, shape[0]) for number, shape in enumerate(shapes, 1)}
    return {name: array.astype(np.float32) for name, array in (weights | biases).items()}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Models of pictures (``fruit``), of a network of its own (``fruit-net``) and of a table (``flowers``)."""
    from trainer.job import DataRecord

    top = tmp_path_factory.mktemp("own")
    project = Project(top / "project", top, top)
    pictures = DataRecord(kind="pictures", shape=(3, 8, 6), classes=NAMES)
    register(project, "fruit", layers((5, 3 * 8 * 6), (3, 5)), pictures)
    random = np.random.default_rng(4)
    sizes = {"conv/W": (2, 3, 3, 3), "conv/b": (2,), "out/W": (3, 2 * 6 * 4), "out/b": (3,)}
    register(
        project, "fruit-net", {name: random.normal(0, 0.2, size).astype("f") for name, size in sizes.items()}, pictures
    )
    table = DataRecord(
        kind="table",
        shape=(2,),
        classes=("iris", "rose"),
        columns=("width", "length"),
        mean=(10.0, -2.0),
        scale=(4.0, 0.5),
    )
    register(project, "flowers", layers((2, 2)), table)
    project.script(NET, "net.py")
    random = np.random.default_rng(5)
    # Of another size, and partly transparent.
    Image.fromarray(random.integers(0, 255, (50, 33, 4)).astype(np.uint8)).save(project.path / "picture.png")
    return project


def serving(project: Project, *words: str) -> Iterator[Served]:
    served = Served(project, *words)
    try:
        yield served
    finally:
        served.close()


@pytest.fixture(scope="module")
def fruit(project: Project) -> Iterator[Served]:
    yield from serving(project, "fruit")


def predicted(project: Project, *words: str) -> dict[str, Any]:
    done = project.trainer("predict", *words, "--json")
    assert done.returncode == 0, done.stderr
    [found] = json.loads(done.stdout)
    return found


def same(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    [found] = answer["predictions"]
    assert (found["class"], found["name"]) == (expected["class"], expected["name"])
    assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-6)


def test_pictures_are_read_as_for_predict_and_classes_have_names(project: Project, fruit: Served) -> None:
    picture = (project.path / "picture.png").read_bytes()
    expected = predicted(project, "fruit", "picture.png")
    same(fruit.score(picture, "image/png").json, expected)
    text = json.dumps({"images": [base64.b64encode(picture).decode()]}).encode()
    same(fruit.score(text).json, expected)
    Image.open(project.path / "picture.png").convert("RGB").save(project.path / "picture.bmp")
    bitmap = (project.path / "picture.bmp").read_bytes()
    same(fruit.score(bitmap, "image/bmp").json, predicted(project, "fruit", "picture.bmp"))


def test_score_prints_what_predict_prints(project: Project) -> None:
    expected = project.trainer("predict", "fruit", "picture.png").stdout.replace("EXAMPLE", "INPUT  ")
    deployed = project.trainer("deploy", "fruit")
    assert deployed.returncode == 0, deployed.stderr
    try:
        scored = project.trainer("score", "fruit", "picture.png")
        assert scored.stdout == expected, scored.stderr
        assert set(NAMES) & set(scored.stdout.split())
    finally:
        project.trainer("undeploy", "fruit")


def test_numbers_are_taken_flat_and_nested(project: Project, fruit: Served) -> None:
    inputs = np.random.default_rng(6).random((2, 3, 8, 6), np.float32)
    bodies = [json.dumps({"data": value.tolist()}).encode() for value in (inputs, inputs.reshape(2, -1))]
    nested, flat = (fruit.score(body).json for body in bodies)
    raw = fruit.score(inputs.tobytes(), "application/octet-stream").json
    assert nested == flat == raw
    assert [found["name"] for found in raw["predictions"]] == [NAMES[found["class"]] for found in raw["predictions"]]


def test_what_is_no_picture_is_refused_with_a_reason(fruit: Served) -> None:
    for body in (b"\x89PNG\r\n\x1a\nbroken", b"GIF89a\x00", b"BM" + bytes(60), b"RIFF\x04\x00\x00\x00WEBP"):
        answer = fruit.score(body, "image/png")
        assert answer.status == 400, answer
        assert "Picture 0" in answer.json["message"]


def test_the_description_has_the_shapes_and_names(fruit: Served) -> None:
    schemas = fruit.ask("GET", "/openapi.json").json["components"]["schemas"]
    one = schemas["ServiceInput"]["properties"]["data"]["items"]
    assert one["minItems"] == one["maxItems"] == 3 * 8 * 6
    assert "3x8x6" in one["description"]
    prediction = schemas["ServiceOutput"]["properties"]["predictions"]["items"]["properties"]
    assert prediction["name"]["enum"] == list(NAMES)
    assert schemas["ServiceOutput"]["properties"]["classes"]["type"] == "array"


def test_a_network_of_its_own(project: Project) -> None:
    expected = predicted(project, "fruit-net", "picture.png", "--network", "net.py:make")
    for served in serving(project, "fruit-net", "--network", "net.py:make"):
        same(served.score((project.path / "picture.png").read_bytes(), "image/png").json, expected)
        assert "net.py" not in served.score(b"{}").json["message"]


def test_a_tables_rows_are_scaled_as_in_training(project: Project) -> None:
    (project.path / "row.csv").write_text("length,width\n-1.5,13\n")
    expected = predicted(project, "flowers", "row.csv")
    for served in serving(project, "flowers"):
        same(served.score(b'{"data": [[13, -1.5]]}').json, expected)
        assert served.score(b"\x89PNG\r\n\x1a\n", "image/png").status == 415
        schema = served.ask("GET", "/openapi.json").json["components"]["schemas"]["ServiceInput"]["properties"]
        assert "width, length" in schema["data"]["items"]["description"]
        assert "images" not in schema


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_page_takes_pictures(project: Project, fruit: Served, tmp_path: Path) -> None:
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(f"{fruit.url}/#key={fruit.key}")
        browser.until("document.title === 'Classify a picture'")
        document = browser.call("DOM.getDocument")["root"]["nodeId"]
        chooser = browser.call("DOM.querySelector", nodeId=document, selector="#picture")["nodeId"]
        browser.call("DOM.setFileInputFiles", nodeId=chooser, files=[str(project.path / "picture.png")])
        browser.until("document.querySelector('#answer').textContent")
        expected = predicted(project, "fruit", "picture.png")["name"]
        assert browser.value("document.querySelector('#answer').textContent").startswith(expected)
        labels = browser.value(
            "[...document.querySelectorAll('#bars li span:first-child')].map(each => each.textContent)"
        )
        assert labels == list(NAMES)
        assert browser.console == []
    finally:
        browser.close()
