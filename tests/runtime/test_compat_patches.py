"""Each patch of the compatibility layer: what works with it fails, or is wrong, without it.

Patches that change a module after its import are left out all at once, the others one at a time.
"""

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy
import pytest

from trainer.runtime import compat
from trainer.runtime.compat import datasets, functions, hook, importing, iterators, serializers, testing

numpy_2 = pytest.mark.skipif(not hook.numpy_at_least(2), reason="Chainer needs this patch on NumPy 2 only")

PRELUDE = "import numpy, chainer, chainer.functions as F\n"
# A constant, the new shape, is in what is exported.
ONNX = (
    "import sys, onnx_chainer\n"
    "made = onnx_chainer.export(chainer.Sequential(F.flatten), numpy.zeros((2, 3), 'f'))\n"
    "assert [node.op_type for node in made.graph.node] == ['Constant', 'Reshape'], made\n"
)


class Case(NamedTuple):
    """What a patch is for: code that works with it, and what the interpreter says without it."""

    code: str
    without: str


CASES = {
    "environment-check": Case(PRELUDE, r"No module named '(numpy\.distutils|pkg_resources|distutils)"),
    "as-strided-import": Case(PRELUDE, r"AttributeError: `np\.sctypes` was removed"),
    "as-strided-backward": Case(
        PRELUDE + "x = chainer.Variable(numpy.arange(4, dtype='f'))\n"
        "y = F.as_strided(x, (3, 2), (1, 1), 0)\n"
        "y.grad = numpy.ones((3, 2), 'f')\n"
        "y.backward()\n"
        "assert x.grad.tolist() == [1, 2, 2, 1]\n"
        "y = F.as_strided(chainer.Variable(numpy.arange(4)), (2,), (1,), 0)\n"
        "y.grad = numpy.ones(2, int)\n"
        "try:\n"
        "    y.backward()\n"
        "    raise SystemExit('integers have a gradient')\n"
        "except TypeError:\n"
        "    pass\n",
        r"AttributeError: `np\.sctypes` was removed",
    ),
    "resize-images": Case(
        PRELUDE + "x = chainer.Variable(numpy.arange(4, dtype='f').reshape(1, 1, 2, 2))\n"
        "y = F.resize_images(x, (3, 3))\n"
        "assert y.array[0, 0].tolist() == [[0, 0.5, 1], [1, 1.5, 2], [2, 2.5, 3]], y\n"
        "F.sum(y).backward()\n"
        "assert x.grad[0, 0].tolist() == [[2.25] * 2] * 2, x.grad\n"
        "F.resize_images(x, (3, 3), mode='nearest', align_corners=False)\n",
        r"module 'numpy' has no attribute 'float'",
    ),
    "categorical-log-prob": Case(
        PRELUDE + "p = numpy.array([[0.25, 0.75], [0.5, 0.5]], 'f')\n"
        "got = chainer.distributions.Categorical(p=p).log_prob(numpy.array([1, 0], 'i')).array\n"
        "numpy.testing.assert_allclose(got, numpy.log([0.75, 0.5]), rtol=1e-6)\n",
        r"TypeError: can only concatenate tuple",
    ),
    "pad-sequence": Case(
        PRELUDE + "for kind in ('u1', 'u2', 'u4', 'i1', 'i8', 'f'):\n"
        "    xs = [numpy.array([1], kind), numpy.array([1, 2], kind)]\n"
        "    y = F.pad_sequence(xs, padding=-1).array\n"
        "    assert y.dtype == kind\n"
        "    assert y.tolist() == [[1, numpy.array(-1).astype(kind)], [1, 2]], y\n",
        r"OverflowError: Python integer -1 out of bounds for uint8|DeprecationWarning: NumPy will stop allowing",
    ),
    "deconvolution-weight-gradient": Case(
        PRELUDE + "x, w = (chainer.Variable(numpy.ones(s, 'f')) for s in ((2, 3, 5, 5), (5, 3, 3, 3)))\n"
        "y = F.convolution_2d(x, w)\n"
        "(gx,) = chainer.grad([y], [x], [chainer.Variable(numpy.ones_like(y.array))], enable_double_backprop=True)\n"
        "(gw,) = chainer.grad([F.sum(gx)], [w])\n"
        "assert (gw.array == 18).all(), gw\n",
        r"ValueError: (too many|not enough) values to unpack",
    ),
    "debug-print": Case(
        PRELUDE + "text = chainer.Variable(numpy.zeros(2, 'f')).debug_print()\n"
        "assert '- device: CPU\\n' in text, text\n"
        "assert '- device: None\\n' in chainer.Variable().debug_print()\n",
        r"AssertionError[\s\S]*- device: cpu",
    ),
    "summary-float64": Case(
        PRELUDE + "summary = chainer.reporter.Summary()\n"
        "for _ in range(79):\n"
        "    summary.add(numpy.array(0.98, 'f'))\n"
        "mean = summary.compute_mean()\n"
        "assert mean.dtype == numpy.float64, mean.dtype\n"
        "assert abs(mean - numpy.float32(0.98)) < 1e-12, mean\n",
        r"AssertionError: float32",
    ),
    "load-npz-pickles": Case(
        PRELUDE + "import pickle, warnings\n"
        "class Evil:\n"
        "    def __reduce__(self):\n"
        "        return (list, ())\n"
        "numpy.savez('evil.npz', **{'W': numpy.array(Evil(), object)})\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    try:\n"
        "        chainer.serializers.load_npz('evil.npz', chainer.links.Linear(1, 1, nobias=True))\n"
        "    except (TypeError, ValueError):\n"
        "        pass\n"
        "assert [w for w in caught if 'evil.npz' in str(w.message)], 'no warning'\n",
        r"AssertionError: no warning",
    ),
    "get-mnist": Case(
        PRELUDE + "from trainer.runtime import datasets\n"
        "from unittest.mock import patch\n"
        "with patch.object(datasets, 'load', side_effect=KeyError('asked the cache')):\n"
        "    try:\n"
        "        chainer.datasets.get_mnist()\n"
        "    except KeyError:\n"
        "        pass\n",
        r"(URLError|HTTPError|OSError)",
    ),
    "get-fashion-mnist": Case(
        PRELUDE + "from trainer.runtime import datasets\n"
        "from unittest.mock import patch\n"
        "with patch.object(datasets, 'load', side_effect=KeyError('asked the cache')):\n"
        "    try:\n"
        "        chainer.datasets.get_fashion_mnist()\n"
        "    except KeyError:\n"
        "        pass\n",
        r"(URLError|HTTPError|OSError)",
    ),
    "testing-helper": Case(PRELUDE + "import chainer.gradient_check\n", r"No module named 'pkg_resources'"),
    "testing-doctest-helper": Case(
        PRELUDE + "import chainer.testing.doctest_helper\n", r"No module named 'pkg_resources'"
    ),
    "chainercv-version": Case(
        "import os, sys\n"
        "os.makedirs('chainercv', exist_ok=True)\n"
        "os.makedirs('chainercv-0.13.1.dist-info', exist_ok=True)\n"
        "with open('chainercv-0.13.1.dist-info/METADATA', 'w') as file:\n"
        "    file.write('Metadata-Version: 2.1\\nName: chainercv\\nVersion: 0.13.1\\n')\n"
        "with open('chainercv/__init__.py', 'w') as file:\n"
        "    file.write('import pkg_resources\\n'\n"
        "        '__version__ = pkg_resources.get_distribution(\"chainercv\").version\\n')\n"
        "sys.path.insert(0, os.getcwd())\n"
        "import chainercv\n"
        "assert chainercv.__version__ == '0.13.1' and 'pkg_resources' not in sys.modules\n",
        r"No module named 'pkg_resources'",
    ),
    "caffe-format": Case(
        PRELUDE + "import os\n"
        "from chainer.exporters import caffe\n"
        "from chainer.links.caffe import CaffeFunction\n"
        "class Net(chainer.Chain):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        with self.init_scope():\n"
        "            self.conv, self.out = chainer.links.Convolution2D(3, 4, 3), chainer.links.Linear(144, 5)\n"
        "    def forward(self, x):\n"
        "        return self.out(F.relu(self.conv(x)))\n"
        "net, x = Net(), chainer.Variable(numpy.random.rand(1, 3, 8, 8).astype('f'))\n"
        "with chainer.using_config('train', False):\n"
        "    os.makedirs('caffe', exist_ok=True)\n"
        "    caffe.export(net, [x], 'caffe')\n"
        "    read = CaffeFunction('caffe/chainer_model.caffemodel')\n"
        "    y, = read(inputs={'data': x.array}, outputs=[read.layers[-1][0]])\n"
        "    numpy.testing.assert_allclose(y.array, net(x).array, rtol=1e-5)\n",
        r"TypeError: Descriptors cannot be created directly",
    ),
    "serial-iterator-position": Case(
        PRELUDE + "it = chainer.iterators.SerialIterator(numpy.arange(4), 3, repeat=False, shuffle=False)\n"
        "first = [list(batch) for batch in it]\n"
        "it.epoch, it.current_position, it.is_new_epoch, it._pushed_position = 0, 0, False, None\n"
        "assert it.epoch_detail == 0 and it.previous_epoch_detail is None\n"
        "assert first == [[0, 1, 2], [3]] == [list(batch) for batch in it]\n",
        r"AttributeError: (can't set|property)",
    ),
    "multithread-iterator-position": Case(
        PRELUDE + "from chainer.iterators import MultithreadIterator\n"
        "it = MultithreadIterator(numpy.arange(4), 3, repeat=False, shuffle=False, n_threads=1)\n"
        "first = [list(batch) for batch in it]\n"
        "it.epoch, it.current_position, it.is_new_epoch = 0, 0, False\n"
        "assert first == [[0, 1, 2], [3]] == [list(batch) for batch in it]\n"
        "it.finalize()\n",
        r"AttributeError: (can't set|property)",
    ),
    "multi-node-iterator": Case(
        PRELUDE + "from chainermn.iterators import multi_node_iterator as module\n"
        "class Alone:\n"
        "    rank = 1\n"
        "    answers = [numpy.ones((1,)) * 7, -numpy.ones((1,))]\n"
        "    def bcast(self, data, root=0):\n"
        "        return self.answers.pop(0)\n"
        "assert module._MultiNodeIteratorSlave(Alone(), 0).dataset_size == 7\n",
        r"TypeError: only 0-dimensional arrays can be converted",
    ),
    "removed-numpy-names": Case(
        "import numpy\nassert numpy.int is int and numpy.float is float and numpy.object is object\n",
        r"AttributeError: module 'numpy' has no attribute 'int'",
    ),
    "sparse-matmul-float16": Case(
        PRELUDE + "a = numpy.array([[1, 0], [0, 2]], 'e')\n"
        "b = numpy.array([[1, 2], [3, 4]], 'e')\n"
        "y = F.sparse_matmul(chainer.utils.to_coo(a), b).array\n"
        "assert y.dtype == 'e' and y.tolist() == [[1, 2], [6, 8]], y\n",
        r"ValueError: scipy\.sparse does not support dtype float16",
    ),
    "onnx-mapping": Case(
        PRELUDE + ONNX + "assert 'onnx.mapping' not in sys.modules and not hasattr(sys.modules['onnx'], 'mapping')\n",
        r"No module named 'onnx.mapping'|ONNX is not installed",
    ),
    "onnx-mapping-fields": Case(PRELUDE + ONNX, r"module 'onnx' has no attribute 'mapping'"),
}
# Seen where CuPy is installed, with or without a GPU: the patch, and the warning without it.
NEED_CUPY = {"optional-library-warnings": "could not be loaded", "cudnn-warning": "cuDNN is not enabled"}


# Of packages that may be missing, or too old to need it.
OF_OTHERS = {"sparse-matmul-float16", "onnx-mapping", "onnx-mapping-fields"}

# In chainer's modules after they were imported: these can be left out all at once.
AFTER = {p.name for p in (*functions.PATCHES, *iterators.PATCHES, *serializers.PATCHES, *datasets.PATCHES)}


def run(
    code: str, folder: Path, *, without: Collection[str] = (), warnings_are_errors: bool = True
) -> subprocess.CompletedProcess[str]:
    """Runs ``code`` in a new interpreter with the layer, less the patches named."""
    setup = (
        "from trainer.runtime import compat\n"
        "from trainer.runtime.compat import hook\n"
        f"hook.install(p for p in compat.PATCHES if p.name not in {sorted(without)!r})\n"
    )
    strict = ["-W", "error"] if warnings_are_errors else []
    return subprocess.run(
        [sys.executable, *strict, "-c", setup + code],
        cwd=folder,
        env=_environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )


def _environment(folder: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # No network: a proxy that refuses connections stands for it, so that a download fails at once.
    refused = "http://127.0.0.1:9"
    return {**inherited, "http_proxy": refused, "https_proxy": refused, "CHAINER_DATASET_ROOT": str(folder)}


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each case that can be imported without its patch ends with then; one interpreter for all."""
    code = f"""
import json, traceback
failures = {{}}
for name, code in {[(name, CASES[name].code) for name in sorted(AFTER)]!r}:
    try:
        exec(code, {{}})
        failures[name] = ""
    except Exception:
        failures[name] = traceback.format_exc()
print("failures:" + json.dumps(failures))
"""
    done = run(code, tmp_path_factory.mktemp("without"), without=AFTER)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.partition("failures:")[2])


def needed(name: str) -> bool:
    return next(p for p in compat.PATCHES if p.name == name).needed()


def test_every_patch_has_a_case() -> None:
    assert {p.name for p in compat.PATCHES} == CASES.keys() | NEED_CUPY.keys()


@pytest.mark.parametrize("name", sorted(AFTER))
def test_without_the_patch_it_fails(name: str, failures: dict[str, str]) -> None:
    if not needed(name):
        pytest.skip(f"the installed versions don't need {name}")
    assert re.search(CASES[name].without, failures[name]), failures[name]


@pytest.mark.parametrize("name", sorted(CASES.keys() - AFTER))
def test_without_the_patch_the_import_fails(name: str, tmp_path: Path) -> None:
    if not needed(name):
        pytest.skip(f"the installed versions don't need {name}")
    if name.startswith(("testing-", "chainercv-")) and importlib.util.find_spec("pkg_resources") is not None:
        pytest.skip("pkg_resources is installed here: it warns, and Chainer gets on")
    # The failure is to be Chainer's own, and not a warning of the libraries that it imports.
    done = run(CASES[name].code, tmp_path, without=[name], warnings_are_errors=False)
    assert done.returncode != 0
    assert re.search(CASES[name].without, done.stderr), done.stderr


def test_with_all_patches_everything_works(tmp_path: Path) -> None:
    codes = [case.code for name, case in CASES.items() if name not in OF_OTHERS or needed(name)]
    done = run("\n".join(codes), tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_scipy_that_cannot_be_imported_is_no_scipy(tmp_path: Path) -> None:
    hidden = "import sys\nsys.modules['scipy'] = None\nimport chainer.functions.math.sparse_matmul as module\n"
    done = run(hidden + "assert not module._scipy_available", tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")
@pytest.mark.parametrize("name", NEED_CUPY)
def test_warnings_with_cupy(name: str, tmp_path: Path) -> None:
    code = "import sys, warnings\nwarnings.simplefilter('always')\nimport chainer"
    assert NEED_CUPY[name] not in run(code, tmp_path, warnings_are_errors=False).stderr
    assert NEED_CUPY[name] in run(code, tmp_path, without=[name], warnings_are_errors=False).stderr


@numpy_2
def test_numpy_is_left_as_it_was(tmp_path: Path) -> None:
    done = run(PRELUDE + "assert not hasattr(numpy, 'sctypes'), not hasattr(numpy, 'float')", tmp_path)
    assert done.returncode == 0, done.stderr


def test_pkg_resources_stays_absent_for_others(tmp_path: Path) -> None:
    done = run("import importlib.util, chainer.testing\nprint(importlib.util.find_spec('pkg_resources'))", tmp_path)
    assert done.returncode == 0, done.stderr
    if importlib.util.find_spec("pkg_resources") is None:
        assert done.stdout.strip() == "None"


@pytest.mark.parametrize(
    ("version", "needing"),
    [
        ("1.23.5", set()),
        ("1.26.4", {"resize-images", "pad-sequence"}),
        (
            "2.0.0",
            {
                "as-strided-import",
                "as-strided-backward",
                "resize-images",
                "categorical-log-prob",
                "pad-sequence",
                "debug-print",
                "summary-float64",
            },
        ),
    ],
)
def test_patches_for_numpy_are_inert_where_numpy_does_not_need_them(
    version: str, needing: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numpy, "__version__", version)
    by_numpy = [p for p in (*importing.PATCHES, *functions.PATCHES) if p.versions.startswith("NumPy")]
    assert {p.name for p in by_numpy if p.needed()} == needing


@pytest.mark.parametrize(
    ("python", "numpy_version", "setuptools", "fails"),
    [
        ((3, 11), "1.26.4", "73.0.1", False),
        ((3, 11), "1.26.4", "74.0.0", True),
        ((3, 11), "1.26.4", None, True),
        ((3, 12), "1.26.4", "73.0.1", True),
        ((3, 11), "2.4.6", "73.0.1", False),
    ],
)
def test_the_environment_check_runs_where_it_can(
    python: tuple[int, int],
    numpy_version: str,
    setuptools: str | None,
    fails: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def version(name: str) -> str | None:
        assert name == "setuptools"
        return setuptools

    monkeypatch.setattr(sys, "version_info", (*python, 0))
    monkeypatch.setattr(numpy, "__version__", numpy_version)
    monkeypatch.setattr(importing, "installed_version", version)
    assert importing._environment_check_fails() is fails


@pytest.mark.parametrize(
    ("requirement", "satisfied"),
    [
        ("numpy", True),
        ("numpy>=1.26,<99", True),
        ("numpy<1.26", False),
        ("numpy!=1.11.*", True),
        (f"numpy=={numpy.__version__.split('.')[0]}.*", True),
        (f"numpy!={numpy.__version__.split('.')[0]}.*", False),
        ("numpy>=1.26rc1", True),
        ("numpy!=0", True),
        (f"numpy=={numpy.__version__}", True),
        ("numpy > 99", False),
        ("no-such-distribution", False),
        ("numpy>=1;python_version>'3'", False),
    ],
)
def test_requirements_of_chainer_testing(requirement: str, satisfied: bool) -> None:
    if satisfied:
        testing.WorkingSet().require(requirement)
    else:
        with pytest.raises(testing.ResolutionError):
            testing.WorkingSet().require(requirement)


TRAIN = """
import hashlib, sys, warnings
warnings.simplefilter("ignore")
import numpy, chainer, chainer.functions as F, chainer.links as L

class Net(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv, self.bn, self.lstm = L.Convolution2D(1, 4, 3), L.BatchNormalization(4), L.LSTM(144, 8)
            self.out = L.Linear(8, 3)
    def forward(self, x):
        self.lstm.reset_state()
        h = F.max_pooling_2d(F.relu(self.bn(self.conv(x))), 2, 2)
        return self.out(F.dropout(self.lstm(h), 0.2))

numpy.random.seed(0)
model = L.Classifier(Net())
optimizer = chainer.optimizers.Adam().setup(model)
optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-4))
x = numpy.random.rand(40, 1, 14, 14).astype("f")
t = (numpy.arange(40) % 3).astype("i")
for _ in range(5):
    optimizer.update(model, x, t)
digest = hashlib.sha256()
for name, p in sorted(model.namedparams()):
    digest.update(p.array.tobytes() + p.grad.tobytes() + p.update_rule.state["m"].tobytes())
print(digest.hexdigest())
"""


def test_no_number_of_a_training_changes(tmp_path: Path) -> None:
    # As little of the layer as lets Chainer be imported here, against all of it.
    least = f"""
from trainer.runtime import compat
from trainer.runtime.compat import hook, importing
hook.install(importing.PATCHES)
{TRAIN}"""
    plain = subprocess.run(
        [sys.executable, "-c", least],
        cwd=tmp_path,
        env=_environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    patched = run(TRAIN, tmp_path)
    assert patched.returncode == 0, patched.stderr
    assert patched.stdout == plain.stdout
    assert len(plain.stdout.strip()) == 64


def test_the_documentation_lists_every_patch() -> None:
    page = (Path(compat.__file__).parents[3] / "docs" / "compat.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| `")}
    wanted = {f"`{p.name}`" for p in compat.PATCHES}
    assert wanted <= rows
    for p in compat.PATCHES:
        assert f"| `{p.name}` | `{p.module}` | {p.versions} | {p.reason} |" in page
