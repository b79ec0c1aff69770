"""SparseExchange: two processes that exchange kept gradients step as one process does with all of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mist_ext import Selection, SparseExchange, SparseSGD
from mist_ext.optim import LargestGradientSGD

SIZE = 2
OPTIMIZERS = ["sgd", "adamw"]


class Ranks:
    """Two processes that run cases of exchange_ranks.py together."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        program = Path(__file__).with_name("exchange_ranks.py")
        self.processes = [
            subprocess.Popen(
                [sys.executable, program, str(rank), str(SIZE), str(folder / "store"), str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(SIZE)
        ]

    def __call__(self, case: str, **options: Any) -> list[Any]:
        """What each rank returned."""
        outcomes = self.outcomes(case, **options)
        assert all("result" in outcome for outcome in outcomes), outcomes
        return [outcome["result"] for outcome in outcomes]

    def errors(self, case: str, **options: Any) -> list[str]:
        """What each rank was told."""
        outcomes = self.outcomes(case, **options)
        assert all("error" in outcome for outcome in outcomes), "a rank was not told of the error"
        return [outcome["error"] for outcome in outcomes]

    def outcomes(self, case: str, **options: Any) -> list[dict[str, Any]]:
        self.count += 1
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps([case, options, self.count]) + "\n")
            process.stdin.flush()
        for process in self.processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n", f"a rank ended in {case}"
        return [torch.load(self.folder / f"{self.count}-{rank}") for rank in range(SIZE)]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    started = Ranks(tmp_path_factory.mktemp("ranks"))
    yield started
    for process in started.processes:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=20)


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    """Each tensor to a tolerance relative to its largest value."""
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        scale = float(value.abs().float().max()) if value.numel() else 0.0
        difference = (ours[name].float() - value.float()).abs()
        assert not value.numel() or float(difference.max()) <= tolerance * scale, name


def assert_same(same_bits: Callable, ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert all(same_bits(ours[name], value) for name, value in theirs.items())


@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_two_ranks_step_as_one_process_with_all_gradients(ranks, make, reduce, same_bits) -> None:
    one, other = ranks("together", make=make, reduce=reduce)
    expected, _ = ranks("alone", make=make, reduce=reduce)
    assert_close(one["values"], expected, 1e-6)
    assert_same(same_bits, one["values"], other["values"])
    assert one["steps"] == 5
    moved = [not torch.equal(one["began"][name], value) for name, value in one["values"].items() if "/" not in name]
    assert sum(moved) > 0.9 * len(moved)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_the_bits_are_the_same_within_backward(ranks, make, dtype, same_bits) -> None:
    within, _ = ranks("together", make=make, dtype=dtype, within=True)
    after, _ = ranks("together", make=make, dtype=dtype)
    assert_same(same_bits, within["values"], after["values"])
    assert within["bytes"] == after["bytes"] > 0
    assert within["gradients left"] == 0 < after["gradients left"]


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_masters_of_16_bit_parameters_follow_the_summed_gradients(ranks, dtype) -> None:
    """One process has to round the sum of the gradients to their dtype, the ranks have not."""
    ours, _ = ranks("together", dtype=dtype)
    expected, _ = ranks("alone", dtype=dtype)
    masters = [name for name in expected if name.endswith("/master")]
    assert len(masters) > 40
    moved = far = 0.0
    for name in masters:
        moved += float((expected[name] - ours["began"][name]).square().sum())
        far += float((expected[name] - ours["values"][name]).square().sum())
    assert 0 < far < (0.03**2) * moved
    for name in masters:
        parameter = ours["values"][name.removesuffix("/master")].flatten()
        index = ours["values"].get(name.replace("/master", "/index"))
        chosen = parameter if index is None else parameter[index.long()]
        assert torch.equal(chosen, ours["values"][name].to(chosen.dtype))


def test_a_bfloat16_wire_takes_half_of_the_bytes_and_stays_close(ranks) -> None:
    full, _ = ranks("together")
    half, _ = ranks("together", wire="bf16")
    assert half["bytes"] == full["bytes"] / 2
    moved = far = 0.0
    for name in (name for name in full["values"] if "/" not in name):
        moved += float((full["values"][name] - full["began"][name]).square().sum())
        far += float((full["values"][name] - half["values"][name]).square().sum())
    assert 0 < far < (0.02**2) * moved


def test_the_bytes_are_those_of_the_kept_entries(ranks) -> None:
    ours, _ = ranks("together")
    assert ours["bytes"] == pytest.approx(4 * ours["kept"], rel=0.05)


@pytest.mark.parametrize("within", [False, True], ids=["after", "within"])
def test_the_used_parts_may_change_on_all_ranks_together(ranks, within, same_bits) -> None:
    used = [["lll", "lll"], ["lll", "lll"], ["lrl", "lrl"], ["rrr", "rrr"], ["rrr", "rrr"]]
    one, other = ranks("branches", used=used, within=within)
    assert_same(same_bits, one, other)
    assert_same(same_bits, one, ranks("branches", used=used, within=not within)[0])


@pytest.mark.parametrize("within", [False, True], ids=["after", "within"])
@pytest.mark.parametrize("before", [0, 2], ids=["first_step", "later"])
def test_a_gradient_on_one_rank_alone_is_named(ranks, before, within) -> None:
    used = [["lll", "lll"]] * before + [["lrl", "lll"]]
    for error in ranks.errors("branches", used=used, within=within):
        assert "'blocks.1.left.weight' has a gradient on rank 1, but none on rank 0" in error


DIFFERENT = {
    "selection": r"digest of the selection of 'cls_token' is \w+ on rank 0, but \w+ on rank 1",
    "seed": "seed is 0 on rank 0, but 5 on rank 1",
    "keep": "keep of group 0 is 0.1 on rank 0, but 0.2 on rank 1",
    "lr": "lr of group 0 is 0.01 on rank 0, but 0.02 on rank 1",
    "step": "step of group 0 is 0 on rank 0, but 3 on rank 1",
    "wire": "wire is torch.float32 on rank 0, but torch.bfloat16 on rank 1",
    "parameters": r"checksum of 'blocks.1.mlp.fc1.weight' is -?\d+ on rank 0",
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_ranks_that_differ_are_refused(ranks, what) -> None:
    for error in ranks.errors("differing", what=what):
        with pytest.raises(RuntimeError, match=DIFFERENT[what]):
            raise RuntimeError(error)


def test_a_grad_scaler_is_refused(ranks) -> None:
    assert all("use bfloat16, which needs no scaler" in error for error in ranks.errors("scaled"))


def test_two_exchanges_of_one_optimiser_are_refused(ranks) -> None:
    assert all("in another SparseExchange already" in error for error in ranks.errors("entered_twice"))


def test_loading_a_state_changes_what_is_drawn_next(ranks, same_bits) -> None:
    one, other = ranks("resumed")
    assert_same(same_bits, one, other)
    assert_same(same_bits, one, ranks("together")[0]["values"])


def tiny(make: type = SparseSGD) -> Any:
    model = nn.Linear(4, 4)
    return make(model.named_parameters(), Selection.whole(model.named_parameters()))


def test_without_a_process_group_it_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"needs a process group: start with torchrun"), SparseExchange(tiny()):
        pass


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="LargestGradientSGD needs dense gradients"):
        SparseExchange(tiny(LargestGradientSGD))
    with pytest.raises(ValueError, match=r"wire is torch.float16, expected torch.float32 or torch.bfloat16"):
        SparseExchange(tiny(), wire=torch.float16)
    with pytest.raises(ValueError, match="reduce is 'max', expected 'sum' or 'mean'"):
        SparseExchange(tiny(), reduce="max")


def test_one_process_alone_is_a_group_too(tmp_path, same_bits) -> None:
    """In a group of one the exchange changes nothing."""
    program = Path(__file__).with_name("exchange_ranks.py")
    lines = "".join(json.dumps([case, {}, case]) + "\n" for case in ("together", "alone"))
    command = [sys.executable, program, "0", "1", str(tmp_path / "store"), str(tmp_path)]
    subprocess.run(command, input=lines, text=True, check=True, stdout=subprocess.DEVNULL)
    ours, theirs = (torch.load(tmp_path / f"{case}-0")["result"] for case in ("together", "alone"))
    assert_same(same_bits, ours["values"], theirs)
