"""What every test shares: the devices and dtypes that the kernels run on, and how bits are compared."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from fewer_images import every_nth
from hypothesis import settings
from torch import Tensor, nn

from mist_ext.data import digits
from mist_ext.kernels import compiled

# "repeatable" draws the same cases in every run; `pytest --hypothesis-profile long` draws 20 times as many others.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None, max_examples=60)
settings.register_profile("long", deadline=None, print_blob=True, max_examples=1200)
settings.load_profile("repeatable")

# On tensors as small as these, threads wait for each other, tens of times longer than they work; `threads` tests more.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # their threads leave the core to other tests while they wait

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
INSTRUCTION_SETS = compiled.C.instruction_sets() if compiled.C is not None else []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    missing = compiled.cuda_missing if compiled.cuda is None else ""
    if not torch.cuda.is_available():
        missing = "torch sees no GPU"
    for item in items:
        if missing and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=f"needs a GPU and the CUDA kernels: {missing}"))


@pytest.fixture(params=DEVICES, scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device that has compiled kernels here."""
    return torch.device(request.param)


@pytest.fixture(params=DTYPES, scope="session")
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Every dtype of parameters and gradients."""
    return DTYPES[request.param]


@pytest.fixture(params=INSTRUCTION_SETS)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set that this machine runs, in use during the test."""
    assert compiled.C is not None
    before = compiled.C.instruction_set()
    compiled.C.use_instruction_set(request.param)
    yield request.param
    compiled.C.use_instruction_set(before)


@pytest.fixture(params=[1, 2, 3], ids=["1_thread", "2_threads", "3_threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Numbers of CPU threads, in use during the test."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def same_bits() -> Callable[[Tensor, Tensor], bool]:
    """Whether two tensors have the same dtype, shape and bits: -0 is not 0, and a NaN is equal to itself."""

    def compare(a: Tensor, b: Tensor) -> bool:
        def raw(t: Tensor) -> Tensor:
            return torch.empty(t.numel(), dtype=t.dtype).copy_(t.detach().flatten()).view(torch.uint8)

        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(raw(a), raw(b))

    return compare


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave two of the six blocks of an embedded backbone: what a run does around them takes no longer than it must."""
    from mist_ext import backbones

    create = backbones.create

    def two_blocks(name: str, *weights: str) -> nn.Module:
        backbone = create(name, *weights)
        if name in backbones.EMBEDDED:
            del backbone.blocks[2:]  # type: ignore[union-attr, operator]
        return backbone

    monkeypatch.setattr(backbones, "create", two_blocks)


@pytest.fixture
def every_nth_digit(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Leaves every n-th image of both parts in the digits source."""

    def leave(n: int) -> None:
        few = every_nth(n)
        monkeypatch.setattr(digits, "digits", lambda: few)

    return leave


@pytest.fixture
def figures() -> None:
    """Keep the figures that a run draws at its end."""


@pytest.fixture(autouse=True)
def _without_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the figures of runs, which take longer than the rest of a small one, unless a test asks for them."""
    benchmark = sys.modules.get("mist_ext.runs.benchmark")  # the kernels' tests run where it cannot be imported
    if benchmark is not None and "figures" not in request.fixturenames:
        monkeypatch.setattr(benchmark, "write_reports", _write_reports_without_figures)


def _write_reports_without_figures(folder: Path) -> None:
    from mist_ext import report

    report.write_report(report.read_experiments([folder]), folder, figures=False)


class Surroundings:
    """Copies tensors into the midst of larger buffers, off every alignment, and tells whether those are untouched."""

    before, behind, value = 37, 64, 77

    def __init__(self) -> None:
        self.buffers: list[tuple[Tensor, int]] = []

    def __call__(self, tensor: Tensor, device: torch.device) -> Tensor:
        size = tensor.numel()
        buffer = torch.full((self.before + size + self.behind,), self.value, dtype=tensor.dtype, device=device)
        self.buffers.append((buffer, size))
        return buffer[self.before : self.before + size].view(tensor.shape).copy_(tensor)

    def intact(self) -> bool:
        return all(
            bool((buffer[: self.before] == self.value).all() and (buffer[self.before + size :] == self.value).all())
            for buffer, size in self.buffers
        )


@pytest.fixture
def surrounded() -> Iterator[Surroundings]:
    """Places tensors in larger buffers; fails the test if anything outside the tensors was written."""
    surroundings = Surroundings()
    yield surroundings
    assert surroundings.intact(), "memory outside a tensor was written"
