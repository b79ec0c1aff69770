"""Right and wrong calls of the ops, drawn by chance: the oracle's bits, or an error that changes nothing; no crash."""

from __future__ import annotations

import subprocess
from pathlib import Path

import forked
import pytest
from slow import often, slow

from mist_ext.kernels import compiled

pytestmark = pytest.mark.skipif(compiled.C is None, reason="needs compiled kernels")
FUZZ = Path(__file__).parents[1] / "fuzz_ops"


def fuzz(*options: str) -> subprocess.CompletedProcess[str]:
    return forked.run(FUZZ / "__main__.py", *options)  # which starts a process


@pytest.mark.parametrize("calls", [200, slow(often(4000))])
def test_no_call_goes_wrong(calls: int) -> None:
    done = fuzz(f"--calls={calls}")
    assert done.returncode == 0, done.stdout + done.stderr
    right, wrong = (int(done.stdout.partition(f" {kind}: ")[2].partition(",")[0]) for kind in ("right", "wrong"))
    assert right + wrong == calls
    assert min(right, wrong) > 0.4 * calls


def test_a_crash_is_told_with_what_repeats_it() -> None:
    done = fuzz("--calls=9", "--seed=5", "--first=3", "--crash=7")
    assert done.returncode == 1
    assert "call 7 of seed 5 ended the process by signal 9" in done.stdout
    assert "again: python tests/fuzz_ops --here --seed 5 --first 7 --calls 1" in done.stdout
