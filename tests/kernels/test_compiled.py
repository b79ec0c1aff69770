"""Where the compiled kernels are found, and what is said where they are not: each in a Python process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mist_ext
from mist_ext.kernels import compiled

SOURCES = Path(mist_ext.__file__).parent
USE = """
import warnings
import torch
from mist_ext.kernels import compiled, ops
for _ in range(2):
    assert ops.select([torch.tensor([1.0, 3.0, 2.0])], [2])[0].tolist() == [1, 2]
print(ops.backend(torch.device("cpu")), compiled.C and compiled.C.__file__)
"""
needs_kernels = pytest.mark.skipif(compiled.C is None, reason="needs compiled kernels")


def run(code: str, *paths: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these folders first on its path, and no other folder there that holds the package."""
    found = ["import sys, pathlib, torch"]
    found.append("sys.path[:] = [p for p in sys.path if not (pathlib.Path(p) / 'mist_ext').is_dir()]")
    found.append(f"sys.path[:0] = {[str(path) for path in paths]!r}")
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MIST_EXT_BACKEND", "PYTHONWARNINGS")}
    return subprocess.run(
        [sys.executable, "-c", "\n".join(found) + code],
        capture_output=True,
        text=True,
        check=False,
        env=inherited | environment,
        cwd=paths[0],
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Python sources and nothing compiled."""
    root = tmp_path / "checkout"
    shutil.copytree(SOURCES, root / "mist_ext", ignore=shutil.ignore_patterns("_C*", "_cuda*", "assets", "__pycache__"))
    return root


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder of packages, as pip fills it, with the compiled kernels."""
    assert compiled.C is not None
    folder = tmp_path / "site" / "mist_ext"
    folder.mkdir(parents=True)
    shutil.copy(compiled.C.__file__, folder)
    return folder.parent


def test_the_reference_can_be_forced_and_then_says_nothing(checkout: Path) -> None:
    done = run(USE, checkout, MIST_EXT_BACKEND="reference", PYTHONWARNINGS="error::RuntimeWarning")
    assert (done.stdout, done.returncode) == ("reference None\n", 0), done.stderr


@needs_kernels
def test_the_reference_is_honoured_where_kernels_are_installed(checkout: Path, installed: Path) -> None:
    done = run(USE, checkout, installed, MIST_EXT_BACKEND="reference")
    assert done.stdout == "reference None\n", done.stderr


def test_an_unknown_backend_is_refused(checkout: Path) -> None:
    done = run(USE, checkout, MIST_EXT_BACKEND="cuda")
    assert done.returncode != 0
    assert "ValueError: MIST_EXT_BACKEND is 'cuda', expected one of compiled, reference" in done.stderr


@needs_kernels
def test_a_checkout_runs_the_kernels_of_the_installed_package(checkout: Path, installed: Path) -> None:
    done = run(USE, checkout, installed, PYTHONWARNINGS="error::RuntimeWarning")
    backend, file = done.stdout.split()
    assert backend == "cpu"
    assert Path(file).parent == installed / "mist_ext"


def test_without_kernels_the_reference_takes_over_with_one_warning(checkout: Path) -> None:
    done = run(USE, checkout, PYTHONWARNINGS="always")
    assert done.stdout == "reference None\n", done.stderr
    assert done.stderr.count("RuntimeWarning") == 1
    assert "slow plain-PyTorch kernels on cpu: mist_ext/_C was not built" in done.stderr


@needs_kernels
def test_kernels_that_do_not_load_are_named(checkout: Path) -> None:
    broken = checkout / "mist_ext" / Path(compiled.C.__file__).name
    broken.write_bytes(b"no shared object")
    done = run(USE, checkout, PYTHONWARNINGS="always")
    assert done.stdout == "reference None\n", done.stderr
    assert done.stderr.count("RuntimeWarning") == 1
    assert f"{broken} does not load" in done.stderr


@needs_kernels
def test_kernels_built_from_other_sources_are_used_with_a_warning(checkout: Path, installed: Path) -> None:
    (checkout / "csrc").mkdir()
    (checkout / "csrc" / "philox.h").write_text("// changed since the build\n")
    done = run(USE, checkout, installed, PYTHONWARNINGS="always")
    assert done.stdout.startswith("cpu "), done.stderr
    assert done.stderr.count("RuntimeWarning") == 1
    assert "were built from other sources than" in done.stderr
    assert "run `pip install .` again" in done.stderr
