"""select: exactly k positions of the largest scores, ties by lowest position, ascending, the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mist_ext.kernels import ops, reference

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
    """The positions that the CPU kernel looks at first: runs of four."""
    if n <= 1024:
        return torch.empty(0, dtype=torch.int64)
    runs = int(n**0.5 / 2)
    stride, run = n // runs, torch.arange(runs)
    start = run * stride + ((run * 0x9E3779B9 & 0xFFFFFFFF) * (stride - 3) >> 32)
    return (start[:, None] + torch.arange(4)).flatten()


# A sample of scores, spread evenly, stands for the whole: these layouts show it anything but a fair picture.
LAYOUTS = {
    "scattered": scattered,
    "ascending": lambda n: torch.arange(n).float(),
    "descending": lambda n: -torch.arange(n).float(),
    "constant": lambda n: torch.full((n,), 0.25),
    "two values": lambda n: (scattered(n) < 0.05).float(),
    "few values": lambda n: (scattered(n) * 4).floor(),
    "two hundred values": lambda n: (scattered(n) * 200).floor(),
    "ascending with ties": lambda n: (torch.arange(n) // 100).float(),
    "nearly all zero": lambda n: torch.where(scattered(n) < 0.01, scattered(n), 0),
    "one large": lambda n: torch.nn.functional.one_hot(torch.tensor(n - 1), n).float(),
    "large at every 16th": lambda n: only_where(n, slice(None, None, 16)),
    "large but at every 16th": lambda n: only_where(n, slice(None, None, 16), inverted=True),
    "large at every 17th": lambda n: only_where(n, slice(None, None, 17)),
    "large where the sample looks": lambda n: only_where(n, sampled(n)),
    "large but where the sample looks": lambda n: only_where(n, sampled(n), inverted=True),
    "large and equal but where the sample looks": lambda n: torch.ones(n).index_fill_(0, sampled(n), 0),
    "ascending but where the sample looks": lambda n: torch.arange(n).float().index_fill_(0, sampled(n), -1),
    "large in every 768th column": lambda n: only_where(n, slice(5, None, 768)),
    "large in the first block": lambda n: only_where(n, slice(0, n // 16)),
    "large in the last block": lambda n: only_where(n, slice(n - n // 16, None)),
    "small in one block": lambda n: only_where(n, slice(n // 4, n // 2), inverted=True),
    "negative": lambda n: -scattered(n) - 1,
    "zeros of both signs": lambda n: torch.where(scattered(n) < 0.5, -0.0, 0.0),
    "half minus infinity": lambda n: torch.where(scattered(n) < 0.5, -INFINITY, scattered(n)),
    "half infinity": lambda n: torch.where(scattered(n) < 0.5, INFINITY, scattered(n)),
    "infinities alone": lambda n: torch.where(scattered(n) < 0.5, INFINITY, -INFINITY),
    "subnormal": lambda n: (scattered(n) * 4e6).int().view(torch.float32),
    "over many magnitudes": lambda n: torch.exp(80 * scattered(n) - 50),
}
# Around the registers of 8 and 16 scores, the 1024 of which there is no sample, and the pieces of 16384.
SIZES = [1, 7, 8, 15, 16, 17, 1023, 1024, 1025, 1040, 16383, 16384, 16385, 65535, 65537, 131072 + 77]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_layout_of_the_scores_does_not_matter(device, layout, surrounded) -> None:
    scores, counts, expected = [], [], []
    for n in SIZES:
        chosen = sorted({0, 1, n // 1000, n // 20, n // 16, n // 2, n - n // 16, n - 1, n})
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


def test_neither_threads_nor_instruction_sets_matter(threads, instruction_set) -> None:
    """All layouts in one call, so that some tensors are done when others are searched again."""
    score = [layout(140001) for layout in LAYOUTS.values()]
    for scores, ours in zip(score, ops.select(score, [7000] * len(score)), strict=True):
        assert torch.equal(ours, numpy_select(scores, [7000])[0])


@pytest.mark.parametrize("levels", [3, 50, 1000, 20000])
def test_every_k_near_a_tie(device, levels) -> None:
    """The k-th score on both sides of every edge between equal scores."""
    n = 70001
    score = (scattered(n) * levels).floor()
    edges = score.unique(return_counts=True)[1].flip(0).cumsum(0)[:-1]
    edges = edges[:: max(len(edges) // 20, 1)].tolist()
    counts = [edge + shift for edge in edges for shift in (-1, 0, 1)]
    ours = ops.select([score.to(device)] * len(counts), counts)
    for chosen, theirs in zip(ours, numpy_select(score, counts), strict=True):
        assert torch.equal(chosen.cpu(), theirs)


@pytest.mark.parametrize("copies", [1, 100, 6000])
@pytest.mark.parametrize("width", [3, 12], ids=["first", "second"])
def test_many_scores_equal_a_bound(device, width, copies) -> None:
    """The CPU kernel's bounds are scores of the sample at ranks below the k-th's there."""
    n, k = 131072, 6553
    score = scattered(n)
    rank = k / n * len(sampled(n))
    margin = width * ((rank * (1 - k / n)) ** 0.5 + 1.5)
    value = score[sampled(n)].sort(descending=True).values[int(rank + margin)]
    unseen = torch.ones(n, dtype=torch.bool).index_fill_(0, sampled(n), False).nonzero().flatten()
    score[unseen[:: len(unseen) // copies][:copies]] = value
    larger, reaching = int((score > value).sum()), int((score >= value).sum())
    counts = sorted({k, larger, larger + 1, (larger + reaching) // 2, reaching, reaching + 1})
    ours = ops.select([score.to(device)] * len(counts), counts)
    for chosen, theirs in zip(ours, numpy_select(score, counts), strict=True):
        assert torch.equal(chosen.cpu(), theirs)


def test_a_sample_that_shows_too_much_is_tried_again(device) -> None:
    """The bound of the first try is above the k-th score; a later one must be taken."""
    n, k = 131072, 6553
    score = only_where(n, sampled(n)[::3])
    assert int((score > score[sampled(n)].sort(descending=True).values[36 + 22]).sum()) < k
    (ours,) = ops.select([score.to(device)], [k])
    assert torch.equal(ours.cpu(), numpy_select(score, [k])[0])


@pytest.mark.parametrize("seed", range(4))
def test_random_calls_agree_with_a_sort(device, seed) -> None:
    """Lists of tensors of any size, distribution and k, some much larger than the others."""
    rng = np.random.default_rng(seed)
    for _ in range(10):
        names = rng.choice(list(LAYOUTS), size=rng.integers(1, 12))
        near = rng.choice(SIZES[:-1], size=len(names))
        scores = [LAYOUTS[name](int(n + rng.integers(0, 40))) for name, n in zip(names, near, strict=True)]
        shuffled = [s[torch.from_numpy(rng.permutation(len(s)))] if rng.random() < 0.5 else s for s in scores]
        k = [int(len(s) * rng.choice([0, 0.001, 0.05, 0.5, 1]) + rng.integers(0, 2)) for s in scores]
        k = [min(count, len(s)) for count, s in zip(k, scores, strict=True)]
        ours = ops.select([s.to(device) for s in shuffled], k)
        for chosen, s, count in zip(ours, shuffled, k, strict=True):
            order = np.lexsort((np.arange(len(s)), -s.numpy()))
            assert torch.equal(chosen.cpu(), torch.from_numpy(np.sort(order[:count]).astype(np.int32)))


def test_positions_are_those_of_the_flattened_tensor(device) -> None:
    score = torch.zeros(3, 4, 5, device=device)
    score[2, 1, 3] = score[0, 3, 4] = 1
    assert ops.select([score], [2])[0].tolist() == [19, 48]


@pytest.mark.parametrize("at", [0, 1, 15, 6553, 16383, 16384, 70000, 131071, 131072 + 76])
@pytest.mark.parametrize("layout", ["scattered", "constant", "ascending", "descending", "half infinity"])
def test_the_first_nan_is_named(device, at, layout) -> None:
    """Among the largest, the smallest and those about the k-th, where the sample looks and where not."""
    n = 131072 + 77
    score = LAYOUTS[layout](n)
    score[at], score[n - 1] = float("nan"), float("nan")
    for k in (0, 1, n // 20, n - 1, n):
        with pytest.raises(RuntimeError, match=rf"score\[1\] is NaN at entry {at};"):
            ops.select([torch.ones(5, device=device), score.to(device), score.to(device)], [1, k, 5])
    with pytest.raises(RuntimeError, match=rf"score\[1\] is NaN at entry {at};"):
        reference.select([torch.ones(5), score, score], [1, 10, 5])


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800001, -0x400000, -1], ids=hex)
def test_every_kind_of_nan_is_one(instruction_set, bits) -> None:
    """Quiet and signalling, of both signs; alone, and as all scores."""
    nan = torch.tensor([bits], dtype=torch.int32).view(torch.float32)
    for n, at in ((1, 0), (64, 63), (65, 64), (9000, 8999)):
        for k in {0, 1, n}:
            with pytest.raises(RuntimeError, match=rf"score\[0\] is NaN at entry {at};"):
                ops.select([torch.cat([scattered(at), nan, scattered(n - at - 1)])], [k])
            with pytest.raises(RuntimeError, match=r"score\[0\] is NaN at entry 0;"):
                ops.select([nan.repeat(n)], [k])


def test_the_first_tensor_with_a_nan_is_named_whichever_is_noticed_first(device) -> None:
    """With k = 0 it is noticed in the first pass, else in the last."""
    late, early = scattered(70000), scattered(70000)
    late[69999] = early[3] = float("nan")
    for scores, k, at in (([late, early], [3500, 0], 69999), ([early, late], [0, 3500], 3)):
        with pytest.raises(RuntimeError, match=rf"score\[1\] is NaN at entry {at};"):
            ops.select([torch.ones(9, device=device), *(s.to(device) for s in scores)], [4, *k])


def test_no_tensors_are_no_work() -> None:
    assert ops.select([], []) == []
