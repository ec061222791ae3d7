"""Each means for faster Chainer scripts: in effect, switched off by its name, and without any effect on results."""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import chainer
import numpy as np
import pytest

import trainer
from trainer.runtime import fast
from trainer.runtime.fast import applying, importing, memory
from trainer.runtime.faults import RuntimeFault

ROOT = Path(trainer.__file__).parents[1]
SCRIPTS = Path(__file__).parent / "scripts"
MEANS = sorted(fast.MEANS)


def launch(script: Any, *arguments: Any, choice: Any, cwd: Any) -> Any:
    cwd.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "trainer.runtime.launch", str(script), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "TRAINER_FAST": choice, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def results(folder: Any) -> Any:
    found = {}
    for path in folder.iterdir():
        if path.name == "log":
            log = json.loads(path.read_text())
            for entry in log:
                del entry["elapsed_time"]
            found["log"] = np.array(json.dumps(log))
        elif path.is_file():
            # Chainer's own snapshot holds None as a pickle; this one was written by the test.
            with np.load(path, allow_pickle=True) as file:
                found |= {f"{path.name}:{name}": file[name] for name in file.files}
    return {name: value for name, value in found.items() if "elapsed" not in name and not name.endswith("_log")}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the scripts give with every means switched off."""
    made = {}

    def get(script: Any, optimizer: Any) -> Any:
        if (script, optimizer) not in made:
            folder = tmp_path_factory.mktemp("plain")
            launch(SCRIPTS / script, optimizer, folder / "out", choice="0", cwd=folder / "out")
            made[script, optimizer] = results(folder / "out")
        return made[script, optimizer]

    return get


CASES = [
    *[("mlp_trainer.py", "MomentumSGD", name) for name in ["1", *MEANS]],
    *[("mlp_trainer.py", name, "1") for name in ("SGD", "Adam", "AdaGrad", "RMSprop")],
    *[("cnn_loop.py", "MomentumSGD", name) for name in ("1", "convolutions", "functions", "pooling")],
    ("cnn_loop.py", "Adam", "1"),
]


@pytest.mark.parametrize(("script", "optimizer", "choice"), CASES)
def test_results_are_equal(plain: Any, tmp_path: Path, script: Any, optimizer: Any, choice: Any) -> None:
    expected = plain(script, optimizer)
    launch(SCRIPTS / script, optimizer, tmp_path / "out", choice=choice, cwd=tmp_path / "out")
    found = results(tmp_path / "out")
    assert len(expected) > 10
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name, strict=True)


# What a script can see of each means.
SIGNS = {
    "accumulation": "made_in('accumulation', chainer._backprop_utils.backprop_step)",
    "activations": "made_in('activation', chainer.functions.activation.relu.ReLUGrad2.forward_cpu)",
    "batches": "made_by('fast.batches', chainer.iterators.SerialIterator.next, chainer.dataset.convert._concat_arrays)",
    "collections": "gc.get_freeze_count() > 0",
    "convolutions": "made_by('fast.convolution', chainer.functions.connection.convolution_2d.conv.im2col_cpu)",
    "functions": "made_in('applying', chainer.FunctionNode.apply)",
    "normalization": (
        "made_in('normalization', chainer.functions.normalization.batch_normalization"
        ".GeneralBatchNormalizationImpl.backward)"
    ),
    "memory": "on_the_heap(20 << 20)",
    "pooling": "made_in('pooling', chainer.functions.pooling.max_pooling_nd.MaxPoolingNDGrad.forward_cpu)",
    "imports": "not {'scipy', 'PIL', 'filelock'} & set(sys.modules)",
}

LOOK = """
import gc
import ctypes
import sys
import chainer
import numpy as np

def made_in(name, function):
    # It says of itself that it is Chainer's.
    return function.__code__.co_filename.endswith(f"fast/{name}.py")

def made_by(module, *functions):
    return {function.__module__ for function in functions} == {"trainer.runtime." + module}

class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("arena", "ordblks", "smblks", "hblks", *"abcdef")]

def on_the_heap(size):
    # hblks: how many blocks the system gave one by one. mallinfo(3)
    library = ctypes.CDLL(None)
    library.mallinfo.restype = Mallinfo
    before = library.mallinfo().hblks
    kept = np.empty(size, np.uint8)
    return library.mallinfo().hblks == before

"""


@pytest.mark.parametrize("choice", ["", "0", *MEANS, *(f"-{name}" for name in MEANS)])
def test_switches(tmp_path: Path, choice: Any) -> None:
    script = tmp_path / "look.py"
    signs = ", ".join(f"{name!r}: {sign}" for name, sign in SIGNS.items())
    script.write_text(f"{LOOK}import json\nprint(json.dumps({{{signs}}}))\n")
    found = json.loads(launch(script, choice=choice, cwd=tmp_path))
    expected = set(MEANS) - fast.disabled_by(choice)
    assert {name for name in MEANS if found[name]} == expected
    assert expected == {"": set(MEANS), "0": set()}.get(
        choice, set(MEANS) - {choice[1:]} if choice.startswith("-") else {choice}
    )


def test_the_run_says_what_is_in_use(tmp_path: Path) -> None:
    script = tmp_path / "nothing.py"
    script.write_text("")
    launch(script, choice="-functions,-batches", cwd=tmp_path)
    facts = json.loads((tmp_path / "outputs" / "environment.json").read_text())
    assert facts["fast"] == sorted(set(MEANS) - {"functions", "batches"})


@pytest.mark.parametrize("choice", ["nothing", "-functions,batches", "0,1", "--functions"])
def test_nonsense_is_refused(choice: Any) -> None:
    with pytest.raises(RuntimeFault, match="TRAINER_FAST"):
        fast.disabled_by(choice)


def test_deferred_modules_work(tmp_path: Path) -> None:
    """Functions that need SciPy, Pillow and filelock find them; the script's own imports are the real packages."""
    pytest.importorskip("scipy")
    from PIL import Image

    Image.new("RGB", (3, 2), (255, 0, 0)).save(tmp_path / "red.png")
    script = tmp_path / "special.py"
    script.write_text(
        "import sys\n"
        "import chainer, numpy as np\n"
        "assert 'scipy' not in sys.modules\n"
        "x = np.array([0.1, 0.5], np.float32)\n"
        "got = chainer.functions.erfinv(x).array\n"
        "import scipy, scipy.special\n"
        "from PIL import Image\n"
        "assert type(scipy).__name__ == 'module' and Image.__file__\n"
        "np.testing.assert_array_equal(got, scipy.special.erfinv(x).astype(np.float32))\n"
        "image = chainer.datasets.ImageDataset(['red.png'])[0]\n"
        "assert image.shape == (3, 2, 3) and image[0].min() == 255\n"
        "loc = np.zeros((1, 2), np.float32)\n"
        "normal = chainer.distributions.MultivariateNormal(loc, scale_tril=np.eye(2, dtype=np.float32)[None])\n"
        "normal.log_prob(loc)\n"
        "chainer.dataset.set_dataset_root('.')\n"
        "chainer.dataset.cache_or_load_file('made', lambda path: open(path, 'w').close(), lambda path: None)\n"
        "assert sys.modules['filelock'].FileLock\n"
    )
    launch(script, choice="imports", cwd=tmp_path)


def test_missing_packages_stay_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "_DEFERRED", {"no_such_package": ("part",), "colorsys": ()})
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with importing.deferred():
        colorsys = importlib.import_module("colorsys")
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("no_such_package")
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("no_such_package.part")
    assert "colorsys" not in sys.modules
    assert colorsys.rgb_to_hsv(0, 0, 0) == (0, 0, 0)
    assert not hasattr(colorsys, "no_such_name")


def test_declared_functions_look_at_types_only() -> None:
    """Their checks answer the same for every function of the class: on one that is not even initialised."""
    random = np.random.RandomState(0)
    shapes: list[tuple[int, ...]] = [(), (3,), (3, 4), (4, 3), (3, 4, 2)]
    arrays = [np.asarray(random.rand(*shape)).astype(dtype) for shape in shapes for dtype in ("f4", "f2", "i4")]
    for module, names in applying.ONLY_TYPES.items():
        classes = importlib.import_module(f"chainer.functions.{module}")
        for name in names:
            bare = object.__new__(getattr(classes, name))
            answers = set()
            for inputs in ((x, y)[:count] for x in arrays for y in arrays for count in (1, 2)):
                with chainer.utils.type_check.light_mode:
                    try:
                        bare.check_type_forward(chainer.utils.type_check.get_light_types(inputs))
                    except (chainer.utils.type_check.InvalidType, IndexError):
                        answers.add(False)
                    else:
                        answers.add(True)
            assert False in answers, name


def test_a_subclass_keeps_its_own_check(monkeypatch: pytest.MonkeyPatch) -> None:
    node = chainer.FunctionNode
    monkeypatch.setattr(node, "apply", node.apply)
    applying.patch(chainer.function_node)
    relu = chainer.functions.activation.relu.ReLU
    x = np.ones((2, 3), np.float32)
    calls = []

    class Own(relu):
        def check_type_forward(self, in_types: Any) -> None:
            calls.append(in_types)

    for _ in range(2):
        relu().apply((x,))
        Own().apply((x,))
    assert len(calls) == 2
    for wrong in (np.ones((2, 3), np.int32), np.ones((2, 3), np.int32)):
        with pytest.raises(chainer.utils.type_check.InvalidType):
            relu().apply((wrong,))


def test_a_batch_is_chainers_list(tmp_path: Path) -> None:
    """A data set changed between a batch's making and its use; a batch as JSON; both with and without the means."""
    script = tmp_path / "look.py"
    script.write_text(
        "import json\n"
        "import numpy as np\n"
        "from chainer import datasets, iterators\n"
        "from chainer.dataset import concat_examples\n"
        "labels = np.arange(6, dtype='i')\n"
        "it = iterators.SerialIterator(datasets.TupleDataset(np.zeros((6, 2), 'f'), labels), 3, shuffle=False)\n"
        "batch = next(it)\n"
        "labels[:] = -1\n"
        "print(concat_examples(batch)[1])\n"
        "plain = next(iterators.SerialIterator(np.arange(6.0), 2, shuffle=False))\n"
        "print(type(plain) is list, json.dumps(plain))\n"
    )
    for choice in ("0", "1"):
        assert launch(script, choice=choice, cwd=tmp_path) == "[0 1 2]\nTrue [0.0, 1.0]\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [("MALLOC_TRIM_THRESHOLD_", "131072"), ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0:glibc.malloc.perturb=1")],
)
def test_the_environments_own_settings_of_the_allocator_stay(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert not memory.keep()


def test_the_collector_goes_on_as_it_was() -> None:
    frozen = gc.get_freeze_count()
    try:
        for enable in (gc.enable, gc.disable):
            enable()
            before = gc.isenabled()
            with importing.uncollected():
                assert not gc.isenabled()
            assert gc.isenabled() is before
            with pytest.raises(ImportError), importing.uncollected():
                raise ImportError
            assert gc.isenabled() is before
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
        gc.enable()
