"""What a sweep would take: the numbers of images, the timed steps, what is made of them, and what is shown."""

from __future__ import annotations

import io
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import miniatures
import pytest
import torch
import yaml
from rich.console import Console

from mist_ext import backbones, data, tuners
from mist_ext.cli import main
from mist_ext.config import Config, presets
from mist_ext.data.image_sets import Images
from mist_ext.data.stand_in import stand_in
from mist_ext.data.stream import Stream
from mist_ext.sweep import estimate, timing
from mist_ext.sweep.estimate import Tasks, makespan
from mist_ext.sweep.grid import make_grid
from mist_ext.sweep.plan import plan
from mist_ext.sweep.stopwatch import Pace, Stopwatch
from mist_ext.sweep.timing import MethodTime, TuningTime, method_kind, tuning_kind
from mist_ext.system.callbacks import Callbacks

CPU = torch.device("cpu")
TUNED = [("mist", 5), ("mist", 2), ("random", 5), ("published_gradient", 5), ("full", 5)]  # tuners, epochs


def unshown(iterable: Iterable[Any], _description: str, _total: int) -> Iterable[Any]:
    return iterable


@pytest.mark.parametrize(("layout", "name"), [(miniatures.cub200, "cub200"), (miniatures.cifar100, "cifar100")])
def test_a_stand_in_has_the_tasks_of_its_data_set(layout, name: str, tmp_path: Path) -> None:
    layout(tmp_path)
    real = data.load(name, tmp_path)
    stand, remark = stand_in(name, tmp_path)
    assert remark == ""
    assert stand.train.read(7).size == real.train.read(0).size
    for ours, theirs in zip(Stream(stand, 30, 1993), Stream(real, 30, 1993), strict=True):
        assert ours.train.labels.tolist() == theirs.train.labels.tolist()
        assert ours.test.indices.tolist() == theirs.test.indices.tolist()


@pytest.mark.parametrize(
    ("name", "train", "test"), [("cub200", 9430, 2358), ("cifar100", 50_000, 10_000), ("cars196", 8144, 8041)]
)
def test_data_that_is_not_there_is_as_large_as_it_was_published(
    name: str, train: int, test: int, tmp_path: Path
) -> None:
    source, remark = stand_in(name, tmp_path)
    assert f"{name} is not there: numbers of images are those of" in remark
    options = Config(**presets.preset(f"mist/{name}"))
    tasks = Tasks.of(options, source, 224)
    assert (sum(tasks.train), sum(tasks.test), len(tasks.train)) == (train, test, 10)
    assert tasks.extracted(3, moved=False) == tasks.train[3] + tasks.test[3]
    assert tasks.extracted(3, moved=True) == tasks.train[3] + sum(tasks.test[:4])
    assert tasks.kept <= options.image_memory * 1e9
    few = Tasks.of(Config(**presets.preset(f"mist/{name}", {"images_per_class": 2})), source, 224)
    assert sum(few.train) == 2 * len(source.class_names)


def test_what_nobody_has_published_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        stand_in(f"folder:{tmp_path / 'none'}")


def test_an_epoch_is_its_first_step_and_others() -> None:
    pace = Pace(epochs=1, first=5.0, step=2.0, steps=3)
    assert [pace.seconds(steps) for steps in (0.5, 1, 3, 3.5)] == [2.5, 5.0, 9.0, 10.0]


@pytest.mark.parametrize(("steps", "timed"), [(4, 6), (1, 2)])  # of an epoch; where there is but one, it is timed
def test_a_stopwatch_tells_steps_from_what_lies_between(
    steps: int, timed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))  # each look takes a second
    watch = Stopwatch(CPU, unshown)

    def work() -> None:
        for epoch in range(2):
            for _ in watch.callbacks.progress(range(steps), f"tune {epoch}/2", steps):
                pass
        assert next(clock)

    paces, besides = watch.time(work)
    assert paces == {"tune": Pace(epochs=2, first=1.0, step=1.0, steps=timed)}
    assert besides == 4.0  # the begin of each epoch, what was between, and the end


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize(("name", "epochs"), TUNED)
def test_every_step_of_a_tuner_is_counted(name: str, epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many steps as the tuner really takes, in epochs of which but two were timed."""
    options = Config(data="digits", tuner=[name], method=["simplecil"], batch_size=16, seeds=[1])
    source, _ = stand_in("digits")
    monkeypatch.setattr(timing, "STEPS", 1)
    timed = timing.time_tuning(options, source, unshown)
    assert timed.memory > 0
    assert timed.step > 0
    steps: list[Any] = []

    def count(iterable: Iterable[Any], _description: str, _total: int) -> Iterable[Any]:
        for item in iterable:
            steps.append(item)
            yield item

    given = Config(tuner=[name], epochs=epochs, batch_size=4)
    tuner = tuners.create(name, backbones.create("vit_nano", "none"), given, 1)
    tuner.callbacks = Callbacks(progress=count)
    tuner.tune(Images(torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8), torch.arange(12) % 2))
    unit = {phase: Pace(pace.epochs, 1.0, 1.0, pace.steps) for phase, pace in timed.paces.items()}
    assert TuningTime(unit).seconds(epochs, steps=3) == len(steps)


def test_a_run_is_the_sum_of_what_its_methods_share_and_what_they_do_not() -> None:
    tasks = Tasks(train=(40, 20), test=(10, 10), kept=0)
    pace = Pace(1, 1.0, 1.0, 3)
    tuning = TuningTime({"score": pace, "tune": pace}, besides=1.0, memory=7)
    untrained = MethodTime(({}, {}), 1, 10, (0.1, 0.1), 2.0, 5, 64)
    trained = MethodTime(({"L2P": pace}, {}), 3, 10, (0.2, 0.4), 0.0, 9, 64)
    seconds = partial(_seconds, tasks)
    frozen = 2 * 2.0 + 0.1 * (50 + 30)  # learning, and features of new images alone
    assert seconds("none", TuningTime(), simplecil=untrained) == pytest.approx(frozen)
    assert seconds("none", TuningTime(), simplecil=untrained, fecam=untrained) == pytest.approx(frozen + 4.0)
    moved = frozen + 0.1 * 10  # of the first task's test images again
    tuned = 2 * 1.0 + (4 + 3 * 4) + (2 + 3 * 2)  # 1 epoch of scores, and 3 of 4 that tune
    assert seconds("mist", tuning, simplecil=untrained) == pytest.approx(moved + tuned)
    own = 3 * 4 + 0.2 * 50 + 0.4 * 30  # trained in the first task alone
    assert seconds("none", TuningTime(), l2p=trained) == pytest.approx(own)
    assert seconds("none", TuningTime(), simplecil=untrained, l2p=trained) == pytest.approx(frozen + own)


def _seconds(tasks: Tasks, tuner: str, tuning: TuningTime, **methods: MethodTime) -> float:
    options = Config(tuner=[tuner], method=list(methods), epochs=4, batch_size=10)
    found = estimate.estimate(options, tasks, tuning, methods, start=0.0)
    assert found.memory == max(tuning.memory, *(each.memory for each in methods.values()))
    return found.seconds


@pytest.mark.parametrize(("jobs", "expected"), [(1, 12.0), (2, 7.0), (3, 5.0), (9, 5.0)])
def test_runs_at_a_time_end_when_the_last_one_does(jobs: int, expected: float) -> None:
    assert makespan([3.0, 2.0, 5.0, 2.0], jobs) == expected


def test_points_tune_alike_where_rates_alone_differ() -> None:
    axes = {"tuner": ["mist"], "rate": [0.1, 0.2], "keep": [0.1, 1.0], "batch_size": [16, 32], "seeds": [1, 2]}
    points = make_grid({"fixed": {"data": "digits", "method": ["simplecil"]}, "axes": axes}).points
    assert len(points) == 16
    assert len({tuning_kind(point.options) for point in points}) == 2
    assert len({method_kind(point.options, "simplecil") for point in points}) == 1
    given = Config(method=["l2p", "ranpac"], method_options=["l2p.length=3"])
    assert method_kind(given, "ranpac") == method_kind(Config(), "ranpac")
    assert method_kind(given, "l2p") != method_kind(Config(), "l2p")


def grid_file(folder: Path, content: dict) -> Path:
    (folder / "my.yaml").write_text(yaml.safe_dump(content))
    return folder / "my.yaml"


def test_a_plan_says_what_would_be_done_and_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fixed = {"preset": "mist/imagenet_r-simplecil", "backbone": "vit_nano", "batch_size": 8, "workers": 0}
    grid = grid_file(tmp_path, {"fixed": fixed, "axes": {"tuner": ["none", "mist"], "seeds": [1, 2]}})
    assert main(["sweep", str(grid), "--plan", "--jobs", "2", "--data-root", "DATA"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        "timing tuner mist:",  # progress
        "Runs that are to be done",
        "4 experiments of the grid from 4 runs: 2 tunings of a backbone.",
        "data: imagenet_r (4 runs)",
        "imagenet_r is not there: numbers of images are those of the class-incremental field's resampled split",
        "These are estimates, from 3 timed steps of each phase",
        "In all 4 runs,",
        "with 2 at a time about",
        "MiB of memory",
    ):
        assert words in said, words
    assert [path.name for path in tmp_path.iterdir()] == ["my.yaml"]


@pytest.mark.parametrize(("jobs", "advice"), [(2, "give --jobs below 2, or lower batch_size"), (1, "lower batch_size")])
def test_too_little_memory_is_answered_with_what_to_give(
    jobs: int, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = {"data": "digits", "method": ["simplecil"]}
    grid = grid_file(tmp_path, {"fixed": fixed, "axes": {"tuner": ["none"], "seeds": [1, 2]}})
    monkeypatch.setattr("mist_ext.sweep.plan._start", lambda: 1.0)
    monkeypatch.setattr("mist_ext.system.memory.available", lambda device: 1)
    made = plan(grid, tmp_path / "out", jobs=jobs, console=Console(file=io.StringIO()))
    assert [note.text for note in made.notes if note.warning] == [f"That is more memory than there is: {advice}."]


def test_what_is_finished_is_not_planned_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = {"data": "digits", "method": ["simplecil"]}
    grid = grid_file(tmp_path, {"fixed": fixed, "axes": {"tuner": ["none"], "seeds": [1, 2]}})
    monkeypatch.setattr("mist_ext.sweep.plan.finished", lambda folder, point: point.seed == 1)
    monkeypatch.setattr("mist_ext.sweep.plan._start", lambda: 1.0)
    quiet = Console(file=io.StringIO())
    (runs, _), notes = (made := plan(grid, tmp_path / "out", console=quiet)).tables, made.notes
    assert [line.cells[1].text for line in runs.lines] == ["none"]
    assert [cell.text for cell in runs.lines[0].cells][3] == "1"
    assert "Finished: 1 of 2 runs." in [note.text for note in notes]
    monkeypatch.setattr("mist_ext.sweep.plan.finished", lambda folder, point: True)
    assert plan(grid, tmp_path / "out", console=quiet).tables == []


def test_a_mistake_is_answered_before_anything_is_timed(tmp_path: Path) -> None:
    content = {"fixed": {"data": "digits", "classes_per_task": 50}, "axes": {"tuner": ["mist"], "seeds": [1]}}
    with pytest.raises(ValueError, match="classes_per_task is 50, expected 1 to 10"):
        plan(grid_file(tmp_path, content), tmp_path / "out", console=Console(file=(said := io.StringIO())))
    assert "timing" not in said.getvalue()
