"""What every backend that deploys models must do, through the command line: real services, real HTTP.

A backend's test file subclasses :class:`DeployContract` and adds its fixtures. The tests of a class share one service,
and are written to be run in their order.
"""

from __future__ import annotations

import io
import json
import re
import threading
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.serving.conftest import Answered, request, write_model
from trainer.backend import Backend
from trainer.cli import main
from trainer.job import DataRecord, TrainingJob
from trainer.records import RunStatus
from trainer.runfolder import RunFolder
from trainer.serving.network import NetworkScorer
from trainer.serving.scoring import ModelFiles, Request
from trainer.snapshot import Snapshot
from trainer.trees import remove_tree

NAME = "deployed-digits"
SCRIPT = """
import json
import os
import chainer
import neighbour

def init():
    global files
    files = os.listdir(os.environ["AZUREML_MODEL_DIR"])

def run(data):
    numbers = json.loads(data)["data"]
    return {"chainer": chainer.__version__, "files": files, "word": neighbour.WORD, "sum": sum(numbers)}
"""
NETWORK = """
import chainer
import chainer.functions as F
import chainer.links as L

class Net(chainer.Chain):
    def __init__(self, classes):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(None, 2, 3)
            self.out = L.Linear(None, classes)

    def forward(self, x):
        return self.out(F.relu(self.conv(x)))

def make(shape, classes):
    return Net(classes)
"""
# The same network for --model-file, with its neighbour.
BUILDER = "from neighbour import CLASSES\nfrom othernet import Net\n\ndef build():\n    return Net(CLASSES)\n"
PICTURES = DataRecord(kind="pictures", shape=(3, 8, 6), classes=("apple", "lime", "plum"))
FAILING = "def init():\n    raise RuntimeError('the model is upside down')\n\n\ndef run(data):\n    return data\n"


class Ran(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Place:
    """A project, and the words that name a backend.

    Args:
        backend: The backend itself.
        words: What a command says for it.
    """

    def __init__(self, backend: Backend, words: tuple[str, ...]) -> None:
        self.backend, self.home, self.words = backend, backend.home, words
        self.home.project.mkdir(parents=True, exist_ok=True)
        (self.home.project / "pyproject.toml").touch()

    def trainer(self, *words: str) -> Ran:
        """Run a command in the project, in this process: the SDK takes seconds to import."""
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(self.home.project)
            code = main(list(words))
        return Ran(code, out.getvalue(), err.getvalue())

    def deploy(self, *words: str) -> Ran:
        """Run ``trainer deploy`` on the backend."""
        return self.trainer("deploy", *words, *self.words)

    def register(self, seed: int) -> Path:
        """Register a network with random weights as the next version of the model; returns its file."""
        run = RunFolder.create(self.home.runs, TrainingJob(script="train.py"), backend="local", snapshot="0" * 64)
        run.update(status=RunStatus.COMPLETED)
        file = write_model(run.outputs / "model.npz", seed)
        self.backend.store().register(run, NAME)
        return file

    def register_own(self, name: str, seed: int) -> RunFolder:
        """Register pictures' network of the user's own, with random weights; returns the run that it travelled with."""
        job = TrainingJob(script="train.py", data=PICTURES, network="net.py:make")
        run = RunFolder.create(self.home.runs, job, backend="local", snapshot="0" * 64)
        run.snapshot.mkdir(exist_ok=True)
        (run.snapshot / "net.py").write_text(NETWORK)
        run.update(status=RunStatus.COMPLETED, snapshot=Snapshot.load(run.snapshot).digest)
        random = np.random.default_rng(seed)
        sizes = {"conv/W": (2, 3, 3, 3), "conv/b": (2,), "out/W": (3, 2 * 6 * 4), "out/b": (3,)}
        arrays: dict[str, Any] = {key: random.normal(0, 0.2, size).astype("f") for key, size in sizes.items()}
        np.savez(run.outputs / "model.npz", **arrays)
        self.backend.store().register(run, name)
        return run

    def write(self, name: str, text: str) -> str:
        """Write a file of the project."""
        path = self.home.project / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return str(path)

    def ask(self, url: str, body: bytes, key: str = "") -> Answered:
        """Ask a service as any client would."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        return request(url, "POST", urlsplit(url).path, body, headers)


def native(file: Path, version: int, body: bytes) -> Any:
    """What ``trainer serve`` answers."""
    scorer = NetworkScorer(ModelFiles(f"{NAME}:{version}", NAME, version, file, file.parent))
    return json.loads(scorer.score(Request("POST", "", body, "application/json", [])).body)


class DeployContract:
    """The tests. A subclass overrides the fixture ``place``, of class scope.

    Attributes:
        keeps_connections: Whether a client notices nothing of an update; otherwise a connection may be reset, and what
            is answered is answered well.
    """

    keeps_connections: ClassVar[bool] = True

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls) -> Place:
        raise NotImplementedError("a subclass makes the place")

    @pytest.fixture(scope="class")
    @classmethod
    def models(cls, place: Place) -> list[Path]:
        return [place.register(seed) for seed in (1, 2)]

    @pytest.fixture(scope="class")
    @classmethod
    def deployed(cls, place: Place, models: list[Path]) -> Ran:
        ran = place.deploy(f"{NAME}:1", "--json")
        assert ran.code == 0, ran.err
        return ran

    @pytest.fixture(scope="class")
    @classmethod
    def keys(cls, place: Place, deployed: Ran) -> list[str]:
        ran = place.trainer("services", NAME, "--keys")
        assert ran.code == 0, ran.err
        return ran.out.split()

    def test_a_plan_starts_and_writes_nothing(self, place: Place, models: list[Path]) -> None:
        plan = place.deploy(NAME, "--name", "planned", "--dry-run", "--json")
        assert plan.code == 0, plan.err
        assert (plan.json["name"], plan.json["backend"]) == ("planned", place.backend.name)
        assert place.trainer("services", "--json").json == []
        assert not place.home.services.exists()

    def test_what_can_not_be_deployed_is_refused_first(self, place: Place, models: list[Path]) -> None:
        for words, code, said in (
            (("no-such-model",), 5, "no-such-model"),
            ((str(models[0]),), 2, "is a file"),
            ((NAME, "--name", "Not_A_Name"), 2, "not a valid name"),
            ((NAME, "--script", "missing.py"), 2, "no score script"),
            ((NAME, "--network", "missing.py:make"), 2, "no file missing.py"),
            ((NAME, "--network", f"{place.write('net.py', NETWORK)}:mkae"), 2, "no function 'mkae'"),
            ((NAME, "--network", "net.py:make", "--script", "score.py"), 2, "--network excludes"),
            ((NAME, "--input-shape", "3,8,6"), 2, "is for --model-file"),
            ((NAME, "--network", "net.py:make"), 2, "doesn't make the network of this model"),
            ((NAME, "--script", place.write("broken.py", "def init(:\n")), 2, "line 1 is not Python"),
            ((NAME, "--script", place.write("half.py", "def init():\n    pass\n")), 2, r"no run\(\)"),
        ):
            ran = place.deploy(*words)
            assert (ran.code, ran.out) == (code, ""), (words, ran.err)
            assert re.search(said, ran.err), ran.err
        assert place.trainer("services", "--json").json == []

    def test_a_deployed_model_is_healthy_and_recorded(self, place: Place, deployed: Ran) -> None:
        service = deployed.json
        assert (service["name"], service["state"], service["model"]) == (NAME, "Healthy", f"{NAME}:1")
        assert service["url"].startswith("http://127.0.0.1:")
        listed = place.trainer("services", "--json").json
        assert [(one["name"], one["backend"], one["state"]) for one in listed] == [
            (NAME, place.backend.name, "Healthy")
        ]
        assert place.trainer("services", NAME, "--json").json["url"] == service["url"]

    def test_keys_are_told_to_who_asks_alone(self, place: Place, deployed: Ran, keys: list[str]) -> None:
        assert len(set(keys)) == 2
        said = deployed.out + deployed.err
        for words in (("services",), ("services", NAME), ("services", NAME, "--log", "100")):
            ran = place.trainer(*words)
            assert ran.code == 0, ran.err
            said += ran.out + ran.err
        records = b"".join(path.read_bytes() for path in place.home.services.rglob("*.json"))
        assert not [key for key in keys if key in said or key.encode() in records]

    def test_only_the_keys_open_it(self, place: Place, deployed: Ran, keys: list[str]) -> None:
        url, body = deployed.json["url"], b'{"data": [%s]}' % b",".join([b"0.5"] * 784)
        assert [place.ask(url, body, key).status for key in keys] == [200, 200]
        assert [place.ask(url, body, key).status for key in ("", "wrong")] == [401, 401]

    def test_it_gives_what_serving_gives(self, place: Place, deployed: Ran, models: list[Path]) -> None:
        numbers = np.random.default_rng(0).random((3, 784), np.float32).tolist()
        body = json.dumps({"data": numbers})
        ran = place.trainer("score", NAME, "--data", place.write("numbers.json", body), "--json")
        assert ran.code == 0, ran.err
        assert ran.json == native(models[0], 1, body.encode())

    def test_pictures_are_classified_as_predict_does(self, place: Place, deployed: Ran, models: list[Path]) -> None:
        ink = np.full((40, 30), 250, np.uint8)
        ink[8:32, 12:17] = 20
        for name in ("one.png", "one.jpeg"):
            Image.fromarray(ink).save(place.home.project / name)
        ran = place.trainer("score", NAME, "one.png", "one.jpeg")
        assert ran.code == 0, ran.err
        head, *rows = ran.out.splitlines()
        assert head.split() == ["INPUT", "CLASS", "PROBABILITY", "NEXT"]
        predicted = place.trainer("predict", str(models[0]), "one.png", "one.jpeg").out.splitlines()[1:]
        assert [row.split() for row in rows] == [row.split() for row in predicted]

    def test_what_it_can_not_use_is_said(self, place: Place, deployed: Ran) -> None:
        for name, text, said in (
            ("short.json", '{"data": [[1, 2]]}', "holds 2 numbers"),
            ("text.json", '{"data"', "not JSON"),
            ("no.png", "text", "no PNG or JPEG"),
        ):
            words = [place.write(name, text)] if name.endswith(".png") else ["--data", place.write(name, text)]
            ran = place.trainer("score", NAME, *words)
            assert (ran.code, ran.out) == (2, ""), ran.err
            assert said in ran.err

    def test_a_name_that_is_taken_is_said(self, place: Place, deployed: Ran) -> None:
        ran = place.deploy(f"{NAME}:2")
        assert ran.code == 4, ran.err
        assert f"There is a service {NAME} already" in ran.err
        assert "--overwrite" in ran.err
        assert place.trainer("services", NAME, "--json").json["model"] == f"{NAME}:1"

    def test_an_update_drops_no_request(self, place: Place, deployed: Ran, keys: list[str], models: list[Path]) -> None:
        url, body = deployed.json["url"], json.dumps({"data": [0.5] * 784}).encode()
        before, after = (native(file, version, body) for version, file in enumerate(models, 1))
        over, answers, lost = threading.Event(), [], []

        def load() -> None:
            while not over.is_set():
                try:
                    answers.append(place.ask(url, body, keys[0]))
                except ConnectionError as error:
                    lost.append(error)

        clients = [threading.Thread(target=load) for _ in range(2)]
        for client in clients:
            client.start()
        try:
            updated = place.deploy(f"{NAME}:2", "--overwrite", "--json")
        finally:
            over.set()
            for client in clients:
                client.join()
        assert updated.code == 0, updated.err
        assert updated.json["url"] == url
        assert not lost or not self.keeps_connections, lost
        assert {answer.status for answer in answers} == {200}
        assert all(answer.json in (before, after) for answer in answers)
        assert place.ask(url, body, keys[0]).json == after
        assert place.trainer("services", NAME, "--keys").out.split() == keys

    def test_an_update_that_fails_leaves_what_there_is(self, place: Place, deployed: Ran, keys: list[str]) -> None:
        ran = place.deploy(f"{NAME}:1", "--script", place.write("failing.py", FAILING), "--overwrite")
        assert (ran.code, ran.out) == (1, ""), ran.err
        assert "RuntimeError: the model is upside down" in ran.err  # the log's end
        answer = place.ask(deployed.json["url"], json.dumps({"data": [0.5] * 784}).encode(), keys[0])
        assert (answer.status, answer.json["model"]) == (200, f"{NAME}:2")

    def test_a_script_of_ones_own_runs_with_its_neighbours(self, place: Place, deployed: Ran) -> None:
        place.write("own/neighbour.py", "WORD = 'beside'\n")
        script = place.write("own/score.py", SCRIPT)
        updated = place.deploy(NAME, "--script", script, "--overwrite", "--json")
        assert updated.code == 0, updated.err
        assert updated.json["script"] == "score.py"
        ran = place.trainer("score", NAME, "--data", place.write("data.json", '{"data": [1, 2, 3]}'))
        assert ran.code == 0, ran.err
        assert ran.json == {"chainer": "7.8.1", "files": ["model.npz"], "word": "beside", "sum": 6}
        failed = place.trainer("score", NAME, "--data", place.write("data.json", '{"data": "text"}'))
        assert failed.code == 1
        assert "500" in failed.err
        assert "TypeError" in place.trainer("services", NAME, "--log", "50").out

    def test_a_key_is_renewed_alone(self, place: Place, deployed: Ran, keys: list[str]) -> None:
        ran = place.trainer("services", NAME, "--new-key", "primary")
        assert (ran.code, ran.out) == (0, ""), ran.err
        primary, secondary = place.trainer("services", NAME, "--keys").out.split()
        assert (secondary, primary in keys) == (keys[1], False)
        url, body = deployed.json["url"], b'{"data": [1]}'
        answers = {key: place.ask(url, body, key).status for key in (keys[0], primary, secondary)}
        assert list(answers.values()) == [401, 200, 200]
        assert place.trainer("services", "--new-key", "primary").code == 2

    def test_a_first_deployment_that_fails_is_shown_as_failed(self, place: Place, models: list[Path]) -> None:
        ran = place.deploy(NAME, "--name", "failing", "--script", place.write("failing.py", FAILING))
        assert (ran.code, ran.out) == (1, ""), ran.err
        assert "RuntimeError: the model is upside down" in ran.err
        shown = place.trainer("services", "failing", "--json").json
        assert (shown["state"], shown["url"]) == ("Failed", None)
        assert shown["error"]
        asked = place.trainer("score", "failing", "--data", place.write("data.json", "{}"))
        assert asked.code == 4
        assert "is Failed and can't be asked" in asked.err
        assert place.trainer("undeploy", "failing").code == 0

    def test_a_network_of_ones_own_travels_with_the_record(self, place: Place, models: list[Path]) -> None:
        picture = np.random.default_rng(6).integers(0, 255, (8, 6, 3)).astype(np.uint8)
        Image.fromarray(picture).save(place.home.project / "fruit.png")
        name = f"fruit-{place.backend.name}"  # the backends of Azure share a registry
        own = ("--network", f"{place.write('net.py', NETWORK)}:make")

        def check(version: int, network: str) -> None:
            assert place.trainer("services", name, "--json").json["network"] == network
            scored = place.trainer("score", name, "fruit.png", "--json")
            assert scored.code == 0, scored.err
            predicted = place.trainer("predict", f"{name}:{version}", "fruit.png", *own, *place.words, "--json")
            assert predicted.code == 0, predicted.err
            [found], [wanted] = scored.json["predictions"], predicted.json
            assert (scored.json["model"], found["name"]) == (f"{name}:{version}", wanted["name"])
            assert found["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-6)

        place.register_own(name, 1)
        deployed = place.deploy(name)
        assert deployed.code == 0, deployed.err
        check(1, "net.py:make")

        remove_tree(place.register_own(name, 2).path)
        refused = place.deploy(name, "--overwrite")
        assert (refused.code, "--network FILE.py:NAME" in refused.err) == (5, True), refused.err
        check(1, "net.py:make")

        place.write("nets/othernet.py", NETWORK)
        place.write("nets/neighbour.py", "CLASSES = 3\n")
        builder = f"{place.write('nets/builder.py', BUILDER)}:build"
        updated = place.deploy(name, "--model-file", builder, "--input-shape", "3,8,6", "--overwrite")
        assert updated.code == 0, updated.err
        check(2, "builder.py:build")
        assert place.trainer("undeploy", name).code == 0

    def test_what_is_removed_is_gone_and_can_be_removed_again(self, place: Place, deployed: Ran) -> None:
        assert place.trainer("undeploy", NAME, "--json").json["deleted"] is True
        with pytest.raises(ConnectionError):
            place.ask(deployed.json["url"], b"{}")
        again = place.trainer("undeploy", NAME, *place.words, "--json")
        assert (again.code, again.json["deleted"]) == (0, False)
        assert place.trainer("services", "--json").json == []
        assert place.trainer("services", NAME, *place.words).code == 5
        assert not list(place.home.services.rglob("service.json"))
