"""Seconds and memory of a phase are its own: what is before, after, within or beside it does not count."""

from __future__ import annotations

import time

import pytest
import torch

from mist_ext.system import peak_memory
from mist_ext.system.costs import PHASES, Costs
from mist_ext.tuners.tuner import Tuned

SIZE = 200 * 10**6
RESETTABLE = pytest.mark.skipif(not peak_memory.resettable(), reason="the system does not let the peak be reset")


def allocate() -> None:
    torch.ones(SIZE // 4)


@RESETTABLE
def test_memory_is_seen_in_the_phase_that_takes_it_and_not_in_the_next() -> None:
    costs = Costs(torch.device("cpu"))
    for phase, work in (("select", time.time), ("tune", allocate), ("learn", time.time)):
        with costs.phase(phase):
            work()
    before, during, after = (costs.peak_memory_bytes[phase] for phase in ("select", "tune", "learn"))
    assert during - before == pytest.approx(SIZE, rel=0.1)
    assert during - after == pytest.approx(SIZE, rel=0.1)


@RESETTABLE
@pytest.mark.parametrize("kind", ["inner_phase", "apart"])
def test_what_is_done_within_a_phase_but_not_for_it_does_not_count(kind: str) -> None:
    def work() -> None:
        allocate()
        time.sleep(0.2)

    costs = Costs()
    with costs.phase("select"):
        pass
    quiet = costs.peak_memory_bytes["select"]
    with costs.phase("select"):
        if kind == "apart":
            costs.apart(work)
        else:
            with costs.phase("score"):
                work()
        time.sleep(0.05)
    assert 0.05 <= costs.seconds["select"] < 0.2
    assert costs.peak_memory_bytes["select"] - quiet < SIZE / 4
    if kind == "inner_phase":
        assert costs.seconds["score"] >= 0.2
        assert costs.peak_memory_bytes["score"] - quiet == pytest.approx(SIZE, rel=0.1)


@RESETTABLE
def test_of_several_parts_the_largest_counts() -> None:
    costs = Costs()
    peaks = []
    for work in (time.time, allocate, time.time):
        with costs.phase("tune"):
            work()
            time.sleep(0.02)
        peaks.append(costs.peak_memory_bytes["tune"])
    assert peaks[1] - peaks[0] == pytest.approx(SIZE, rel=0.1)
    assert peaks[2] == peaks[1]
    assert costs.seconds["tune"] >= 0.06


def test_a_phase_that_was_not_has_no_seconds_and_no_memory() -> None:
    costs = Costs()
    with costs.phase("learn"):
        pass
    assert [phase for phase in PHASES if costs.seconds[phase]] == ["learn"]
    assert [phase for phase in PHASES if costs.peak_memory_bytes[phase] is not None] == ["learn"]


def test_an_error_ends_the_phase() -> None:
    costs = Costs()
    with pytest.raises(RuntimeError), costs.phase("tune"):
        raise RuntimeError
    spent = dict(costs.seconds)
    time.sleep(0.01)
    with costs.phase("learn"):
        pass
    assert costs.seconds["tune"] == spent["tune"] > 0


def test_an_unknown_phase_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'tunne'.*tune"), Costs().phase("tunne"):
        pass


def test_together_seconds_are_summed_and_the_larger_peak_is_kept() -> None:
    one = Costs(None, dict.fromkeys(PHASES, 1.0), {**dict.fromkeys(PHASES), "tune": 5, "learn": 7})
    other = Costs(None, dict.fromkeys(PHASES, 0.5), {**dict.fromkeys(PHASES), "learn": 6, "evaluate": 8})
    both = one + other
    assert both.seconds == dict.fromkeys(PHASES, 1.5)
    assert both.peak_memory_bytes == {"score": None, "select": None, "tune": 5, "learn": 7, "evaluate": 8}
    with both.phase("score"):
        pass
    assert one.peak_memory_bytes["score"] is None


def test_what_goes_on_after_a_stop_keeps_the_larger_peak_and_adds_seconds() -> None:
    tuned = Tuned()
    tuned.costs.seconds["tune"] = 100.0
    tuned.costs.peak_memory_bytes |= {"score": 1, "tune": 1 << 60}
    again = Tuned.restored(tuned.state_dict())
    for phase in ("score", "tune"):
        with again.costs.phase(phase):
            pass
    assert again.costs.seconds["tune"] > 100
    assert again.costs.peak_memory_bytes["score"] > 1
    assert again.costs.peak_memory_bytes["tune"] == 1 << 60


def test_where_the_peak_cannot_be_reset_it_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_memory, "resettable", lambda: False)
    costs = Costs()
    peaks = []
    for phase, work in (("select", time.time), ("tune", allocate), ("learn", time.time)):
        with costs.phase(phase):
            work()
        peaks.append(costs.peak_memory_bytes[phase])
    assert peaks[1] > SIZE
    assert peaks == sorted(peaks)


@pytest.mark.gpu
def test_on_a_gpu_memory_is_its_own_and_the_end_of_a_phase_waits() -> None:
    device = torch.device("cuda")
    matrix = torch.ones(4096, 4096, device=device)
    costs = Costs(device)
    for phase in ("select", "tune", "learn"):
        with costs.phase(phase):
            if phase == "tune":
                for _ in range(50):
                    matrix @ matrix
    quiet, tune, learn = (costs.peak_memory_bytes[phase] for phase in ("select", "tune", "learn"))
    assert tune >= quiet + matrix.nbytes
    assert learn < tune
    assert costs.seconds["learn"] < costs.seconds["tune"] / 2
