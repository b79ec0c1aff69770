"""bench/largest.py: memory to score and to tune, in one pass over all weights and in several."""

from __future__ import annotations

import argparse

import largest
import pytest
import torch


@pytest.mark.slow
def test_passes_select_the_same_and_each_has_a_row() -> None:
    given = argparse.Namespace(image_size=32, batch=4, passes=[1, 3])
    one, three = largest.rows("vit_ti", given, torch.device("cpu"))  # which raises where they select other entries
    assert [one["passes"], three["passes"]] == [1, 3]
    for row in (one, three):
        assert row["weight_bytes"] == 2 * row["parameters"]
        assert row["score_seconds"] > 0
        assert row["tune_seconds"] > 0
    assert three["select_bytes"] < one["select_bytes"]  # the scores of a third of the weights
    said = largest.table([one, three], "here")
    assert f"{16 * one['parameters'] / 1e9:.2f} |" in said


def test_what_does_not_fit_is_said(monkeypatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(largest.Tuned, "tune", full)
    (row,) = largest.rows("vit_ti", argparse.Namespace(image_size=32, batch=4, passes=[1]), torch.device("cpu"))
    assert row["does_not_fit"] == "tune"
    assert "vit_ti (no room to tune)" in largest.table([row], "here")
