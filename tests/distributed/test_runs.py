"""Several processes end a run as one does, and go on with one that was interrupted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from processes import outcomes_of, together
from rich.console import Console
from slow import first_is_quick
from small_runs import HOW, furthest, results, run, weights
from stopping import stop_at

from mist_ext import backbones, data, tuners
from mist_ext.config import TuningOptions
from mist_ext.data.decode import BrokenImage
from mist_ext.data.stream import Stream
from mist_ext.kernels import ops
from mist_ext.results import manifest
from mist_ext.runs import benchmark, checkpoint, image_check
from mist_ext.runs.interruption import Checkpointer, Interrupted


@pytest.mark.parametrize(
    ("size", "options"),
    first_is_quick(
        [
            (2, {}),
            (4, {}),
            (2, {"in_backward": False}),
            (2, {"exchange": "dense"}),
            (2, {"drop": "updates", "schedule": "cosine"}),
            (4, {"tuner": ["full"]}),
            (2, {"dynamics": "published"}),
            (2, {"score_objective": "ce", "tune_objective": "ce", "score_passes": 2}),
            (2, {"tuner": ["published_gradient", "published_random"], "tune_objective": "ce_cosine"}),
            (2, {"tuner": ["none", "gradient"]}),
            (2, {"tuner": ["bitfit", "random"]}),
            (
                2,
                {
                    "tuner": ["none"],
                    "method": ["aper_ssf", "slca", "coda_prompt"],
                    "method_options": ["epochs=1", "prompted_blocks=(0, 1)"],
                },
            ),
        ]
    ),
    ids=lambda value: (
        str(value) if isinstance(value, int) else ",".join(f"{k}={v}" for k, v in value.items()) or "mist"
    ),
)
def test_a_run_of_several_processes_ends_as_that_of_one(
    size: int, options: dict, alone: Callable[..., Path], tmp_path: Path
) -> None:
    """The sums over a batch are added in another order: the weights agree to 1e-6, what is counted agrees."""
    together(size, lambda _: run(tmp_path / "run", **options))
    one = alone(**{name: value for name, value in options.items() if name not in HOW})
    assert furthest(weights(tmp_path / "run"), weights(one)) < 1e-6
    assert results(tmp_path / "run") == results(one)


def test_updates_are_not_dropped_within_backward_of_several_processes(tmp_path: Path) -> None:
    for outcome in outcomes_of(2, lambda _: run(tmp_path / "run", drop="updates", in_backward=True)):
        assert "in_backward is True, but drop is 'updates'" in str(outcome)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_narrow_wire_stays_close(alone: Callable[..., Path], tmp_path: Path) -> None:
    together(2, lambda _: run(tmp_path / "run", wire="bf16"))
    difference = furthest(weights(tmp_path / "run"), weights(alone()))
    assert 0 < difference < 1e-2


def test_rank_0_alone_writes_and_speaks(tmp_path: Path) -> None:
    said = together(3, lambda _: run(tmp_path / "run", tuner=["none"]))
    assert "task 1/2" in said[0]
    assert said[1:] == ["", ""]
    log = (tmp_path / "run" / "digits-none-simplecil" / "log.jsonl").read_text()
    assert len(log.splitlines()) == 2


@pytest.mark.parametrize(
    ("before", "after", "call"),
    first_is_quick([(2, 1, 2), (3, 2, 2), (1, 3, 7), (2, 1, 7)]),
    ids=lambda value: str(value),
)
def test_a_run_goes_on_with_another_number_of_processes(
    before: int, after: int, call: int, alone: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"

    def interrupted(_rank: int) -> None:
        stop_at(monkeypatch, call, rank=before - 1)  # the others hear of it
        with pytest.raises(Interrupted):
            run(folder, checkpoint_every="1h")

    together(before, interrupted)
    assert list((folder / manifest.CHECKPOINTS).glob("0*"))
    together(after, lambda _: benchmark.resume(folder, Console(quiet=True)))
    assert results(folder) == results(alone())
    assert furthest(weights(folder), weights(alone())) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("dying", [0, 1], ids=["while it saves", "between two steps"])
def test_a_lost_rank_ends_the_run_with_a_sentence_and_the_run_goes_on(
    dying: int, alone: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"

    def die_after(number: int, original: Callable) -> Callable:
        calls = [0]

        def call(*arguments):
            original(*arguments)
            calls[0] += 1
            if calls[0] == number:
                os._exit(9)

        return call

    def work(rank: int) -> None:
        if rank == dying == 0:  # the tensors of its third checkpoint are there, the rest is not
            monkeypatch.setattr(checkpoint, "save_file", die_after(3, checkpoint.save_file))
        elif rank == dying:
            monkeypatch.setattr(Checkpointer, "save_if_due", die_after(6, Checkpointer.save_if_due))
        run(folder, checkpoint_every="0s")

    outcomes = outcomes_of(2, work)
    assert str(outcomes[dying]) == "it ended without a word"
    assert "LostRank: another process of the run ended" in str(outcomes[1 - dying])
    whole = [path.name for path in (folder / manifest.CHECKPOINTS).glob("0*")]
    assert sorted(whole) == ["000001", "000002"] if dying == 0 else whole
    together(2, lambda _: benchmark.resume(folder, Console(quiet=True)))
    assert results(folder) == results(alone())


def test_a_run_stopped_while_scoring_may_find_a_broken_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: Callable[..., Path]
) -> None:
    """It saves its state once more, before all ranks have scores of their own."""
    folder = tmp_path / "run"

    def interrupted(_rank: int) -> None:
        stop_at(monkeypatch, 2, rank=1)
        with pytest.raises(Interrupted):
            run(folder, checkpoint_every="1h")

    def broken(_rank: int) -> str:
        monkeypatch.setattr(image_check, "unreadable", lambda images, rows, track: [(row, "bad") for row in rows[:1]])
        with pytest.raises(BrokenImage) as raised:
            benchmark.resume(folder, Console(quiet=True))
        return str(raised.value)

    together(2, interrupted)
    assert all("training images of task 1 cannot be decoded" in message for message in together(2, broken))
    together(2, lambda _: benchmark.resume(folder, Console(quiet=True)))
    assert results(folder) == results(alone())


def test_every_rank_selects_and_keeps_what_one_process_does() -> None:
    options = TuningOptions(batch_size=16)

    def work(_rank: int) -> tuple[dict, list]:
        tuner = tuners.create("mist", backbones.create("vit_nano", "pretrained"), options, seed=5)
        images = Stream(data.load("digits"), 5, 1993).tasks[0].train
        selection = tuner.select(images, tuner.begin_task(images))
        kept = [
            ops.keep_mask(tuner.keep_seed, selection.ordinal[name], 3, selection.count(name), ops.keep_threshold(0.1))
            for name in selection.by_score
        ]
        return {"selected": selection.state_dict()["index"], "frozen": tuner.to_freeze.state_dict()["index"]}, kept

    chosen, kept = work(0)
    for others, theirs in together(2, work):
        for part in ("selected", "frozen"):
            assert others[part].keys() == chosen[part].keys()
            assert all(torch.equal(others[part][name], chosen[part][name]) for name in chosen[part])
        assert all(torch.equal(a, b) for a, b in zip(theirs, kept, strict=True))
