#!/usr/bin/env bash
# All that a machine with a GPU is needed for, in one command: builds the kernels, runs the GPU tests, the roofline, the
# throughput of whole steps and compute-sanitizer, and leaves JSON and tables in bench/results/<gpu>/.
#
#   bench/gpu.sh                      ends within 9 minutes; needs no network
#   bench/gpu.sh --out DIR            results into another folder
#   bench/gpu.sh --seconds N          all the time there is, 520 by default
#   bench/gpu.sh --device cpu         a rehearsal: nothing is built, tiny sizes, no sanitizer
#
# Needs torch >= 2.11, timm, numpy, nvcc, a C++ compiler, pip, setuptools, pybind11, ninja, pytest, pytest-benchmark and
# hypothesis. PYTHON names the Python that has them, python3 by default. The kernels are built for this GPU alone, into a
# temporary folder: neither the checkout nor the Python changes.
#
# Every step has a limit of its own, and what is behind a failed or late one still runs. steps.txt tells how each went,
# logs/ has what it said. Exits with 0 if all did well, 1 if one did not, 2 if this machine cannot do it.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
device=cuda seconds=520 out=
cannot() { echo "bench/gpu.sh: $*" >&2; exit 2; }

while (($#)); do
  case $1 in
    --help) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    --device | --out | --seconds) (($# > 1)) || cannot "$1 needs a value"; declare "${1#--}=$2"; shift 2 ;;
    *) cannot "unknown option $1; bench/gpu.sh --help lists those there are" ;;
  esac
done
[[ $device == cuda || $device == cpu ]] || cannot "--device is $device, expected cuda or cpu"
[[ $seconds =~ ^[0-9]+$ ]] || cannot "--seconds is $seconds, expected a whole number"
command -v "$python" > /dev/null || cannot "there is no $python; set PYTHON to the Python that has torch"
missing=$("$python" - <<'PYTHON'
from importlib.util import find_spec
names = ("torch", "timm", "numpy", "pip", "setuptools", "pybind11", "ninja", "pytest", "pytest_benchmark", "hypothesis")
print(*(name for name in names if find_spec(name) is None))
PYTHON
) || cannot "$python does not run"
[[ $device == cpu ]] && missing=$(for name in $missing; do [[ $name =~ pip|pybind11|ninja ]] || echo -n "$name "; done)
[[ -z $missing ]] || cannot "$python has no ${missing% }; install that, or set PYTHON to one that has it"

name=rehearsal
if [[ $device == cuda ]]; then
  read -r capability name < <("$python" -c '
import torch
if torch.cuda.is_available():
    print("{}.{}".format(*torch.cuda.get_device_capability()), torch.cuda.get_device_name().lower().replace(" ", "-"))
')
  [[ -n $name ]] || cannot "torch sees no GPU here; --device cpu rehearses without one"
  found=
  for folder in "${CUDA_HOME:-}" "${CUDA_PATH:-}" /usr/local/cuda /opt/cuda; do [[ -x $folder/bin/nvcc ]] && found=yes; done
  [[ -n $found ]] || command -v nvcc > /dev/null || cannot "there is no nvcc on the PATH nor in CUDA_HOME: install CUDA's compiler"
fi
out=${out:-$root/bench/results/$name}
mkdir -p "$out/logs" && out=$(cd "$out" && pwd) || cannot "cannot write to $out; choose another folder with --out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
export TORCHINDUCTOR_CACHE_DIR=$work/inductor TRITON_CACHE_DIR=$work/triton

failed=0
: > "$out/steps.txt"
# step LIMIT NAME COMMAND...: says how it went in one line; logs/NAME.out gets the output, logs/NAME.err the errors.
step() {
  local limit=$1 name=$2 began=$SECONDS left=$((seconds - SECONDS)) code said
  shift 2
  if ((left < limit)); then limit=$left; fi
  if ((limit < 1)); then
    said="left out: no time is left"
    failed=1
  else
    # An interrupt lets Python print what it has; a step that does not heed it is killed.
    (cd "$work" && exec timeout --kill-after=5 --signal=INT "$limit" "$@") > "$out/logs/$name.out" 2> "$out/logs/$name.err"
    code=$?
    case $code in
      0) said=well ;;
      124 | 137) said="stopped at its limit of $limit s, see logs/$name.*" ;;
      *) said="failed with $code, see logs/$name.*" ;;
    esac
    ((code == 0)) || failed=1
  fi
  printf '%-20s %4d s  %s\n' "$name" $((SECONDS - began)) "$said" | tee -a "$out/steps.txt"
}
skip() { printf '%-20s         left out: %s\n' "$1" "$2" | tee -a "$out/steps.txt"; }

# From a copy, since pip builds within the folder that it is given.
build() {
  mkdir "$work/source"
  cp -r "$root"/{csrc,mist_ext,setup.py,pyproject.toml,README.md,LICENSE} "$work/source"
  rm -f "$work"/source/mist_ext/*.so
  step 150 build env FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="$capability" "$python" -m pip install --no-build-isolation \
    --no-deps --no-index --disable-pip-version-check --target "$work/site" "$work/source"
  export PYTHONPATH=$work/site
  [[ -d $work/site/mist_ext ]] || { tail -n 30 "$out"/logs/build.*; cannot "the kernels were not built"; }
}

# The tests of the package's kernels, which need no more than the kernels do.
gpu_tests=()
for name in kernels optim system/test_costs.py test_selection.py test_sensitivity.py tuners/test_views.py; do
  gpu_tests+=("$root/tests/$name")
done
# Whole runs, where Python has what the driver needs too.
if "$python" -c 'import jinja2, matplotlib, msgspec, PIL, rich, safetensors, sklearn, yaml' 2> /dev/null; then
  gpu_tests+=("$root/tests/runs/test_on_a_gpu.py")
fi
roofline() { # LIMIT NAME OPTIONS...
  local limit=$1 name=$2
  shift 2
  step "$limit" "$name" "$python" "$root/bench/roofline.py" --device "$device" --json "$out/roofline.json" --add "$@"
  tables
}
throughput() { # LIMIT NAME OPTIONS...
  local limit=$1 name=$2
  shift 2
  step "$limit" "$name" "$python" "$root/bench/throughput.py" --device "$device" --json "$out/$name.json" "$@"
  tables
}
tables() { # of all results so far
  {
    if [[ -s $out/roofline.json ]]; then "$python" "$root/bench/table.py" --all "$out/roofline.json"; fi
    for name in throughput throughput-giant largest; do
      if [[ -s $out/$name.json ]]; then echo && cat "$out/logs/$name.out"; fi
    done
  } > "$out/tables.md"
}
sanitize() { # TOOL
  step 75 "$1" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$1" --error-exitcode 1 \
    "$python" "$root/bench/verify.py" --device "$device"
}

rm -f "$out"/{roofline,throughput,throughput-giant,largest}.json "$out"/logs/* # of other kernels
if [[ $device == cuda ]]; then build; fi
step 120 tests "$python" -m pytest -q -p no:cacheprovider -c "$root/pyproject.toml" --rootdir "$root" -m gpu \
  "${gpu_tests[@]}"
if [[ $device == cuda ]]; then
  roofline 130 roofline-base --model vit_b --dtype fp32 bf16
  throughput 110 throughput --model vit_large_patch16_224 --batch 64
  throughput 70 throughput-giant --model vit_g --batch 32 --rounds 5 --way full mist_ext sampled forward+backward
  step 60 largest "$python" "$root/bench/largest.py" --json "$out/largest.json" --model vit_g vit_7b_patch16_dinov3
  tables
  if command -v compute-sanitizer > /dev/null; then
    sanitize memcheck
    sanitize racecheck
  else
    for tool in memcheck racecheck; do skip $tool "there is no compute-sanitizer on the PATH"; done
  fi
  # torch.compile takes half a minute for each rule, more than all the rest; --model vit_b shows what it is worth.
  roofline 150 roofline-larger --model vit_l vit_h vit_g --dtype fp32 bf16 --rounds 5 --without "compiled chain"
else
  roofline 60 roofline-base --model vit_ti --threads 1 --rounds 1 --op accumulate_ drop_apply_sgd_ --without "compiled chain"
  throughput 60 throughput --model vit_tiny_patch16_224 --image-size 32 --batch 2 --rounds 1 --no-compile
  step 60 largest "$python" "$root/bench/largest.py" --device cpu --json "$out/largest.json" --model vit_ti \
    --image-size 32 --batch 4
  tables
  step 60 verify "$python" "$root/bench/verify.py" --device cpu
fi
[[ ! -s $out/tables.md ]] || cat "$out/tables.md"
echo "$SECONDS s; results are in $out"
exit $failed
