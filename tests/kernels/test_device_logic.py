"""What host and device share, compiled for the host: so it is tested where no CUDA kernel runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "tests" / "device" / "logic.cpp"
CASES = re.findall(r'^    \{"(\w+)", \1\},$', SOURCE.read_text(), re.MULTILINE)
CXX = next(filter(shutil.which, filter(None, [os.environ.get("CXX"), "c++", "g++", "clang++"])), None)

pytestmark = pytest.mark.skipif(CXX is None, reason="needs a C++ compiler")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cases, compiled without torch and without CUDA, with the rounding that the kernels have."""
    path = tmp_path_factory.mktemp("device") / "logic"
    flags = ["-O1", "-std=c++20", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-D_GLIBCXX_ASSERTIONS"]
    done = subprocess.run([CXX, *flags, "-I", ROOT / "csrc", SOURCE, "-o", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return path


def test_there_is_a_test_for_each_case(program: Path) -> None:
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == CASES


@pytest.mark.parametrize("case", CASES)
def test_case(program: Path, case: str) -> None:
    done = subprocess.run([program, case], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
