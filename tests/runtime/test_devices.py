"""What is said of GPUs: every reason by name, found without a card.

The verdicts are tested on facts as the driver and CuPy give them; the questions to the driver are
tested with a library of the driver's name that answers as told, in a process of its own.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.runtime import _cuda, devices
from trainer.runtime._cuda import CupyFacts, DriverFacts, Gpu
from trainer.runtime.faults import RuntimeFault

A100 = Gpu(0, "NVIDIA A100-SXM4-40GB", "8.0", 42_000_000_000)
K80 = Gpu(0, "Tesla K80", "3.7", 12_000_000_000)
V100 = Gpu(0, "Tesla V100-PCIE-16GB", "7.0", 16_000_000_000)
DRIVER = DriverFacts((12, 4), (A100,))
CUPY = CupyFacts(("cupy-cuda12x",), "14.2.0", 12, runtime=(12, 9))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):  # noqa: ANN201
    """Puts a machine with these facts under devices.probe()."""

    def build(driver: DriverFacts, cupy: CupyFacts = CUPY) -> None:
        monkeypatch.setattr(_cuda, "ask_driver", lambda: driver)
        monkeypatch.setattr(_cuda, "ask_cupy", lambda cards: cupy)

    return build


def test_a_usable_card(machine) -> None:  # noqa: ANN001
    machine(DRIVER)
    report = devices.probe()
    assert report.usable
    assert report.reason == ""
    assert report.gpus == (replace(A100, usable=True),)
    assert (report.driver_cuda, report.cupy, report.cupy_package, report.cuda_runtime) == (
        "12.4", "14.2.0", "cupy-cuda12x", "12.9",
    )  # fmt: skip
    assert json.loads(json.dumps(report.to_json()))["gpus"][0]["name"] == A100.name
    selected = devices.select("auto")
    assert (selected.kind, selected.index, selected.chainer_name, selected.reason) == ("cuda", 0, "@cupy:0", "")
    assert selected.description == "cuda:0 (NVIDIA A100-SXM4-40GB, compute capability 8.0)"


@pytest.mark.parametrize(
    ("driver", "cupy", "reason", "hint"),
    [
        (DriverFacts(problem="no NVIDIA driver", hint="install"), CupyFacts(), "no NVIDIA driver", "install"),
        (DRIVER, CupyFacts(), "CuPy is not installed", "pip install 'chainer-trainer[cuda12]'"),
        (
            DRIVER,
            replace(CUPY, packages=("cupy-cuda12x", "cupy-cuda11x")),
            "cupy-cuda12x and cupy-cuda11x are both installed",
            "pip uninstall -y cupy-cuda11x",
        ),
        (
            DriverFacts((11, 4), (A100,)),
            replace(CUPY, problem="cudaErrorInsufficientDriver"),
            "the driver supports CUDA 11.4 at most, and cupy-cuda12x needs CUDA 12",
            "update the NVIDIA driver to 525 or newer, or install cupy-cuda11x",
        ),
        (
            DRIVER,
            replace(CUPY, missing_library="libcublas.so.12", problem="..."),
            "the library libcublas.so.12 is missing",
            "pip install 'chainer-trainer[cuda12]'",
        ),
        (
            DRIVER,
            replace(CUPY, packages=("cupy-cuda13x",), built_for=12, missing_library="libnvrtc.so.13"),
            "libnvrtc.so.13 is missing",
            "pip install",
        ),
        (DRIVER, replace(CUPY, problem="numpy is too old"), "CuPy cannot be imported: numpy is too old", "reinstall"),
        (
            DriverFacts((12, 4), (K80,)),
            CUPY,
            "Tesla K80 has compute capability 3.7, and CUDA 12 needs 5.0 or higher",
            "install cupy-cuda11x in place of cupy-cuda12x",
        ),
        (
            DriverFacts((13, 0), (V100,)),
            CupyFacts(("cupy-cuda13x",), "14.2.0", 13, runtime=(13, 0)),
            "Tesla V100-PCIE-16GB has compute capability 7.0, and CUDA 13 needs 7.5 or higher",
            "install cupy-cuda12x in place of cupy-cuda13x",
        ),
        (
            DriverFacts((12, 4), (replace(K80, name="GeForce GT 640", capability="2.1"),)),
            CUPY,
            "GeForce GT 640 has compute capability 2.1",
            "use a newer card",
        ),
        (
            DRIVER,
            replace(CUPY, kernel_problems={0: "a test kernel failed: out of memory"}),
            "cuda:0: a test kernel failed: out of memory",
            "nvidia-smi",
        ),
    ],
)
def test_why_not(driver: DriverFacts, cupy: CupyFacts, reason: str, hint: str, machine) -> None:  # noqa: ANN001
    machine(driver, cupy)
    report = devices.probe()
    assert not report.usable
    assert reason in report.reason
    assert hint in report.hint
    assert all(gpu.problem for gpu in report.gpus)

    selected = devices.select("auto")
    assert (selected.kind, selected.chainer_name) == ("cpu", "@numpy")
    assert reason in selected.reason

    with pytest.raises(RuntimeFault) as caught:
        devices.select("cuda")
    assert caught.value.message.startswith("device cuda cannot be used: ")
    assert reason in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


def test_the_first_usable_card_is_taken(machine) -> None:  # noqa: ANN001
    machine(DriverFacts((12, 4), (K80, replace(A100, index=1))))
    assert devices.select("cuda").index == 1
    assert devices.select("auto").index == 1
    assert devices.select("cuda:1").index == 1
    with pytest.raises(RuntimeFault, match="device cuda:0 cannot be used: Tesla K80 has compute capability"):
        devices.select("cuda:0")
    with pytest.raises(RuntimeFault, match=r"device cuda:2 does not exist: this machine has 2 GPU"):
        devices.select("cuda:2")


def test_the_cpu_needs_no_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda, "ask_driver", lambda: pytest.fail("asked"))
    assert devices.select("cpu").chainer_name == "@numpy"


@pytest.mark.parametrize("spec", ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU", "cuda:12345", "cuda:1 "])
def test_unknown_devices(spec: str) -> None:
    with pytest.raises(RuntimeFault, match="unknown device"):
        devices.select(spec)


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, trainer.runtime.devices as d; d.probe(); print({'chainer', 'cupy', 'numpy'} & {*sys.modules})"
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("message", "library"),
    [
        (
            'Failure finding "libnvrtc.so.13 or libnvrtc.so.12": No such file: libnvrtc.so.13 or libnvrtc.so.12',
            "libnvrtc.so.12",
        ),
        ("libcublas.so.12: cannot open shared object file: No such file or directory", "libcublas.so.12"),
        ("CuPy failed to load libnvrtc.so.12: OSError: libnvrtc.so.12: cannot open shared object", "libnvrtc.so.12"),
        ("Could not find module 'cublas64_12.dll' (or one of its dependencies); not found", "cublas64_12.dll"),
        ("numpy.core.multiarray failed to import", ""),
    ],
)
def test_the_missing_library_is_named(message: str, library: str) -> None:
    assert _cuda._missing_library(ImportError(message), 12) == library
    outer = ImportError("CuPy is not correctly installed.")
    outer.__cause__ = ImportError(message)
    assert _cuda._missing_library(outer, 12) == library


DRIVER_SOURCE = r"""
#include <stdlib.h>
#include <string.h>
static int env(const char *name, int otherwise) { char *v = getenv(name); return v ? atoi(v) : otherwise; }
int cuInit(unsigned flags) { (void)flags; return env("STUB_INIT", 0); }
int cuDriverGetVersion(int *version) { *version = env("STUB_VERSION", 12040); return 0; }
int cuDeviceGetCount(int *count) { *count = env("STUB_COUNT", 2); return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
  strncpy(name, device ? "Tesla K80" : "Tesla T4", length);
  return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 5000000000u + device; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? (device ? 3 : 7) : (device ? 7 : 5);
  return 0;
}
"""


@pytest.fixture(scope="module")
def driver_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build a stand-in for the driver with")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "cuda.c").write_text(DRIVER_SOURCE)
    command = [compiler, "-shared", "-fPIC", "-o", folder / "libcuda.so.1", folder / "cuda.c"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def ask(folder: Path | None, **env: str) -> dict[str, object]:
    code = "import dataclasses, json\nfrom trainer.runtime import _cuda\n"
    code += "print(json.dumps(dataclasses.asdict(_cuda.ask_driver())))"
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    environment |= env | ({"LD_LIBRARY_PATH": str(folder)} if folder else {})
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_driver_lists_its_cards(driver_folder: Path) -> None:
    facts = ask(driver_folder)
    assert facts["cuda"] == [12, 4]
    assert facts["problem"] == ""
    assert [(g["index"], g["name"], g["capability"], g["memory_bytes"]) for g in facts["gpus"]] == [
        (0, "Tesla T4", "7.5", 5_000_000_000),
        (1, "Tesla K80", "3.7", 5_000_000_001),
    ]


@pytest.mark.parametrize(
    ("env", "problem"),
    [
        ({"STUB_INIT": "100"}, "the NVIDIA driver finds no GPU"),
        ({"STUB_COUNT": "0"}, "the NVIDIA driver finds no GPU"),
        ({"STUB_INIT": "100", "CUDA_VISIBLE_DEVICES": "-1"}, "CUDA_VISIBLE_DEVICES='-1' hides every GPU"),
        ({"STUB_INIT": "803"}, "library and its kernel module are of different versions (CUDA error 803)"),
        ({"STUB_INIT": "12345"}, "cuInit failed (CUDA error 12345)"),
    ],
)
def test_a_driver_without_cards_says_why(env: dict[str, str], problem: str, driver_folder: Path) -> None:
    facts = ask(driver_folder, **env)
    assert problem in facts["problem"]
    assert facts["hint"]
    assert facts["gpus"] == []


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(_cuda.ctypes, "CDLL", no_library)
    monkeypatch.setattr(_cuda, "_nvidia_card_on_bus", lambda: False)
    assert _cuda.ask_driver().problem == "no NVIDIA driver (libcuda.so.1 cannot be loaded)"
    monkeypatch.setattr(_cuda, "_nvidia_card_on_bus", lambda: True)
    assert _cuda.ask_driver().problem == "there is an NVIDIA card but no driver (libcuda.so.1 cannot be loaded)"


@pytest.mark.parametrize("spec", ["auto", "cuda"])
def test_each_rank_of_a_machine_takes_a_card_of_its_own(machine, monkeypatch: pytest.MonkeyPatch, spec: str) -> None:  # noqa: ANN001
    machine(DriverFacts((12, 4), (A100, replace(A100, index=1))))
    asked: list[list[int]] = []
    monkeypatch.setattr(_cuda, "ask_cupy", lambda cards: asked.append(list(cards)) or CUPY)
    monkeypatch.setenv("PMI_SIZE", "4")  # two machines
    monkeypatch.setenv("MPI_LOCALNRANKS", "2")
    for rank in range(4):
        monkeypatch.setenv("PMI_RANK", str(rank))
        monkeypatch.setenv("MPI_LOCALRANKID", str(rank % 2))
        assert devices.select(spec).chainer_name == f"@cupy:{rank % 2}"
    assert asked == [[0], [1], [0], [1]]
    with pytest.raises(RuntimeFault, match="device cuda:1 is one GPU, and 2 ranks on this machine need one each"):
        devices.select("cuda:1")
    assert devices.select("cpu").kind == "cpu"
    monkeypatch.setenv("MPI_LOCALNRANKS", "3")
    with pytest.raises(RuntimeFault, match="3 ranks on this machine need a GPU each, and it has 2") as raised:
        devices.select(spec)
    assert raised.value.hint == "use --processes-per-node 2, or --device cpu"


def test_ranks_without_a_card_use_the_processor(machine, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN001
    machine(DriverFacts(problem="no NVIDIA driver"))
    monkeypatch.setenv("PMI_SIZE", "2")
    selected = devices.select("auto")
    assert (selected.kind, selected.reason) == ("cpu", "no NVIDIA driver")
    with pytest.raises(RuntimeFault, match="device cuda cannot be used: no NVIDIA driver"):
        devices.select("cuda")


def test_a_ranks_own_card_that_can_not_be_used_is_an_error(machine, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN001
    broken = replace(CUPY, kernel_problems={1: "a test kernel failed: no room"})
    machine(DriverFacts((12, 4), (A100, replace(A100, index=1))), broken)
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setenv("PMI_RANK", "1")
    with pytest.raises(RuntimeFault, match="a test kernel failed: no room"):
        devices.select("auto")


def test_cupy_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda.importlib.util, "find_spec", lambda name: None)
    assert _cuda.ask_cupy([0]) == CupyFacts()
