"""Times every op and its rivals with pytest-benchmark.

    pytest bench --model vit_ti --benchmark-group-by=group    # within 3 minutes on two cores that are free
    pytest bench --model vit_b --benchmark-group-by=group

First the op is verified against the oracle bit for bit, or the rival against the op; then two calls warm up, and each
round starts from cold caches. `peak_extra_bytes` in the results is the memory of a call. `roofline.py` compares in one
run and in turns, which these do not: its ratios are the ones to quote.
"""

from __future__ import annotations

import pytest
from contests import CONTESTS, Contest
from contests.contest import Call
from measuring import reason
from memory import available, peak_extra_bytes
from problem import Problem
from timing import Stopwatch

ROUNDS = 9
OURS = [(contest, name) for contest in CONTESTS for name in (contest.op, *contest.built_on_it)]
RIVALS = [(contest, name) for contest in CONTESTS for name in contest.rivals]


def timed(benchmark, contest: Contest, name: str, call: Call, stopwatch: Stopwatch) -> None:
    def finished() -> None:
        call()
        stopwatch.wait()

    call()  # makes lazy state
    benchmark.group = contest.op
    benchmark.name = name
    benchmark.extra_info["peak_extra_bytes"] = peak_extra_bytes(call, stopwatch.device)
    benchmark.extra_info["bytes"] = contest.moved()
    benchmark.pedantic(finished, setup=stopwatch.evict, rounds=ROUNDS, warmup_rounds=1)


@pytest.mark.parametrize(("kind", "name"), OURS, ids=[name for _, name in OURS])
def test_ours(benchmark, problem: Problem, stopwatch: Stopwatch, kind: type[Contest], name: str) -> None:
    contest = kind(problem)
    contest.verify()
    timed(benchmark, contest, name, contest.ours()[name], stopwatch)


@pytest.mark.parametrize(("kind", "name"), RIVALS, ids=[f"{kind.op}-{name}".replace(" ", "_") for kind, name in RIVALS])
def test_rival(benchmark, problem: Problem, stopwatch: Stopwatch, kind: type[Contest], name: str) -> None:
    rival = kind.rivals[name]
    if rival.needs(problem) > available(problem.device):
        pytest.skip(f"it needs {rival.needs(problem) / 1e9:.1f} GB more than there is")
    if rival.same_work:
        try:
            kind.verify_rival(name, problem)
        except RuntimeError as error:  # what torch has not for this device or dtype
            pytest.skip(reason(error))
    timed(benchmark, kind(problem), name, rival(problem), stopwatch)
    problem.forget("dense_mask", "dense_grad", "operands")
