"""Times the fused ops beside the published chains; each is verified against the oracle before it is timed.

    pytest bench --benchmark-group-by=group

The tensors are far larger than any cache, so every round starts cold.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
from problem import KEEP, Problem
from published import PublishedScore, PublishedStep

from mist_ext import ops, reference

ROUNDS = 9


def time(benchmark, group: str, function) -> None:
    def synchronized() -> None:
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    benchmark.group = group
    benchmark.pedantic(synchronized, rounds=ROUNDS, warmup_rounds=2)


def assert_same_bits(ours, oracle) -> None:
    for a, b in zip(ours, oracle, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("who", ["mist_ext", "published"])
def test_score(benchmark, problem: Problem, who: str) -> None:
    ours, oracle = ([torch.zeros_like(s) for s in problem.score] for _ in range(2))
    ops.accumulate_(ours, problem.grad, None, 0.05)
    reference.accumulate_(oracle, problem.grad, [None] * len(oracle), 0.05)
    assert_same_bits(ours, oracle)
    chains = {
        "mist_ext": lambda: ops.accumulate_(ours, problem.grad, None, 0.05),
        "published": PublishedScore(problem),
    }
    time(benchmark, "score", chains[who])


@pytest.mark.parametrize("who", ["mist_ext", "torch.topk", "torch.kthvalue"])
def test_select(benchmark, problem: Problem, who: str) -> None:
    score = [problem.score[i] for i in problem.by_score]
    assert_same_bits(ops.select(score, problem.count), reference.select(score, problem.count))

    def topk() -> None:
        for s, k in zip(score, problem.count, strict=True):
            torch.topk(s.flatten(), k, sorted=False)

    def kthvalue() -> None:
        for s, k in zip(score, problem.count, strict=True):
            torch.kthvalue(s.flatten(), s.numel() - k + 1)

    chains = {
        "mist_ext": lambda: ops.select(score, problem.count),
        "torch.topk": topk,
        "torch.kthvalue": kthvalue,
    }
    time(benchmark, "select", chains[who])


@pytest.mark.parametrize("who", ["mist_ext", "published"])
def test_step(benchmark, problem: Problem, who: str) -> None:
    before = copy.deepcopy([problem.param, problem.momentum, problem.master])
    problem.drop_apply()
    ours = [problem.param, problem.momentum, problem.master]
    problem.param, problem.momentum, problem.master = copy.deepcopy(before)
    problem.step -= 1
    problem.drop_apply(reference.drop_apply_sgd_)
    for fused, oracle in zip(ours, [problem.param, problem.momentum, problem.master], strict=True):
        assert_same_bits(fused, oracle)
    changed = sum(int((a != b).sum()) for a, b in zip(before[0], problem.param, strict=True))
    assert math.isclose(changed, KEEP * sum(problem.selected), rel_tol=0.05)
    time(benchmark, "step", problem.drop_apply if who == "mist_ext" else PublishedStep(problem))
