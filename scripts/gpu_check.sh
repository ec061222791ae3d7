#!/usr/bin/env bash
# Everything that can only be seen on an NVIDIA card, in under eight minutes on it. docs/gpu.md says how.
#
#   bash scripts/gpu_check.sh prepare [OPTIONS]   # on a machine with a package index; needs no card
#   bash scripts/gpu_check.sh [run] [OPTIONS]     # on the machine with the card; needs no network
#   bash scripts/gpu_check.sh plan [OPTIONS]      # says what `run` would do; needs neither
#
#   --folder DIR     what is prepared, and lies in this checkout when it travels (default: .gpu-check)
#   --python X.Y     prepare: the Python of the machine with the card (default: this one's)
#   --own-cupy       prepare: leave out CuPy, NumPy and CUDA's libraries, which the machine with the card has
#   --chainer WHAT   prepare: a checkout of Chainer v7.8.1 or its .tar.gz, for its tests (default: from GitHub)
#   --data DIR       prepare: MNIST's four gzipped files (default: `run` makes noise of that size)
#   --output FILE    run: the table (default: gpu-check.md in $OUT, else here)
#
# PYTHON chooses the interpreter (default: python3). PyTorch is measured beside where that interpreter has it.
# Exit status: 0 all passed, 1 something failed (the table says what), 2 wrong usage, 3 no usable card or not prepared.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CHAINER=7.8.1
CHAINER_TESTS="https://github.com/chainer/chainer/archive/refs/tags/v$CHAINER.tar.gz"
PYTHON=${PYTHON:-python3}
# Chainer's tests of what the training script, the examples and the layer use.
UPSTREAM=(
  backends_tests/test_cuda.py
  functions_tests/activation_tests/test_{relu,sigmoid,tanh}.py
  functions_tests/connection_tests/test_{linear,convolution_2d,deconvolution_2d,embed_id}.py
  functions_tests/loss_tests/test_{softmax_cross_entropy,mean_squared_error}.py
  functions_tests/noise_tests/test_dropout.py
  functions_tests/normalization_tests/test_batch_normalization.py
  functions_tests/pooling_tests/test_{average,max}_pooling_2d.py
  links_tests/connection_tests/test_linear.py
  functions_tests/rnn_tests/test_function_lstm.py
  optimizers_tests/test_optimizers.py
  serializers_tests/test_npz.py
)

die() {
  local status=$1
  shift
  printf 'error: %s\n' "$1" >&2
  if (($# > 1)); then printf 'hint: %s\n' "$2" >&2; fi
  exit "$status"
}

command=run
case ${1:-} in
  prepare | run | plan) command=$1 && shift ;;
esac
folder=.gpu-check python='' own_cupy='' chainer=$CHAINER_TESTS data='' output=${OUT:-.}/gpu-check.md
while (($#)); do
  case $1 in
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" && exit 0 ;;
    --own-cupy) own_cupy=yes && shift ;;
    --folder | --python | --chainer | --data | --output)
      (($# > 1)) || die 2 "$1 needs a value" "see: bash scripts/gpu_check.sh --help"
      case $1 in
        --folder) folder=$2 ;;
        --python) python=$2 ;;
        --chainer) chainer=$2 ;;
        --data) data=$2 ;;
        --output) output=$2 ;;
      esac
      shift 2
      ;;
    *) die 2 "there is no option $1" "see: bash scripts/gpu_check.sh --help" ;;
  esac
done

prepare() {
  [[ -z $data || -f $data/train-images-idx3-ubyte.gz ]] || die 2 "there is no train-images-idx3-ubyte.gz in $data"
  "$PYTHON" -m pip --version >/dev/null 2>&1 || die 3 "$PYTHON has no pip" "$PYTHON -m ensurepip, or set PYTHON"
  python=${python:-$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')}
  rm -rf "$folder"
  mkdir -p "$folder/wheels" "$folder/data" "$folder/chainer"
  folder=$(cd "$folder" && pwd)
  echo "wheels for Python $python on x86-64 Linux"
  requirements >"$folder/requirements.txt"
  # pip matches the number of a manylinux tag exactly.
  "$PYTHON" -m pip --disable-pip-version-check download --quiet --only-binary=:all: --python-version "$python" \
    --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform manylinux1_x86_64 \
    --dest "$folder/wheels" --constraint constraints.txt --requirement "$folder/requirements.txt"
  [[ -z $own_cupy ]] || rm -f "$folder"/wheels/numpy-*.whl # others need it, and CuPy was built for another
  # Chainer has no wheel on the index; it is pure Python, so the one that is built here is good for any.
  echo 'setuptools<82' >"$folder/build.txt"
  PIP_CONSTRAINT=$folder/build.txt PIP_BUILD_CONSTRAINT=$folder/build.txt \
    "$PYTHON" -m pip --disable-pip-version-check wheel --quiet --no-deps --no-binary chainer \
    --wheel-dir "$folder/wheels" "chainer==$CHAINER"
  echo "Chainer's tests from $chainer"
  chainer_tests
  if [[ -n $data ]]; then
    cp "$data"/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz "$folder/data/"
  fi
  rm -f "$folder/requirements.txt" "$folder/build.txt"
  echo "$folder: $(du -sh "$folder" | cut -f1), $(find "$folder/wheels" -name '*.whl' | wc -l) wheels"
  echo "On the machine with the card, in this checkout: bash scripts/gpu_check.sh"
}

requirements() {
  "$PYTHON" - "$own_cupy" <<'END'
import sys, tomllib
with open("pyproject.toml", "rb") as stream:
    project = tomllib.load(stream)["project"]
print(*project["dependencies"], *([] if sys.argv[1] else project["optional-dependencies"]["cuda12"]), sep="\n")
print("pytest>=8", "pytest-timeout>=2.3", "pytest-xdist>=3.6", "scipy", sep="\n")
END
}

chainer_tests() {
  local archive=$folder/chainer.tar.gz
  if [[ -d $chainer/tests/chainer_tests ]]; then
    cp -r "$chainer/tests" "$folder/chainer/"
    return
  fi
  if [[ -f $chainer ]]; then
    cp "$chainer" "$archive"
  elif ! curl --fail --silent --show-error --location --max-time 300 --output "$archive" "$chainer"; then
    echo "warning: they can't be had, and are left out; to add them: --chainer CHECKOUT" >&2
    return
  fi
  tar -xzf "$archive" -C "$folder/chainer" --strip-components=1 --wildcards '*/tests/*'
  rm -f "$archive"
}

run() {
  local results=$folder/results
  if [[ $command == run ]]; then
    install
    check_card
    rm -rf "$results"
    mkdir -p "$results" "$folder/data"
    [[ -f $folder/data/train-images-idx3-ubyte.gz ]] || "$PYTHON" scripts/gpu_table.py noise "$folder/data"
  fi
  # Seconds: together seven minutes, the table within the eighth.
  step ours 150 -m pytest -n 4 --dist load -q -p no:cacheprovider -m gpu --junitxml "$results/ours.xml" \
    tests/runtime/test_compat_gpu.py
  step bench 120 -m bench --part gpu --repeats 5 --data "$folder/data" --output "$results"
  if [[ $command == plan || -d $folder/chainer/tests/chainer_tests ]]; then
    step upstream 150 tests/upstream/run.py "$folder/chainer" "${UPSTREAM[@]/#/chainer_tests/}" \
      --gpu --jobs 4 --output "$results/upstream.md"
  fi
  [[ $command == run ]] || return 0
  "$PYTHON" scripts/gpu_table.py table "$results" "$output"
}

# Runs one part, and keeps its exit status and its time; the others follow whatever becomes of it.
step() {
  local name=$1 limit=$2 began=$SECONDS status=0
  shift 2
  if [[ $command == plan ]]; then
    printf '%s (%d s at most): %s' "$name" "$limit" "$PYTHON"
    printf ' %q' "$@"
    echo
    return
  fi
  echo "$name ..."
  timeout --kill-after=5 "$limit" "$PYTHON" "$@" >"$folder/results/$name.log" 2>&1 || status=$?
  printf '%s\t%d\t%d\n' "$name" "$status" $((SECONDS - began)) >>"$folder/results/steps.tsv"
  echo "$name: exit status $status after $((SECONDS - began)) s"
}

install() {
  local site=$folder/site
  if [[ -d $folder/wheels && ! -e $site/.complete ]]; then
    rm -rf "$site"
    "$PYTHON" -m pip --disable-pip-version-check install --quiet --no-index --no-deps --no-compile --no-cache-dir \
      --target "$site" "$folder"/wheels/*.whl || die 3 "the wheels in $folder/wheels can't be installed"
    touch "$site/.complete"
  fi
  export PYTHONPATH=$PWD/$site TRAINER_HOME=$PWD/$folder/home
  [[ $site != /* ]] || PYTHONPATH=$site TRAINER_HOME=$folder/home
  "$PYTHON" -c 'import chainer, msgspec, pytest, xdist, pytest_timeout' 2>/dev/null ||
    "$PYTHON" -c 'import trainer.runtime.compat.auto, chainer, msgspec, pytest, xdist, pytest_timeout' 2>/dev/null ||
    die 3 "$PYTHON lacks what the check needs, and $folder has no wheels for it" \
      "on a machine with a package index: bash scripts/gpu_check.sh prepare"
}

check_card() {
  "$PYTHON" - <<'END' || exit 3
import sys
from trainer.runtime import devices
report = devices.probe()
if not report.usable:
    sys.exit(f"error: no usable GPU: {report.reason}\nhint: {report.hint or 'docs/gpu.md lists the reasons'}")
print(devices.select("cuda").description)
END
}

case $command in
  prepare) prepare ;;
  *) run ;;
esac
