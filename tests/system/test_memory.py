"""Available memory is the least of what machine and container allow, and too little is an error with figures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mist_ext.system import memory

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with 8 MB available, without a control group."""
    (tmp_path / "meminfo").write_text("MemTotal: 16000 kB\nMemFree: 1000 kB\nMemAvailable:    8000 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "cgroup")
    (tmp_path / "cgroup").mkdir()
    return tmp_path


def test_the_kernels_own_count_is_taken(machine: Path) -> None:
    assert memory.available(CPU) == 8000 * 1024


def test_a_container_may_allow_less(machine: Path) -> None:
    group = machine / "cgroup"
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("5000000\n")
    (group / "memory.stat").write_text("anon 4000000\ninactive_file 300000\n")
    assert memory.available(CPU) == 8000 * 1024
    (group / "memory.max").write_text("6000000\n")
    assert memory.available(CPU) == 1_300_000


def test_an_older_container_may_allow_less(machine: Path) -> None:
    group = machine / "cgroup" / "memory"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text("6000000\n")
    (group / "memory.usage_in_bytes").write_text("5000000\n")
    (group / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 200000\n")
    assert memory.available(CPU) == 1_200_000


def test_a_machine_that_tells_no_more_has_its_whole_memory(machine: Path) -> None:
    (machine / "meminfo").unlink()
    assert memory.available(CPU) > 2**28


def test_too_little_is_an_error_with_both_figures_and_the_advice(machine: Path) -> None:
    memory.require(8000 * 1024, CPU, "a matrix", "make it smaller")
    with pytest.raises(
        memory.NotEnoughMemory, match=r"a matrix needs 3\.0 GB of memory, but 0\.0 GB are .*make it small"
    ):
        memory.require(3e9, CPU, "a matrix", "make it smaller")
