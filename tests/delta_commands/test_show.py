"""`mist delta show`: numbers counted here anew, tables and figures."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from matplotlib import image

from mist_ext.deltas import TaskDelta
from mist_ext.deltas.statistics import overlap
from mist_ext.deltas.vectors import positions_of


def test_the_table_has_what_was_changed(mist: Callable, files) -> None:
    status, output, errors = mist("show", *files.paths, "--format", "csv")
    assert status == 0, errors
    lines = output.split()
    assert lines[0] == "delta,tensor,layer,kind,entries,changed,norm"
    status, output, _ = mist("show", *files.paths)
    before, after = files.models[0].state_dict(), files.models[1].state_dict()
    moved = {name: (after[name] != before[name]) for name in after if not after[name].equal(before[name])}
    changed = sum(int(mask.sum()) for mask in moved.values())
    size = sum(mask.numel() for mask in moved.values())
    norm = sum(float((after[name].double() - before[name].double()).square().sum()) for name in after) ** 0.5
    assert f"1 {len(moved)} {changed:,} {100 * changed / size:.2f} {norm:.4g}" in output
    for title in ("Changed entries by layer and kind", "Norm of the changes", "Overlap of", "Agreement of signs"):
        assert title in output
    assert re.search(r"blocks\.1 [\d.]+ [\d.]+", output)


def test_overlap_and_signs_are_those_of_the_sets(files) -> None:
    found = overlap(files.deltas)
    sets, signs = [], []
    for delta in files.deltas:
        spots = {}
        for name, change in delta.changes.items():
            moved = (change.new - change.old).flatten().tolist()
            spots |= {(name, p): v > 0 for p, v in zip(positions_of(change).tolist(), moved, strict=True) if v}
        sets.append(set(spots))
        signs.append(spots)
    for i in range(3):
        for j in range(3):
            common = sets[i] & sets[j]
            assert found.jaccard[i][j] == pytest.approx(len(common) / len(sets[i] | sets[j]))
            assert found.agreement[i][j] == pytest.approx(sum(signs[i][p] == signs[j][p] for p in common) / len(common))
    assert 0.02 < found.jaccard[0][1] < 0.2


def test_tasks_that_change_nothing_are_shown_too(mist: Callable, files, tmp_path: Path) -> None:
    start, nothing = files.checkpoints[0], tmp_path / "nothing.delta"
    assert mist("diff", start, start, nothing)[0] == 0
    status, output, errors = mist("show", nothing, "--figure", tmp_path / "deltas.svg")
    assert status == 0, errors
    assert "nothing 0 0" in output
    assert "nothing changed" in (tmp_path / "deltas.svg").read_text()


def test_a_delta_of_numbers_that_are_not_finite_is_named(mist: Callable, files, tmp_path: Path) -> None:
    TaskDelta.between({"w": torch.zeros(9)}, {"w": torch.full((9,), torch.nan)}).save(tmp_path / "nan.delta")
    status, _, errors = mist("show", files.paths[0], tmp_path / "nan.delta")
    assert status == 2
    assert "the delta 'nan' changes 'w' by numbers that are not finite" in errors


@pytest.mark.parametrize("form", ["text", "csv", "markdown", "latex"])
def test_names_from_a_file_steer_no_terminal(mist: Callable, form: str, tmp_path: Path) -> None:
    before = {"\x1b[31mw": torch.zeros(99)}
    after = {"\x1b[31mw": torch.eye(99)[0]}
    TaskDelta.between(before, after, info={"task": "\x1b[2J1"}).save(tmp_path / "a.delta")
    TaskDelta.between(before, after, info={"task": "\x1b[2J2"}).save(tmp_path / "b.delta")
    status, output, _ = mist("show", tmp_path / "a.delta", tmp_path / "b.delta", "--format", form)
    assert status == 0
    assert "\x1b" not in output
    assert "x1b" in output


def test_a_figure_is_drawn(mist: Callable, files, tmp_path: Path) -> None:
    for name in ("deltas.png", "deltas.svg"):
        status, _, errors = mist("show", *files.paths, "--figure", tmp_path / name)
        assert status == 0, errors
    assert image.imread(tmp_path / "deltas.png").std() > 0.1
    drawn = (tmp_path / "deltas.svg").read_text()
    assert all(words in drawn for words in ("overlap (Jaccard)", "qkv weight", "same sign", "squared change"))
    status, _, errors = mist("show", *files.paths, "--figure", tmp_path / "deltas.png")
    assert status == 2
    assert "--overwrite" in errors


def test_forward_only_deltas_have_no_norms_and_no_signs(mist: Callable, files, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.safetensors" for number in (1, 2)]
    for number, path in enumerate(paths):
        mist("diff", *files.checkpoints[number : number + 2], path, "--forward-only")
    status, output, errors = mist("show", *paths, "--figure", tmp_path / "f.png")
    assert status == 0, errors
    assert "Overlap of" in output
    assert "Norm of the changes" not in output
