"""Runs the kernels under GCC's sanitizers, in a temporary folder: the checkout and what is installed stay as they are.

    python tests/sanitize thread                      the loops of csrc/cpu, driven by loops.cpp, under ThreadSanitizer
    python tests/sanitize address,undefined           the same, then the extension itself, with the kernels' own tests
    python tests/sanitize address,undefined --loops   the loops alone
    python tests/sanitize address,undefined tests -x  the extension with other tests: what pytest is given

ThreadSanitizer runs the loops alone: it does not know OpenMP's runtime, so torch's threads would give false alarms.
loops.cpp has threads of its own. Before a sanitizer is believed it has to find a fault that is there on purpose. Where
ThreadSanitizer ends with "unexpected memory mapping", put `setarch -R` before the command.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CXX = os.environ.get("CXX", "g++")
# All that calls the kernels within its process: others would wait for processes and compilers, not for kernels.
ELSEWHERE = [
    f"--ignore=tests/{name}.py"
    for name in (
        *("kernels/test_compiled", "kernels/test_device_logic", "optim/test_exchange", "optim/test_exchange_refusals"),
        *("optim/test_other_libraries", "optim/test_sampled_exchange", "optim/test_saving"),
    )
]
KERNEL_TESTS = ["tests/kernels", *ELSEWHERE, "tests/optim", "tests/test_selection.py", "tests/test_sensitivity.py"]
# The fault that loops.cpp commits for a sanitizer, and what must then be reported.
FAULTS = {
    "thread": ("race", "ThreadSanitizer: data race"),
    "address": ("overflow", "AddressSanitizer: heap-buffer-overflow"),
    "undefined": ("misaligned", "runtime error: load of misaligned address"),
}
RUNTIMES = {"address": "libasan.so", "undefined": "libubsan.so"}
SYMBOLS = {"address": b"__asan_report_", "undefined": b"__ubsan_handle_"}
ENVIRONMENT = os.environ | {
    "ASAN_OPTIONS": "detect_leaks=0",  # Python itself does not free everything
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}


def flags(sanitizers: list[str]) -> list[str]:
    """What the compiler is given beside the usual flags, and after them, so that it prevails."""
    chosen = [*sanitizers, "float-cast-overflow"] if "undefined" in sanitizers else sanitizers
    return [
        *("-g1", "-fno-omit-frame-pointer", "-D_GLIBCXX_ASSERTIONS"),
        "-fno-wrapv",  # Python is compiled with -fwrapv and asks it of extensions: signed overflow would not be seen
        *(f"-fsanitize={','.join(chosen)}", "-fno-sanitize-recover=all"),
    ]


def run(what: str, command: list[str], **options: object) -> str:
    """Run a command and say how long it took; where it fails, end with what it said."""
    began = time.perf_counter()
    print(f"{what} ...", end="", flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    print(f" {time.perf_counter() - began:.1f} s", flush=True)
    if done.returncode != 0:
        sys.exit(f"{done.stdout}\n{shlex.join(command)} ended with {done.returncode}")
    return done.stdout


def torch_headers() -> str:
    """The folder of torch's headers, of which the loops need the 16-bit types."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        sys.exit("torch is not installed: `pip install .` brings it")
    return str(Path(spec.origin).parent / "include")


def check_loops(sanitizers: list[str], folder: Path) -> None:
    """Build loops.cpp with the torch-free files of csrc/cpu, see it find the faults, and run it."""
    names = " and ".join(sanitizers)
    program = str(folder / "loops")
    of_torch = ("parallel.cpp", "registration.cpp")
    sources = [str(path) for path in sorted((ROOT / "csrc" / "cpu").glob("*.cpp")) if path.name not in of_torch]
    command = [
        CXX,
        "-O2" if "thread" in sanitizers else "-O1",
        "-std=c++20",
        "-ffp-contract=off",
        "-pthread",
        "-Wall",
        "-Wextra",
        *flags(sanitizers),
    ]
    command += ["-isystem", torch_headers(), "-I", str(ROOT / "csrc"), str(Path(__file__).with_name("loops.cpp"))]
    run(f"{names}: building the loops", [*command, *sources, "-o", program])
    sets = run("instruction sets", [program, "instruction_sets"], env=ENVIRONMENT).split()
    for sanitizer in sanitizers:
        fault, report = FAULTS[sanitizer]
        for instruction_set in sets:
            committed = [program, fault, instruction_set]
            done = subprocess.run(committed, env=ENVIRONMENT, capture_output=True, text=True, check=False)
            if done.returncode == 0 or report not in done.stderr:
                sys.exit(f"{shlex.join(committed)} should have failed with {report!r}:\n{done.stdout}{done.stderr}")
    run(f"{names}: {', '.join(sets)} on many threads", [program], env=ENVIRONMENT)


def runtime(name: str) -> str:
    """Where the compiler keeps a shared library."""
    found = subprocess.run([CXX, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
    if not Path(found).is_absolute():
        sys.exit(f"{CXX} has no {name}: the extension needs GCC with its sanitizers (set CXX to one)")
    return found


def check_extension(sanitizers: list[str], folder: Path, arguments: list[str]) -> None:
    """Build the extension in a copy of the checkout, and run pytest there."""
    copy = folder / "checkout"
    outputs = ("build", "dist", "runs", "venv", "*.egg-info", "*.so", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", *outputs))
    compiler = folder / "compiler"  # a command of its own, since setup.py's flags come after those in CXXFLAGS
    compiler.write_text(f'#!/bin/sh\nexec {CXX} "$@" {shlex.join(flags(sanitizers))}\n')
    compiler.chmod(0o755)
    names = " and ".join(sanitizers)
    run(
        f"{names}: building the extension",
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=copy,
        env=ENVIRONMENT | {"CXX": str(compiler), "FORCE_CUDA": "0"},
    )
    # Python is not instrumented, so the runtimes must be loaded first, and libstdc++ for them to find its __cxa_throw.
    preload = [runtime(library) for library in (*(RUNTIMES[name] for name in sanitizers), "libstdc++.so")]
    environment = ENVIRONMENT | {"LD_PRELOAD": " ".join(preload), "PYTHONPATH": str(copy)}
    ask = [sys.executable, "-c", "from mist_ext.kernels import compiled; print(compiled.C and compiled.C.__file__)"]
    loaded = Path(run("loading it", ask, cwd=copy, env=environment).split("\n")[-2])
    if not loaded.is_relative_to(copy) or any(SYMBOLS[name] not in loaded.read_bytes() for name in sanitizers):
        sys.exit(f"the tests would not run the instrumented kernels, but {loaded}")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "auto", *(arguments or KERNEL_TESTS)]
    sys.exit(subprocess.run(command, cwd=copy, env=environment, check=False).returncode)


def main() -> None:
    parser = argparse.ArgumentParser(
        "tests/sanitize", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("sanitizers", help="thread, address, undefined, or address,undefined")
    parser.add_argument("--loops", action="store_true", help="no extension: the loops alone")
    given, arguments = parser.parse_known_args()
    sanitizers = given.sanitizers.split(",")
    if not set(sanitizers) <= set(FAULTS) or ("thread" in sanitizers and len(sanitizers) > 1):
        parser.error(f"{given.sanitizers} is none of thread, address, undefined and address,undefined")
    alone = given.loops or sanitizers == ["thread"]
    if alone and arguments:
        parser.error(f"{shlex.join(arguments)} is for pytest, which runs on the extension under address and undefined")
    with tempfile.TemporaryDirectory(prefix="mist_sanitize_") as folder:
        check_loops(sanitizers, Path(folder))
        if not alone:
            check_extension(sanitizers, Path(folder), arguments)


if __name__ == "__main__":
    main()
