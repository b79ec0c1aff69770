"""The names of a run's delta files: found by seed and task, in the order of the numbers."""

from __future__ import annotations

from pathlib import Path

import msgspec
from tuned_models import tasks_of_one_base

from mist_ext.delta_commands import files
from mist_ext.results import delta_names, manifest
from mist_ext.runs import classifiers


def test_tasks_are_in_order_of_their_numbers_and_other_files_are_left_alone(tmp_path: Path) -> None:
    _, (delta,) = tasks_of_one_base(1)
    tasks = [2, 10, 999, 1000, 10_000]
    names = [delta_names.FILE.format(seed=3, task=task) for task in tasks]
    for name in names:
        delta.save(tmp_path / name)
    for other in ("delta-seed3-task001-copy.safetensors", "delta-seed3-task01.safetensors", "delta-seedx-task001"):
        (tmp_path / other).write_bytes(b"")
    assert {seed: list(found) for seed, found in delta_names.of_seeds(tmp_path).items()} == {3: tasks}
    assert [Path(path).name for path in files.deltas([str(tmp_path)])] == names
    folder = tmp_path / "experiment"
    folder.mkdir()
    for name in names:
        (tmp_path / name).rename(folder / name)
    (folder / "delta-seed3-task01.safetensors").write_bytes(b"")
    own, others = manifest.sorted_out(tmp_path, manifest.of_experiments([folder], [], [3]))
    assert {path.name for path in own} == {"experiment", *names}
    assert {path.name for path in others} >= {"delta-seed3-task01.safetensors"}
    assert list(msgspec.convert(dict.fromkeys(names, ""), dict[classifiers.DeltaName, str])) == names
