"""Run Chainer's own examples as they are, and write what each gave into docs/gallery.md.

::

    git clone --branch v7.8.1 https://github.com/chainer/chainer
    uv run --with nltk --with progressbar2 --with h5py --with librosa --with resampy --with tqdm --with pycocotools \
        --with gym==0.12.1 --with optuna==4.0.0 --with optuna-integration==4.0.0 scripts/gallery.py chainer --write

Each example is copied into a scratch folder, gets a stand-in for the data that it would download (gallery_data.py), and
is run by ``trainer run --script``. Nothing of the examples is changed. It takes half an hour on two cores, and 2 GB of
disk. ``--only TEXT`` runs some of them; the others' rows are then taken from the results that ``--results`` keeps.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import gallery_data

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "gallery.md"
BEGIN, END = "<!-- Written by scripts/gallery.py. -->", "<!-- End of what scripts/gallery.py writes. -->"
# A script's settings are no results.
_SETTINGS = {"Batch size", "Epochs"}
_METRICS_MOST = 3
_FIRST = ("Accuracy", "Training accuracy", "Validation loss", "Loss")


class Example(NamedTuple):
    """One of Chainer's examples.

    Attributes:
        script: Below ``examples``.
        arguments: Those of the script.
        flags: Those of ``trainer run``.
        data: The stand-ins that it gets, by their names in gallery_data.
        packages: What must be installed beside Chainer.
        after: An earlier example, a file of its outputs, and the name that the file gets beside this script.
        note: For the table.
    """

    script: str
    arguments: str = ""
    flags: str = ""
    data: tuple[str, ...] = ()
    packages: str = ""
    after: tuple[str, str, str] | None = None
    note: str = ""


MNIST = "--dataset mnist-5k"
NAIVE = "one process"
EXAMPLES = (
    Example("mnist/train_mnist.py", "--epoch 2 --unit 50 --out outputs", MNIST),
    Example("mnist/train_mnist_custom_loop.py", "--epoch 2 --unit 50 --out outputs", MNIST),
    Example(
        "mnist/inference.py",
        "--unit 50 --snapshot snapshot",
        MNIST,
        after=("mnist/train_mnist.py", "snapshot_iter_80", "snapshot"),
    ),
    Example("mnist/train_mnist_data_parallel.py", "--epoch 1", MNIST, note="two GPUs"),
    Example("mnist/train_mnist_data_parallel_updater.py", "--epoch 1", MNIST, note="GPUs and NCCL"),
    Example("mnist/train_mnist_model_parallel.py", "--epoch 1", MNIST, note="two GPUs"),
    Example("cifar/train_cifar.py", "--epoch 1 --out outputs", data=("cifar",)),
    Example("cifar/train_cifar_custom_loop.py", "--epoch 1 --test --out outputs", data=("cifar",)),
    Example("dcgan/train_dcgan.py", "--epoch 1 --display_interval 2 --out outputs", data=("cifar",)),
    Example("vae/train_vae.py", "--epoch 2 --dim-h 100 --out outputs", MNIST),
    Example("ptb/train_ptb.py", "--epoch 1 --unit 50 --out outputs --model outputs/model.npz", data=("ptb",)),
    Example("ptb/train_ptb_custom_loop.py", "--epoch 1 --unit 50 --out outputs", data=("ptb",)),
    Example(
        "ptb/gentxt.py",
        "--model model.npz --unit 50 --primetext the",
        data=("ptb",),
        after=("ptb/train_ptb.py", "model.npz", "model.npz"),
    ),
    Example("word2vec/train_word2vec.py", "--epoch 2 --out outputs", data=("ptb",)),
    Example(
        "seq2seq/seq2seq.py",
        "train.en train.fr vocab.en vocab.fr --validation-source dev.en --validation-target dev.fr "
        "--epoch 20 --unit 32 --layer 1 --log-interval 20 --validation-interval 40 --out outputs",
        data=("sentences",),
        packages="nltk progressbar2",
    ),
    Example("sentiment/train_sentiment.py", "--epoch 5 --epocheval 1 --out outputs", data=("trees",)),
    Example("sentiment/train_recursive_minibatch.py", "--epoch 5 --epocheval 1", data=("trees",)),
    Example("memnn/train_memnn.py", "qa1_train.txt qa1_test.txt --epoch 20 --model outputs", data=("babi",)),
    Example(
        "text_classification/train_text_classifier.py",
        "--dataset stsa.binary --model cnn --epoch 3 --unit 32 --out outputs",
        data=("reviews",),
        packages="numpy<2.4",
    ),
    Example(
        "text_classification/train_text_classifier.py",
        "--dataset custrev --model cnn --epoch 3 --unit 32 --out outputs",
        data=("reviews",),
        note="NumPy 1.24 refuses what it makes of a data set in one file",
    ),
    Example("pos/postagging.py", "--epoch 3 --out outputs", data=("brown",), packages="nltk"),
    Example("glance/glance.py"),
    Example("serialization/save.py", packages="h5py"),
    Example("static_graph_optimizations/mnist/train_mnist.py", "--epoch 2 --unit 50 --out outputs", MNIST),
    Example("static_graph_optimizations/mnist/train_mnist_custom_loop.py", "--epoch 2 --unit 50 --out outputs", MNIST),
    Example("static_graph_optimizations/cifar/train_cifar.py", "--epoch 1 --device -1 --out outputs", data=("cifar",)),
    Example(
        "static_graph_optimizations/cifar/train_cifar_custom_loop.py",
        "--epoch 1 --test --device -1 --out outputs",
        data=("cifar",),
    ),
    Example(
        "static_graph_optimizations/ptb/train_ptb_custom_loop.py",
        "--epoch 1 --test --unit 50 --device -1 --out outputs",
        data=("ptb",),
        note="a fault of its own: its iterator has no reset",
    ),
    Example(
        "imagenet/train_imagenet.py",
        "list.txt list.txt --root pictures --arch nin --batchsize 4 --val_batchsize 4 --epoch 1 --test --out outputs",
        data=("pictures",),
    ),
    Example(
        "imagenet/train_imagenet_data_parallel.py",
        "list.txt list.txt --root pictures --arch nin --batchsize 4 --epoch 1 --test",
        data=("pictures",),
        note="GPUs and NCCL",
    ),
    Example(
        "image_captioning/train.py",
        "--max-iters 2 --batch-size 2 --val-iter 2 --val-keep-quantity 5 --snapshot-iter 2 --out outputs",
        data=("captions", "vgg16"),
        packages="pycocotools",
    ),
    Example(
        "pix2pix/train_facade.py",
        "--epoch 1 --display_interval 2 --out outputs",
        "--max-minutes 3",
        data=("facades",),
        note="stopped: an epoch is 299 iterations",
    ),
    Example(
        "wavenet/train.py",
        "--batchsize 2 --length 2048 --epoch 1 --n_loop 1 --n_layer 4 --r_channels 16 --s_channels 16 "
        "--display_interval 2 --out outputs",
        data=("speech",),
        packages="librosa resampy",
        note="librosa 0.10 takes keywords where this has positions",
    ),
    Example(
        "reinforcement_learning/dqn_cartpole.py",
        "--episodes 30 --replay-start-size 100 --no-record --out outputs",
        packages="gym==0.12.1",
    ),
    Example(
        "reinforcement_learning/ddpg_pendulum.py",
        "--episodes 5 --replay-start-size 100 --no-record --out outputs",
        packages="gym==0.12.1",
    ),
    Example(
        "optuna/chainer_simple.py",
        "",
        f"{MNIST} --max-minutes 1",
        packages="optuna==4.0.0 optuna-integration==4.0.0",
        note="stopped: 100 trials",
    ),
    Example(
        "optuna/chainer_integration.py",
        "",
        f"{MNIST} --max-minutes 1",
        packages="optuna==4.0.0 optuna-integration==4.0.0",
        note="stopped: 100 trials",
    ),
    *(
        Example(
            f"optuna/chainermn_{name}.py",
            "digits sqlite:///study.db",
            f"{MNIST} --max-minutes 1",
            data=("study",),
            packages="optuna==4.0.0 optuna-integration==4.0.0 mpi4py mpich",
            note=f"{NAIVE}; stopped: 25 trials",
        )
        for name in ("simple", "integration")
    ),
    Example(
        "modelzoo/evaluate_caffe_net.py",
        "list.txt alexnet small.caffemodel --basepath pictures --mean mean.npy --batchsize 10",
        data=("caffe",),
    ),
    Example("caffe_export/export.py", "--arch vgg16 --out-dir outputs", data=("vgg16",)),
    Example(
        "chainermn/mnist/train_mnist.py",
        "--communicator naive --epoch 2 --unit 50 --out outputs",
        MNIST,
        packages="mpi4py mpich",
        note=NAIVE,
    ),
    Example(
        "chainermn/mnist/train_mnist_model_parallel.py",
        "--epoch 1 --unit 50 --out outputs",
        MNIST,
        packages="mpi4py mpich",
        note="two processes",
    ),
    Example(
        "chainermn/mnist/train_mnist_dual_parallel.py",
        "--epoch 1 --unit 50 --out outputs",
        MNIST,
        packages="mpi4py mpich",
        note="an even number of processes",
    ),
    Example(
        "chainermn/cifar/train_cifar.py",
        "--communicator naive --epoch 1 --out outputs",
        data=("cifar",),
        packages="mpi4py mpich",
        note="a fault of its own: a tuple for the number of classes",
    ),
    Example(
        "chainermn/dcgan/train_dcgan.py",
        "--communicator naive --epoch 1 --display_interval 2 --out outputs",
        data=("cifar",),
        packages="mpi4py mpich",
        note=NAIVE,
    ),
    Example(
        "chainermn/imagenet/train_imagenet.py",
        "list.txt list.txt --root pictures --arch nin --batchsize 4 --val_batchsize 4 --epoch 1 --test "
        "--communicator naive --out outputs",
        data=("pictures",),
        packages="mpi4py mpich",
        note="a GPU",
    ),
    Example(
        "chainermn/seq2seq/seq2seq.py",
        "--communicator naive --input wmt --unit 16 --batchsize 16 --stop 2e --out outputs",
        data=("wmt",),
        packages="mpi4py mpich nltk progressbar2",
        note="a fault of its own, after its training: an evaluator without an iterator",
    ),
    Example(
        "chainermn/parallel_convolution/train.py",
        "--epoch 1 --out outputs",
        data=("cifar",),
        packages="mpi4py mpich",
        note=NAIVE,
    ),
)


def main() -> int:
    """Run the examples, print a line for each, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("chainer", type=Path, help="a checkout of Chainer v7.8.1")
    parser.add_argument("--only", default="", help="those whose path has this text")
    parser.add_argument("--missing", action="store_true", help="only those that --results has not")
    parser.add_argument("--work", type=Path, help="the scratch folder, kept (default: one that is removed)")
    parser.add_argument("--results", type=Path, help="keep results here, and take from here what is not run")
    parser.add_argument("--write", action="store_true", help="write docs/gallery.md")
    options = parser.parse_args()
    if not (options.chainer / "examples").is_dir():
        parser.error(f"there is no folder {options.chainer / 'examples'}")
    results: dict[str, dict[str, Any]] = {}
    if options.results and options.results.is_file():
        results = json.loads(options.results.read_text())
    with tempfile.TemporaryDirectory(prefix="gallery-") as scratch:
        work = (options.work or Path(scratch)).resolve()
        for example in EXAMPLES:
            if options.only in key(example) and not (options.missing and key(example) in results):
                results[key(example)] = result = run(example, options.chainer.resolve() / "examples", work)
                print(f"{example.script}: {result['gave']} ({result['took']:.0f} s)", flush=True)
                if options.results:
                    options.results.write_text(json.dumps(results, indent=1))
    if options.write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{table(results)}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    return 0


def key(example: Example) -> str:
    """Return what tells an example from the others."""
    return f"{example.script} {example.arguments}".strip()


def run(example: Example, examples: Path, work: Path) -> dict[str, Any]:
    """Run one example, and say what it gave."""
    cache = work / "cache"
    folder = work / "examples" / Path(example.script).parent
    shutil.copytree(examples / Path(example.script).parent, folder, dirs_exist_ok=True)
    _make(example, folder, cache)
    if example.after:
        earlier, file, name = example.after
        outputs = Path((work / "outputs" / earlier.replace("/", "-")).read_text())
        if not (outputs / file).is_file():
            return {"ok": False, "gave": f"no {file} of {earlier}", "took": 0.0}
        shutil.copyfile(outputs / file, folder / name)
    environment = os.environ | {
        "TRAINER_HOME": str(work / ".trainer"),
        "TRAINER_DATA_MIRRORS": "off",
        "CHAINER_DATASET_ROOT": str(cache),
        "NLTK_DATA": str(cache / "nltk"),
        # Where the wheel of MPICH puts it; `uv run --with` makes an environment that doesn't look there.
        "MPI4PY_LIBMPI": str(ROOT / ".venv" / "lib" / "libmpi.so.12"),
    }
    arguments = [*shlex.split(example.flags), "--no-logs", "--json", "--", *shlex.split(example.arguments)]
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "run", "--script", str(folder / Path(example.script).name), *arguments],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.stdout.strip():
        return {"ok": False, "gave": done.stderr.strip().splitlines()[0], "took": 0.0}
    record = json.loads(done.stdout)
    kept = work / "outputs" / example.script.replace("/", "-")
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(record["outputs"])
    # A cap of ours is no fault of the example's.
    capped = "--max-minutes" in example.flags and bool(record["metrics"])
    ok = record["status"] == "Completed" or capped
    log = Path(record["outputs"]).parent / "logs" / "std_log.txt"
    gave = _metrics(record["metrics"]) if ok else record["failure"]["message"]
    return {"ok": ok, "gave": gave or _last_line(log), "took": record["ended"] - record["started"]}


def _make(example: Example, folder: Path, cache: Path) -> None:
    for name in example.data:
        if name in gallery_data.IN_CACHE:
            gallery_data.IN_CACHE[name](cache)
        else:
            gallery_data.BESIDE[name](folder)


def _metrics(metrics: dict[str, float | None]) -> str:
    names = sorted((name for name in metrics if name not in _SETTINGS), key=_order)
    found = [f"{name} {'nan' if metrics[name] is None else format(metrics[name], '.3g')}" for name in names]
    return ", ".join(found[:_METRICS_MOST])


def _order(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


def _last_line(log: Path) -> str:
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", log.read_text("utf-8", "replace"))
    lines = [line.strip() for line in text.splitlines() if re.search(r"\w", line)]
    return f"prints `{lines[-1][:60]}`" if lines else "nothing"


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the tables of the page."""
    ran = [row for row in EXAMPLES if results.get(key(row), {}).get("ok")]
    failed = [row for row in EXAMPLES if key(row) in results and row not in ran]
    lines = [
        f"{len(ran)} of {len(ran) + len(failed)} run; those that are marked as stopped were ended by `--max-minutes`:",
        "",
        "| example | `trainer run --script EXAMPLE` and | needs | gave | seconds |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in ran:
        result = results[key(row)]
        lines.append(f"| {_name(row)} | {_command(row)} | {_needs(row)} | {result['gave']} | {result['took']:.0f} |")
    lines += [
        "",
        "And these do not, on a machine without a GPU:",
        "",
        "| example | and | needs | ends with |",
        "| --- | --- | --- | --- |",
    ]
    for row in failed:
        text = results[key(row)]["gave"].replace("|", "\\|")
        lines.append(f"| {_name(row)} | {_command(row)} | {_needs(row)} | {text} |")
    return "\n".join(lines) + "\n"


def _name(row: Example) -> str:
    return f"`{row.script}`" + (f" ({row.note})" if row.note else "")


def _command(row: Example) -> str:
    arguments = f"-- {row.arguments}" if row.arguments else ""
    text = " ".join(part for part in (row.flags, arguments) if part)
    return f"`{text}`" if text else ""


def _needs(row: Example) -> str:
    parts = [f"data: {', '.join(row.data)}"] if row.data else []
    parts += [row.packages] if row.packages else []
    parts += [f"`{row.after[1]}` of {row.after[0]} as `{row.after[2]}`"] if row.after else []
    return "; ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
