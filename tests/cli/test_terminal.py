"""What reaches a terminal: a live line and colours, and nothing of what a script or a name could do to it."""

import json
import os
import pty
import re
import select
import subprocess
import unicodedata
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, Project

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# What rich draws the live line with: the cursor hidden and shown, a line up, the line erased.
LIVE = re.compile(r"\x1b\[\?25[lh]|\x1b\[1A|\x1b\[2K|\r")
TITLE, CLEAR, CLIPBOARD = "\x1b]0;owned\x07", "\x1b[2J\x1b[1;1H", "\x1b]52;c;b3duZWQ=\x07"
HOSTILE = f"{TITLE}{CLEAR}{CLIPBOARD}\x9b2J\x1b[31m\u202e"
SCRIPT = f"""
import json, os, sys
import numpy as np
hostile = {HOSTILE!r}
os.makedirs("outputs", exist_ok=True)
open("outputs/" + hostile.replace("/", "") + "\\nFAKE", "w").close()
open(b"outputs/latin-\\xe9", "w").close()
np.savez("outputs/model.npz", weights=np.zeros(3, np.float32))
with open(os.environ["TRAINER_RUN_DIR"] + "/metrics.jsonl", "a") as stream:
    for step in (1, 2):
        stream.write(json.dumps({{"name": "m\\n" + hostile, "value": step, "step": step, "time": 1}}) + "\\n")
print("a line" + hostile)
print("10%\\r99%")
if len(sys.argv) > 1:
    raise ValueError("failed: " + hostile + "\\nerror: forged")
"""


def run_on_terminal(project: Project, words: list[str], code: int = 0, **environment: str) -> str:
    """What a command shows on a terminal of 100 columns."""
    main, end = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *words],
        cwd=project.path,
        env=project.environment | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"} | environment,
        stdin=subprocess.DEVNULL,
        stdout=end,
        stderr=end,
        close_fds=True,
    )
    os.close(end)
    seen = b""
    while True:
        ready, _, _ = select.select([main], [], [], 0.2)
        if ready:
            try:
                chunk = os.read(main, 65536)
            except OSError:
                break
            if not chunk:
                break
            seen += chunk
    os.close(main)
    assert process.wait(60) == code
    return seen.decode()


def test_a_terminal_gets_a_live_line_and_colours(project: Project) -> None:
    words = ["run", "--dataset", str(project.data), "--epochs", "2", "--seed", "1"]
    seen = run_on_terminal(project, words)
    assert "━" in seen
    assert "\x1b[32mCompleted\x1b[0m" in seen
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    assert re.search(r"epoch 2/2  train loss \d", plain)
    assert not re.search(r"\x1b\[[0-9;]*m", run_on_terminal(project, ["runs"], NO_COLOR="1"))


def test_doctor_breaks_its_lines_between_words(project: Project) -> None:
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", run_on_terminal(project, ["doctor"], COLUMNS="60")).splitlines()
    assert any(line.lstrip().startswith("fix: ") for line in lines)
    assert [line for line in lines if len(line) > 60 and "/" not in line] == []


def test_a_log_cannot_drive_the_terminal(project: Project) -> None:
    name = project.script("print('\\x1b]0;owned\\x07safe\\x1b[2J text \\x1b[31mred\\x1b[0m')\n")
    assert project.trainer("run", "--script", name, "--no-logs").returncode == 0
    seen = run_on_terminal(project, ["logs", "latest"])
    assert "owned" not in seen
    assert "\x1b[2J" not in seen
    assert "safe text \x1b[31mred" in seen
    # Piped, a log is what the script wrote.
    assert "\x1b]0;owned\x07" in project.trainer("logs", "latest").stdout


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> tuple[Project, dict[str, str]]:
    """A project with two runs that try everything, and their ids by status."""
    top = tmp_path_factory.mktemp("hostile")
    project = Project(top / "project", tiny_data, top)
    words = ("run", "--script", project.script(SCRIPT), "--tag", f"n{HOSTILE}=v{HOSTILE}")
    assert project.trainer(*words, "--", "fail").returncode == 1
    completed = project.trainer(*words, "--json")
    assert json.loads(completed.stdout)["model"]["version"] == 1, completed.stderr
    listed = json.loads(project.trainer("runs", "--json").stdout)
    return project, {info["status"].upper(): info["run_id"] for info in listed}


def effective(seen: str) -> list[str]:
    """Characters that a terminal would act upon, but for colours and the live line."""
    rest = LIVE.sub("", COLOUR.sub("", seen))
    controls = [letter for letter in rest if unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\n\t"]
    return controls + [letter for letter in rest if unicodedata.bidirectional(letter) in ("RLO", "LRO", "RLE", "LRE")]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["run", "--script", "script.py", "--tag", f"n{HOSTILE}=v{HOSTILE}"], 0),
        (["run", "--script", "script.py", "--", "fail"], 1),
        (["run", "--script", "script.py", "--no-logs", "--", "fail"], 1),
        (["run", "--script", "script.py", "--dry-run", "--", HOSTILE], 0),
        (["run", "--script", f"{HOSTILE}.py"], 2),
        (["run", f"--{HOSTILE}"], 2),
        (["runs"], 0),
        (["runs", "--json"], 0),
        (["show", "FAILED"], 0),
        (["show", "COMPLETED"], 0),
        (["show", "COMPLETED", "--json"], 0),
        (["show", HOSTILE], 5),
        (["logs", "FAILED"], 0),
        (["logs", "FAILED", "--json"], 0),
        (["attach", "FAILED"], 1),
        (["attach", "FAILED", "--json"], 1),
        (["attach", "COMPLETED", "--logs"], 0),
        (["cancel", "FAILED", "--json"], 0),
        (["models"], 0),
        (["models", "script"], 0),
        (["models", "script", "--json"], 0),
        (["models", HOSTILE], 2),
        (["fetch", "latest", "-o", f"to-{HOSTILE.replace('/', '')}"], 0),
        (["evaluate", "latest"], 2),
        (["evaluate", f"./{HOSTILE}.npz"], 5),
        (["predict", "latest", f"{HOSTILE}.png"], 2),
        (["data", "verify", f"/nowhere/{HOSTILE}"], 2),
        ([HOSTILE], 2),
    ],
    ids=lambda value: "_".join(value).replace(HOSTILE, "HOSTILE") if isinstance(value, list) else "",
)
def test_nothing_but_colours_reaches_a_terminal(
    hostile: tuple[Project, dict[str, str]], words: list[str], code: int
) -> None:
    project, runs = hostile
    seen = run_on_terminal(project, [runs.get(word, word) for word in words], code)
    assert effective(seen) == []
    assert "\nFAKE" not in seen
    assert "\nerror: forged" not in seen.replace("\r", "").partition("Full log")[2]


def test_what_was_cleaned_is_still_told(hostile: tuple[Project, dict[str, str]]) -> None:
    project, runs = hostile
    seen = run_on_terminal(project, ["show", runs["COMPLETED"]])
    assert r"\x1b]0;owned\x07" in seen
    assert r"\u202e\nFAKE" in seen
    assert r"latin-\udce9" in seen
    assert r"m\n\x1b]0;owned\x07" in seen


def test_json_holds_the_names_as_they_are(hostile: tuple[Project, dict[str, str]]) -> None:
    project, runs = hostile
    shown = json.loads(project.trainer("show", runs["COMPLETED"], "--json").stdout)
    assert shown["metrics"]["m\n" + HOSTILE] == 2
    assert {"latin-\udce9", HOSTILE + "\nFAKE"} <= set(shown["files"])
    name, _, value = f"n{HOSTILE}=v{HOSTILE}".partition("=")
    assert shown["tags"] == {name: value}
