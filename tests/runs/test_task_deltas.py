"""`mist run --deltas`: the base and the files of all tasks are the run's backbone, bit for bit."""

from __future__ import annotations

import copy
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fewer_images import every_nth
from rich.console import Console
from safetensors import safe_open
from small_runs import run
from stopping import stop_at
from tuned_models import tune_

import mist_ext
from mist_ext import backbones, report
from mist_ext.data import digits
from mist_ext.deltas import TaskDelta, state_digest
from mist_ext.report.delta_summary import DeltaSummary
from mist_ext.report.figures import deltas as figure
from mist_ext.report.figures import experiment_drawings, figure_names
from mist_ext.results import manifest
from mist_ext.runs import benchmark, classifiers
from mist_ext.runs.interruption import Interrupted

OPTIONS = {"epochs": 2, "classes_per_task": 4, "method": ["simplecil"], "checkpoint_every": "1h"}
NAMES = [f"delta-seed1-task00{number}.safetensors" for number in (1, 2, 3)]


@pytest.fixture(scope="module", autouse=True)
def few_digits() -> Iterator[None]:
    few = every_nth(16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "digits", lambda: few)
        yield


@pytest.fixture(scope="module")
def folder(few_digits: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with deltas, of three tasks."""
    out = tmp_path_factory.mktemp("deltas") / "run"
    run(out, deltas=True, **OPTIONS)
    return out


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("digits-mist-simplecil/*.safetensors")}


def test_the_base_and_all_deltas_are_the_backbone_of_a_run_without(folder: Path, tmp_path: Path) -> None:
    assert sorted(name for name in files(folder) if name.startswith("delta")) == NAMES
    run(tmp_path / "without", **OPTIONS)
    expected = state_digest(mist_ext.load(tmp_path / "without").backbone)
    backbone = backbones.create("vit_nano")
    for number, name in enumerate(NAMES, 1):
        delta = TaskDelta.load(folder / "digits-mist-simplecil" / name)
        assert delta.info["task"] == number
        assert len(delta.info["classes"]) == (2 if number == 3 else 4)
        delta.apply_(backbone, verify=True)
    assert state_digest(backbone) == expected


def test_a_classifier_is_loaded_from_the_base_and_the_deltas(folder: Path, tmp_path: Path) -> None:
    assert (folder / "digits-mist-simplecil" / "classifier-seed1.safetensors").stat().st_size < 40_000
    loaded = mist_ext.load(folder)
    last = TaskDelta.load(folder / "digits-mist-simplecil" / NAMES[-1])
    assert state_digest(loaded.backbone) == last.result_digest
    for task, classes in ((1, 4), (2, 8)):
        earlier = mist_ext.load(folder, task=task)
        named = TaskDelta.load(folder / "digits-mist-simplecil" / NAMES[task - 1])
        assert state_digest(earlier.backbone) == named.result_digest
        assert earlier.class_names == loaded.class_names[:classes]
    with pytest.raises(FileNotFoundError, match=r"no trained classifier of task 3 in .*is there without a number"):
        mist_ext.load(folder, task=3)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(folder / "digits-mist-simplecil" / "classifier-seed1-task002.safetensors", unfinished)
    with pytest.raises(FileNotFoundError, match=r"no trained .* finished; there are .*-task002\.saf.* \(--task N"):
        mist_ext.load(unfinished)
    copied = tmp_path / "copied"
    shutil.copytree(folder / "digits-mist-simplecil", copied)
    (copied / NAMES[0]).rename(copied / "kept")
    with pytest.raises(FileNotFoundError, match=f"belongs to weights that are not there: .*{NAMES[0]}"):
        classifiers.load(copied)
    shutil.copy(copied / NAMES[1], copied / NAMES[0])
    with pytest.raises(ValueError, match=f"{NAMES[0]} is not the delta that it was saved with"):
        classifiers.load(copied)


@pytest.mark.parametrize(
    "call", [16, pytest.param(4, marks=pytest.mark.slow), pytest.param(11, marks=pytest.mark.slow)]
)
def test_a_run_that_was_interrupted_ends_with_the_same_files(
    call: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    methods = ["simplecil", "ranpac"]
    with monkeypatch.context() as patch:
        stop_at(patch, call, 0)
        with pytest.raises(Interrupted):
            run(out, deltas=True, **OPTIONS | {"method": methods})
    there = sorted(name for name in files(out) if name.startswith("delta"))
    assert there != NAMES
    base = backbones.create("vit_nano")
    with safe_open(max(out.glob("*/0*/tensors.safetensors")), "pt") as file:  # what changed since the last delta
        kept = sum(file.get_tensor(key).numel() for key in file.keys() if "/backbone/" in key)  # noqa: SIM118
    assert kept < 0.2 * sum(parameter.numel() for parameter in base.parameters())
    if there:  # a damaged one is named, and nothing is lost
        first = out / "digits-mist-simplecil" / there[0]
        whole = first.read_bytes()
        first.write_bytes(whole[:-1])
        with pytest.raises(ValueError, match=f"cannot go on, since the deltas of later tasks follow from .*{there[0]}"):
            benchmark.resume(out, Console(file=io.StringIO()))
        other = copy.deepcopy(base)
        tune_(other, seed=7)
        TaskDelta.between(base, other).save(first)
        with pytest.raises(ValueError, match=f"{there[0]}: it is the delta of another run: it leads to the backbone"):
            benchmark.resume(out, Console(file=io.StringIO()))
        first.write_bytes(whole)
        (out / "digits-mist-ranpac" / there[0]).unlink()  # is brought back from the other method's
    assert bool(there) == (call != 4)
    benchmark.resume(out, Console(file=io.StringIO()))
    assert files(out) == files(folder)
    for method in methods:
        for name in NAMES:
            assert (out / f"digits-mist-{method}" / name).read_bytes() == files(folder)[name]


def test_the_manifest_names_the_files_and_overwriting_removes_them(folder: Path) -> None:
    names = manifest.read(folder).files
    own, others = manifest.sorted_out(folder, [".lock", *names])
    assert not others
    assert {path.name for path in own} >= set(NAMES)


def test_a_tuner_that_leaves_the_backbone_alone_has_no_deltas(tmp_path: Path) -> None:
    run(tmp_path, tuner=["none"], deltas=True, **OPTIONS)
    assert not list(tmp_path.glob("*/delta-*"))
    assert mist_ext.load(tmp_path)


@pytest.mark.parametrize(
    "options",
    [{"precision": "bf16-pure"}, pytest.param({"weights": "none"}, marks=pytest.mark.slow)],
    ids=["bf16", "random"],
)
def test_a_base_that_cannot_be_made_again_is_kept_in_the_classifier(options: dict, tmp_path: Path) -> None:
    run(tmp_path, deltas=True, **{**OPTIONS, **options, "epochs": 1})
    deltas = [TaskDelta.load(path) for path in sorted(tmp_path.glob("*/delta-*"))]
    assert len(deltas) == 3
    deltas[-1].verify(mist_ext.load(tmp_path).backbone, applied=True)


def test_the_page_shows_what_the_tasks_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (experiment,) = report.read_experiments([folder])
    assert "deltas" in figure_names(experiment)
    monkeypatch.setattr("mist_ext.report.figures._KINDS", {"deltas": figure})
    (drawing,) = experiment_drawings(experiment)
    assert "Changes of 3 tasks, digits · mist · simplecil" in drawing.description
    report.write_report([experiment], folder)
    page = (folder / "report.html").read_text()
    assert "overlap (Jaccard)" in page
    assert drawing.description in page
    (again,) = report.read_experiments([folder])
    again.runs = [again.runs[0], copy.copy(again.runs[0])]
    again.runs[1].seed = 2
    copies = [folder / "digits-mist-simplecil" / name.replace("seed1", "seed2") for name in NAMES]
    for one in copies:
        shutil.copy(one.with_name(one.name.replace("seed2", "seed1")), one)
    assert "simplecil · seed 1, the first of 2: " in experiment_drawings(again)[0].description
    for one in copies:
        one.unlink()
    changed = (folder / "digits-mist-simplecil" / NAMES[0]).read_bytes()
    (folder / "digits-mist-simplecil" / NAMES[0]).unlink()
    assert experiment_drawings(experiment)[0].digest != drawing.digest
    assert list(DeltaSummary.of_experiment(experiment).deltas) == ["2", "3"]
    (folder / "digits-mist-simplecil" / NAMES[0]).write_bytes(changed)


@pytest.fixture
def several() -> Callable[..., Path]:
    """Runs in two processes."""
    from processes import together

    def spread(out: Path, **options: object) -> Path:
        together(2, lambda _: run(out, **options))
        return out

    return spread


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True])
def test_several_processes_leave_the_same_chain(shard: bool, folder: Path, tmp_path: Path, several: Callable) -> None:
    out = several(tmp_path / "run", deltas=True, shard=shard, **OPTIONS)
    assert sorted(files(out)) == sorted(files(folder))
    backbone = backbones.create("vit_nano")
    for name in NAMES:
        TaskDelta.load(out / "digits-mist-simplecil" / name).apply_(backbone, verify=True)
    assert state_digest(backbone) == state_digest(mist_ext.load(out).backbone)
