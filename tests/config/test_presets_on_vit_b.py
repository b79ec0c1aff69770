"""Every preset's step on a ViT-B/16 with random weights: it runs on two cores, and in less than 12 GB."""

from __future__ import annotations

import math
from functools import cache

import pytest
from vit_b_steps import Step, steps, take, views

from mist_ext.config import presets

MOST_BYTES = 12e9
FEW = 2  # images
# Every step that presets take, once, with the most rows that any of them puts through the backbone at once.
ROWS: dict[Step, int] = {}
for preset in presets.PRESETS:
    for taken, rows in steps(preset):
        ROWS[taken] = max(rows, ROWS.get(taken, 0))
(LARGEST,) = (step for step in ROWS if step.name == "slca")
"""A copy of the backbone is trained beside it, whole, on as many rows as any step has."""


def called(step: Step) -> str:
    """A test's name for a step: what sets it apart from others of the same tuner or method."""
    alike = [dict(other.settings) for other in ROWS if other.name == step.name]
    apart = [str(value) for name, value in step.settings if any(other.get(name) != value for other in alike)]
    return "-".join([step.kind, step.name, *apart])


def test_every_preset_takes_steps_that_are_tried() -> None:
    named = {name for preset in presets.PRESETS.values() for kind in ("tuner", "method") for name in preset[kind]}
    assert {step.name for step in ROWS} == named - {"none"}
    assert len({called(step) for step in ROWS}) == len(ROWS)


def test_no_preset_has_more_rows_than_the_one_that_is_tried_with_all_of_them() -> None:
    assert max(ROWS.values()) == ROWS[LARGEST]


@cache
def kept_by_the_largest() -> int:
    """The bytes that the largest step keeps for backward with the rows that it has in a preset."""
    return take(LARGEST, FEW).kept * ROWS[LARGEST] // FEW


@pytest.mark.slow
@pytest.mark.parametrize("step", ROWS, ids=called)
def test_a_step_runs_on_few_images_and_keeps_no_more_than_the_largest(step: Step) -> None:
    taken = take(step, FEW)
    assert all(math.isfinite(loss) for loss in taken.losses)
    if step.kind == "tuner":
        assert len(taken.losses) == (2 if step.name == "mist" else 1)  # of scoring, and of tuning
    rows = FEW * views(dict(step.settings).get("tune_objective", "ce_cosine"))
    kept = taken.kept * ROWS[step] // rows
    assert (kept > 0) == bool(taken.losses)
    assert kept <= 1.02 * kept_by_the_largest()  # whose copy of the backbone is more than that
    print(f"{called(step)}: {taken.peak / 1e9:.2f} GB with {rows} rows; {ROWS[step]} rows keep {kept / 1e9:.2f} GB")


@pytest.mark.slow
def test_the_largest_step_has_room_in_12_gb() -> None:
    taken = take(LARGEST, ROWS[LARGEST])
    assert math.isfinite(*taken.losses)
    assert taken.peak < MOST_BYTES
    print(f"{called(LARGEST)}: {taken.peak / 1e9:.2f} GB with {ROWS[LARGEST]} rows")
