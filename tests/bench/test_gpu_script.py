"""bench/gpu.sh rehearsed on the CPU, with what a GPU machine without network has: torch and timm, but not the rest."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import forked
import pytest
import torch

import mist_ext
from mist_ext.kernels import compiled

SCRIPT = Path(__file__).parents[2] / "bench" / "gpu.sh"
# What the package needs beside the kernels' half; a GPU machine need not have it.
ABSENT = ["matplotlib", "rich", "safetensors", "sklearn"]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a shell script")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a Python that cannot import what is absent, whatever is installed here."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({ABSENT}))\n")
    package = str(Path(mist_ext.__file__).parents[1])
    path = os.pathsep.join(filter(None, [str(tmp_path), package, os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHON": sys.executable, "PYTHONPATH": path}


def gpu_sh(environment: dict[str, str], *options: str | Path, cwd: Path | None = None) -> tuple[int, str, str]:
    done = subprocess.run([SCRIPT, *options], env=environment, cwd=cwd, capture_output=True, text=True, timeout=600)
    return done.returncode, done.stdout, done.stderr


def steps(out: Path) -> dict[str, str]:
    """How each step went."""
    pairs = (re.match(r"(\S+)\s+(?:\d+ s\s+)?(.*)", line) for line in (out / "steps.txt").read_text().splitlines())
    return {pair[1]: pair[2] for pair in pairs if pair}


def test_what_is_absent_is_absent(environment: dict[str, str]) -> None:
    for name in ABSENT:
        done = subprocess.run([sys.executable, "-c", f"import {name}"], env=environment, capture_output=True, text=True)
        assert "ModuleNotFoundError" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(compiled.C is None, reason="needs compiled kernels")
def test_every_step_leaves_its_results(environment: dict[str, str], tmp_path: Path) -> None:
    """From another folder, as it may be called from anywhere."""
    out = tmp_path / "results"
    code, said, _ = gpu_sh(environment, "--device", "cpu", "--out", "results", cwd=tmp_path)
    assert steps(out) == dict.fromkeys(["tests", "roofline-base", "throughput", "largest", "verify"], "well"), said
    assert code == 0
    roofline = json.loads((out / "roofline.json").read_text())
    assert {row["op"] for row in roofline["rows"]} == {"accumulate_", "drop_apply_sgd_", "SparseSGD.step"}
    assert len(json.loads((out / "throughput.json").read_text())["rows"]) == 6
    tables = (out / "tables.md").read_text()
    assert "| score a batch: `accumulate_` |" in tables
    assert "| mist_ext " in tables
    assert re.search(r"\| vit_ti +\| +\d+ \| +4 \|", tables)  # scored in four passes
    assert tables in said
    if not torch.cuda.is_available():
        assert re.search(r"\d+ skipped", (out / "logs" / "tests.out").read_text())


def test_a_failed_step_does_not_stop_the_others(environment: dict[str, str], tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        f"""#!/bin/sh
case "$*" in
*"-m pytest"*) echo some test failed; exit 7 ;;
*throughput.py*|*largest.py*|*verify.py*|*table.py*) exit 0 ;;
*roofline.py*) exec sleep 60 ;;
esac
exec {sys.executable} "$@"
"""
    )
    python.chmod(0o755)
    out = tmp_path / "results"
    options = ("--device", "cpu", "--out", out, "--seconds", "5")
    code, said, _ = gpu_sh(environment | {"PYTHON": str(python)}, *options)
    went = steps(out)
    assert code == 1
    assert went["tests"] == "failed with 7, see logs/tests.*"
    assert (out / "logs" / "tests.out").read_text() == "some test failed\n"
    assert re.fullmatch(r"stopped at its limit of \d+ s, see logs/roofline-base.*", went["roofline-base"])
    assert went["throughput"] == went["largest"] == went["verify"] == "left out: no time is left"
    assert all(line in said for line in (out / "steps.txt").read_text().splitlines())


def test_on_a_gpu_it_builds_for_that_one_and_runs_what_it_built(environment: dict[str, str], tmp_path: Path) -> None:
    """With a Python that sees a GPU, and says what it is to run."""
    python, sanitizer = tmp_path / "python", tmp_path / "compute-sanitizer"
    python.write_text(
        f"""#!/bin/sh
case "$*" in
*get_device_capability*) echo 9.0 nvidia-h200; exit ;;
*"-m pip"*) for last in "$@"; do ls "$last"; done; mkdir -p site/mist_ext; echo "for $TORCH_CUDA_ARCH_LIST"; exit ;;
*"-m pytest"*|*.py*) echo "$PYTHONPATH $*"; exit ;;
esac
exec {sys.executable} "$@"
"""
    )
    sanitizer.write_text('#!/bin/sh\necho "$*"\n')
    (tmp_path / "bin").mkdir()
    for path in (python, sanitizer, tmp_path / "bin" / "nvcc"):
        path.touch()
        path.chmod(0o755)
    own = {"PYTHON": str(python), "CUDA_HOME": str(tmp_path), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    out = tmp_path / "results"
    code, said, errors = gpu_sh(environment | own, "--out", out)
    names = [
        "build",
        "tests",
        "roofline-base",
        "throughput",
        "throughput-giant",
        "largest",
        "memcheck",
        "racecheck",
        "roofline-larger",
    ]
    assert steps(out) == dict.fromkeys(names, "well"), said + errors
    assert code == 0
    run = {name: (out / "logs" / f"{name}.out").read_text() for name in names}
    assert "for 9.0" in run["build"]
    assert {"csrc", "mist_ext", "setup.py"} <= set(run["build"].split())
    for name in ("tests", "roofline-base", "throughput", "largest", "roofline-larger"):
        assert re.match(r"/\S+/site ", run[name]), "another mist_ext than the one that was built would be measured"
    assert "-m gpu" in run["tests"]
    for name in ("roofline-base", "throughput", "racecheck", "roofline-larger"):
        assert "--device cuda" in run[name]
    assert "--tool memcheck" in run["memcheck"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "torch sees no GPU here"),
        (["--device", "tpu"], "--device is tpu, expected cuda or cpu"),
        (["--seconds", "soon"], "--seconds is soon, expected a whole number"),
        (["--out"], "--out needs a value"),
        (["--fast"], "unknown option --fast"),
    ],
)
def test_what_it_cannot_do_it_says_first(environment: dict[str, str], options: list[str], message: str) -> None:
    if not options and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    code, said, errors = gpu_sh(environment, *options)
    assert (code, said) == (2, "")
    assert errors.startswith(f"bench/gpu.sh: {message}")


def test_a_python_that_lacks_something_is_told_what(environment: dict[str, str], tmp_path: Path) -> None:
    with (tmp_path / "sitecustomize.py").open("a") as file:
        file.write("sys.modules.update(timm=None, hypothesis=None)\n")
    code, _, errors = gpu_sh(environment, "--device", "cpu")
    assert code == 2
    assert "has no timm hypothesis; install that, or set PYTHON" in errors


@pytest.mark.slow
def test_it_runs_every_gpu_test_of_the_suite() -> None:
    """Its list holds the files and folders that have tests marked gpu."""
    tests = Path(__file__).parents[1]
    command = ["-m", "pytest", "-q", "--collect-only", "-m", "gpu", "-p", "no:cacheprovider", tests]
    done = forked.run(*command, cwd=tests.parent)
    assert done.returncode == 0, done.stdout
    marked = {line.partition("::")[0].removeprefix("tests/") for line in done.stdout.splitlines() if "::" in line}
    script = SCRIPT.read_text()
    listed = re.search(r"^gpu_tests=\(\)\nfor name in (.*); do\n  gpu_tests", script, re.MULTILINE)
    assert listed
    places = [*listed[1].split(), *re.findall(r'gpu_tests\+=\("\$root/tests/([^"$]+)"\)', script)]
    assert len(places) > len(listed[1].split())
    assert all(any(f"{file}/".startswith(f"{place}/") for place in places) for file in marked)
    assert all(any(f"{file}/".startswith(f"{place}/") for file in marked) for place in places)
