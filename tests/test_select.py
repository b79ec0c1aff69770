"""select: exactly k positions of the largest scores, ties by lowest position, ascending, the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mist_ext import ops, reference

INFINITY = float("inf")


def slow_select(score: Tensor, k: int) -> list[int]:
    values = score.flatten().tolist()
    return sorted(sorted(range(len(values)), key=lambda entry: (-values[entry], entry))[:k])


def numpy_select(score: Tensor, counts: list[int]) -> list[Tensor]:
    order = np.argsort(-score.flatten().numpy(), kind="stable").astype(np.int32)
    return [torch.from_numpy(np.sort(order[:k])) for k in counts]


SMALL = {
    "one": [3.0],
    "distinct": [0.5, 2.0, -1.0, 7.0, 0.25],
    "ties": [1.0, 2.0, 1.0, 2.0, 1.0, 2.0],
    "constant": [4.0] * 9,
    "negative": [-3.0, -1.0, -2.0, -1.0],
    "zeros of both signs": [-0.0, 0.0, -0.0, 0.0, -1.0, 0.0],
    "infinities": [-INFINITY, INFINITY, 0.0, INFINITY, -INFINITY, 3.4e38],
    "all minus infinity": [-INFINITY] * 5,
    "subnormal": [1e-45, 0.0, 3e-45, -1e-45, 1e-45],
}


@pytest.mark.parametrize("scores", SMALL.values(), ids=SMALL)
def test_every_k_of_a_few_scores(device, scores) -> None:
    score = torch.tensor(scores)
    for k in range(len(scores) + 1):
        (ours,) = ops.select([score.to(device)], [k])
        (oracle,) = reference.select([score], [k])
        assert ours.dtype == oracle.dtype == torch.int32
        assert ours.device.type == device.type
        assert ours.tolist() == oracle.tolist() == slow_select(score, k)


@given(
    scores=st.lists(st.floats(width=32, allow_nan=False) | st.sampled_from([0.0, -0.0, 1.0]), max_size=200),
    fraction=st.floats(0, 1),
)
def test_any_scores(device, scores, fraction) -> None:
    k = round(fraction * len(scores))
    (ours,) = ops.select([torch.tensor(scores, dtype=torch.float32, device=device)], [k])
    assert ours.tolist() == slow_select(torch.tensor(scores, dtype=torch.float32), k)


def scattered(n: int) -> Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(n))


def only_where(n: int, chosen: slice | Tensor, inverted: bool = False) -> Tensor:
    """Scores that are large at the chosen positions, or everywhere else."""
    flags = torch.zeros(n, dtype=torch.bool)
    flags[chosen] = True
    return scattered(n) + (flags ^ inverted).float()


def sampled(n: int) -> Tensor:
    """The positions that the CPU kernel looks at first."""
    stride = max(n // 8192, 1)
    number = torch.arange(min(n, 8192))
    return number * stride + ((number * 0x9E3779B9 & 0xFFFFFFFF) * stride >> 32)


# A sample of scores, spread evenly, stands for the whole: these layouts show it anything but a fair picture.
LAYOUTS = {
    "scattered": scattered,
    "ascending": lambda n: torch.arange(n).float(),
    "descending": lambda n: -torch.arange(n).float(),
    "constant": lambda n: torch.full((n,), 0.25),
    "few values": lambda n: (scattered(n) * 4).floor(),
    "nearly all zero": lambda n: torch.where(scattered(n) < 0.01, scattered(n), 0),
    "one large": lambda n: torch.nn.functional.one_hot(torch.tensor(n - 1), n).float(),
    "large at every 16th": lambda n: only_where(n, slice(None, None, 16)),
    "large but at every 16th": lambda n: only_where(n, slice(None, None, 16), inverted=True),
    "large at every 17th": lambda n: only_where(n, slice(None, None, 17)),
    "large where the sample looks": lambda n: only_where(n, sampled(n)),
    "large but where the sample looks": lambda n: only_where(n, sampled(n), inverted=True),
    "large in the first block": lambda n: only_where(n, slice(0, n // 16)),
    "large in the last block": lambda n: only_where(n, slice(n - n // 16, None)),
    "small in one block": lambda n: only_where(n, slice(n // 4, n // 2), inverted=True),
    "negative": lambda n: -scattered(n) - 1,
    "zeros of both signs": lambda n: torch.where(scattered(n) < 0.5, -0.0, 0.0),
    "half minus infinity": lambda n: torch.where(scattered(n) < 0.5, -INFINITY, scattered(n)),
    "half infinity": lambda n: torch.where(scattered(n) < 0.5, INFINITY, scattered(n)),
    "over many magnitudes": lambda n: torch.exp(80 * scattered(n) - 50),
}
SIZES = [63, 64, 65, 8192, 8193, 65536, 65537, 131072 + 77]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_layout_of_the_scores_does_not_matter(device, layout, surrounded) -> None:
    scores, counts, expected = [], [], []
    for n in SIZES:
        chosen = sorted({0, 1, n // 1000, n // 20, n // 2, n - 1, n})
        scores += [surrounded(layout(n), device)] * len(chosen)
        counts += chosen
        expected += numpy_select(layout(n), chosen)
    for ours, theirs in zip(ops.select(scores, counts), expected, strict=True):
        assert torch.equal(ours.cpu(), theirs)


def test_the_oracle_selects_the_same_of_many(threads) -> None:
    score = [scattered(70000), LAYOUTS["few values"](70000), scattered(6).view(2, 3), torch.empty(0)]
    k = [3500, 3500, 2, 0]
    for ours, oracle in zip(ops.select(score, k), reference.select(score, k), strict=True):
        assert torch.equal(ours, oracle)


def test_the_number_of_threads_does_not_matter(threads) -> None:
    score = [layout(150001) for layout in LAYOUTS.values()]
    for scores, ours in zip(score, ops.select(score, [7500] * len(score)), strict=True):
        assert torch.equal(ours, numpy_select(scores, [7500])[0])


def test_positions_are_those_of_the_flattened_tensor(device) -> None:
    score = torch.zeros(3, 4, 5, device=device)
    score[2, 1, 3] = score[0, 3, 4] = 1
    assert ops.select([score], [2])[0].tolist() == [19, 48]


@pytest.mark.parametrize("at", [0, 1, 63, 70000, 131071])
@pytest.mark.parametrize("k", [0, 10, 131072])
def test_the_first_nan_is_named(device, at, k) -> None:
    score = scattered(131072)
    score[at], score[131071] = float("nan"), float("nan")
    for run, where in ((ops, device), (reference, torch.device("cpu"))):
        with pytest.raises(RuntimeError, match=rf"score\[1\] is NaN at entry {at};"):
            run.select([torch.ones(5, device=where), score.to(where)], [1, k])


def test_no_tensors_are_no_work() -> None:
    assert ops.select([], []) == []
