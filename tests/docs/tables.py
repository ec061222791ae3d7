"""How each block of the pages is run, and why some are not."""

from __future__ import annotations

WHOLE = ("index", "python", "own-data", "tutorial")
"""Pages whose blocks in sh and python are run as they stand, in the page's order, in an empty folder."""

WORDS = {
    "RUN": "{run}",
    "OTHER": "{other}",
    "STUDY": "{study}",
    "[NAME]": "chainer-dnn-mnist",
    "NAME[:VERSION]": "chainer-dnn-mnist:1",
    "NAME:VERSION": "chainer-dnn-mnist:2",
    "MODEL": "chainer-dnn-mnist",
    "IMAGE...": "digit.png",
}
"""What stands for the words in capitals."""

MORE = {
    "trainer resume RUN": "trainer resume RUN -- --epochs 3",
    "trainer clean --older-than 30d": "trainer clean --older-than 30d --yes",
    "trainer clean --status failed": "trainer clean --status failed --yes",
    "trainer clean --keep-best 5 --by accuracy": "trainer clean --keep-best 5 --by accuracy --yes",
    "trainer delete RUN": "trainer delete RUN --force",
    "trainer tune --resume STUDY": "trainer tune --resume STUDY --trials 3",
    # As many trials as show that it works.
    'trainer tune --space "lr=log:1e-3..0.3" --space "batchsize=128,256" --space "units=int:50..400:50" --trials 12 '
    "--parallel 2": 'trainer tune --space "lr=log:1e-3..0.3" --space "batchsize=128,256" --trials 2 --parallel 2 '
    "--dataset mnist-5k -- --epochs 1",
    "trainer tune --space lr=log:1e-3..0.3 --trials 12": "trainer tune --space lr=log:1e-3..0.3 --trials 2 "
    "--dataset mnist-5k -- --epochs 1",
}
"""Commands that are run with something added, or with less work."""

ACCOUNT, CARD, INDEX = "needs an account", "needs a card", "needs a package index"
MINUTES, SERVES = "takes minutes", "serves until it is stopped"

NOT_RUN = {
    "trainer run --backend azureml": ACCOUNT,
    "trainer run --backend azureml-v2": ACCOUNT,
    "trainer run --backend azureml-v2 --script train.py --dry-run": ACCOUNT,
    "trainer run --backend azureml-v2 --script train.py --detach -- --epochs 10": ACCOUNT,
    "trainer run --backend azureml-v2 --compute cheap-cluster --vm-priority lowpriority": ACCOUNT,
    "trainer run --script train.py --max-restarts 3 --checkpoints 'checkpoints/*'": "tests/backends",
    "trainer run --device cuda": CARD,
    "trainer run --device cuda:1": CARD,
    "trainer run --processes-per-node 2 --device cuda": CARD,
    "trainer logs RUN --rank 1 --follow": "needs a run of several processes: tests/backends/test_local_ranks.py",
    "trainer data download mnist": "needs a network",
    "trainer data verify mnist": "needs MNIST",
    "trainer view": f"{SERVES}: tests/view",
    "trainer serve chainer-dnn-mnist": f"{SERVES}: tests/serving",
    "trainer serve chainer-dnn-mnist --script score.py": f"{SERVES}: tests/serving",
    "trainer serve ./outputs/model.npz --model-file net.py:make --input-shape 1,28,28": f"{SERVES}: tests/serving",
    "trainer deploy chainer-dnn-mnist": f"{SERVES}: tests/backends/test_local_services.py",
    "trainer deploy chainer-dnn-mnist --backend azureml-v2": ACCOUNT,
    "trainer deploy chainer-dnn-mnist --backend azureml-v2 --emulator": f"{SERVES}: tests/backends",
    "trainer deploy fruit": f"{SERVES}: tests/contract/deploy_contract.py",
    "trainer deploy fruit --network net.py:make": f"{SERVES}: tests/contract/deploy_contract.py",
    "trainer deploy digits --model-file net.py:build --input-shape 1,28,28": f"{SERVES}: tests/contract",
    "trainer score chainer-dnn-mnist digit.png": "needs such a service: tests/backends/test_local_services.py",
    "trainer run --processes-per-node 2 --script train_mnist.py -- --communicator naive": "needs ChainerMN's example: "
    "tests/backends/test_local_ranks.py",
    "trainer serve fruit": f"{SERVES}: tests/serving",
    "trainer export ./outputs/model.npz --format onnx --model-file net.py:make --input-shape 1,28,28": "tests/export",
    "trainer attach STUDY": "follows a study that is under way: tests/tune",
    "trainer cancel STUDY": "stops a study that is under way: tests/tune",
    'trainer tune --backend azureml-v2 --space "batchsize=128,256" --space "epochs=5,10,20,40" --trials 8 --parallel 4 '
    "--stop bandit:slack=0.1,delay=3": ACCOUNT,
    "trainer attach latest": "follows a run that is under way: tests/cli",
}
"""Commands that are parsed and not run, and why."""

# What `trainer export` wrote of the newest version, under the name that it has where there is one.
_LATEST = (
    "import glob, os\nif not os.path.exists('chainer-dnn-mnist-1.{ending}'):\n"
    "    os.symlink(glob.glob('chainer-dnn-mnist-*.{ending}')[0], 'chainer-dnn-mnist-1.{ending}')\nTEXT"
)
PYTHON = {
    ("artifacts", "from pathlib import Path"): "import shutil; shutil.copy('digit.png', 'seven.png')\nTEXT",
    ("compat", 'with numpy.load("model.npz", allow_pickle=False) as npz:'): (
        "import trainer.runtime.compat.auto, numpy, chainer\n"
        "model = chainer.links.Linear(3, 2)\nchainer.serializers.save_npz('model.npz', model)\nTEXT"
    ),
    ("data", "def write_idx(path, values):  # uint8, (N, rows, columns) or (N,)"): (
        "import pathlib, struct, numpy\nTEXT\nwrite_idx('x', numpy.ones((2, 3, 3), numpy.uint8))\n"
        "from trainer.runtime.datasets import idx\nassert idx.read(pathlib.Path('x'), 3).sum() == 18"
    ),
    ("data", "from trainer.runtime import datasets"): "TEXT",
    ("emulator", "from azureml_emulator import Emulator"): (
        "import os, subprocess, sys\nopen('submit.py', 'w').write("
        "'from azureml.core import Workspace; print(Workspace.from_config().name)')\nTEXT"
    ),
    ("emulator", "emulator.set_faults("): (
        "from azureml_emulator import Emulator, FaultRule\nwith Emulator() as emulator:\n    INDENTED"
    ),
    ("azureml-emulator", "from azureml_emulator import Emulator"): (
        "import os, subprocess, sys\nopen('submit.py', 'w').write("
        "'from azureml.core import Workspace; print(Workspace.from_config().name)')\nTEXT"
    ),
    ("azureml-emulator", "from azureml_emulator import Settings, find, start_in_background"): (
        "import subprocess\nTEXT\nsubprocess.run(['azureml-emulator', '--state', './emulator', '--stop'], check=True)"
    ),
    ("evictions", "import os"): "TEXT",
    ("export", "import numpy as np"): _LATEST.format(ending="onnx"),
    ("export", "from safetensors.numpy import load_file"): _LATEST.format(ending="safetensors"),
    ("seeing", "from trainer import runtime as rt"): "loss = accuracy = 0.5\nTEXT",
}
"""Blocks of Python outside those pages, and the program that each stands in."""

OTHER = {
    ("azureml", "pip install 'chainer-trainer[azureml-v2]'"): INDEX,
    ("artifacts", ".trainer/models/<name>/<version>/model.npz"): "a list of files",
    ("artifacts", "Accuracy"): "what a command prints",
    (
        "compat",
        "python -m trainer.runtime.launch train.py --my-flag 3     # any script, unchanged",
    ): "tests/runtime/test_launch.py",
    ("compat", "git clone --branch v7.8.1 https://github.com/chainer/chainer"): MINUTES,
    ("compat", "python tests/upstream/run.py chainer --ranks 2"): MINUTES,
    (
        "data",
        "train-images-idx3-ubyte   train-labels-idx1-ubyte   t10k-images-idx3-ubyte   t10k-labels-idx1-ubyte",
    ): "names",
    ("distributed", "error: Run 20261126-121720-7m3fz7 failed: rank 1: ValueError: no such thing"): "what it prints",
    ("emulator", '$ eval "$(azureml-emulator --state ./emulator --print-env)"'): "tests/emulator/test_command.py",
    ("emulator", "def test_training(azureml_emulator, tmp_path):"): "tests/emulator/test_command.py",
    (
        "deploying",
        "url=$(trainer services chainer-dnn-mnist --json | "
        """python -c 'import json, sys; print(json.load(sys.stdin)["url"])')""",
    ): "tests/backends/test_local_services.py",
    ("emulator", 'endpoint = ManagedOnlineEndpoint(name="digits", auth_mode="key")'): "tests/emulator",
    ("emulator", 'env = Environment.from_conda_specification("scoring", "conda.yml")'): "tests/emulator",
    ("gpu", "bash scripts/gpu_check.sh prepare    # once, with a package index; needs no card"): INDEX,
    ("performance", "python -m bench --data DIR            # DIR: MNIST's four gzipped files"): MINUTES,
    ("performance", "uv pip install torch --torch-backend cpu"): INDEX,
    ("performance", "updater = rt.compiled(updater)"): "a line of the included script",
    ("performance", "uv run python -m bench --data DIR --part serve"): MINUTES,
    ("reliability", "uv run python -m tests.drills"): MINUTES,
    ("seeing", "from trainer import notebook"): "needs a notebook: tests/cli",
    (
        "serving",
        'curl -H "Authorization: Bearer $(head -1 .trainer/serving/key)" --data-binary @digit.png '
        "http://127.0.0.1:5001/score",
    ): "tests/serving",
    ("tuning", "[tool.trainer.tune]"): "tests/tune",
    ("tuning", ".trainer/studies/<study id>/"): "a list of files",
    ("README", "pip install uv && uv run trainer run --backend local"): INDEX,
    ("README", "pip install uv && uv run trainer run --backend azureml --emulator"): INDEX,
    ("README", "pip install uv && uv run pytest"): INDEX,
    (
        "README",
        ".trainer/runs/<run id>/              job.json  status.json  metrics.jsonl  logs/  snapshot/  outputs/",
    ): "files",
    ("CONTRIBUTING", "git clone <this repository> && cd trainer"): INDEX,
    ("CONTRIBUTING", "[build-system]"): "tests/contract/test_plugin.py",
    ("CONTRIBUTING", "import os, shutil, signal, subprocess, sys, time"): "tests/contract/test_plugin.py",
    ("azureml-emulator", "pip install ./azureml-emulator"): INDEX,
    ("azureml-emulator", "pip install ./azureml-emulator azureml-core azureml-train-core"): INDEX,
    (
        "azureml-emulator",
        'eval "$(azureml-emulator --state ./emulator --print-env)"      # starts one in the background',
    ): "tests/emulator/test_command.py",
    ("azureml-emulator", "def test_training(azureml_emulator, tmp_path):"): "tests/emulator/test_command.py",
    (
        "azureml-emulator",
        "azureml-emulator --state DIR                serve until Ctrl-C",
    ): "tests/emulator/test_command.py",
}
"""Blocks with nothing to run here, and where they are run or why they are not."""
