"""Runs that are killed and go on end with the same bits as those that never were."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from rich.console import Console
from slow import first_is_quick, often

from mist_ext.config import Config
from mist_ext.data import digits
from mist_ext.data.decode import BrokenImage
from mist_ext.data.stream import Stream
from mist_ext.runs import benchmark
from mist_ext.runs.image_check import ImageCheck
from mist_ext.runs.interruption import Checkpointer, Interrupted
from mist_ext.system import lock
from mist_ext.system.progress import Progress

VARYING = {"seconds", "peak_memory_bytes"}  # all else is the same bit for bit
SETTINGS = {
    "tuner": ["mist", "full", "none"],
    "method": ["simplecil", "ranpac"],
    "seeds": [1],
    "epochs": 3,
    "save": "all",
    "checkpoint_every": "0s",
}
PROCESSES = multiprocessing.get_context("fork")  # torch is loaded already


@pytest.fixture(autouse=True)
def few_digits(every_nth_digit: Callable[[int], None], shallow: None) -> None:
    """Few images and no figures, so that a run takes seconds."""
    every_nth_digit(16)


def run(folder: Path, **options) -> None:
    settings = {**SETTINGS, **options}
    if "ranpac" in settings["method"]:
        settings.setdefault("method_options", ["ranpac.width=40"])
    benchmark.run(Config(out=str(folder), **settings), Console(file=io.StringIO()))


def go_on(folder: Path) -> str:
    output = io.StringIO()
    benchmark.resume(folder, Console(file=output, width=300))
    return output.getvalue()


def left(folder: Path) -> dict[str, object]:
    """Everything that a run leaves, without times and memory: results, logs, weights, configuration."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == "results.json":
            found[name] = without_varying(json.loads(path.read_text()))
        elif path.name == "log.jsonl":
            found[name] = [without_varying(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.suffix in (".safetensors", ".yaml"):
            found[name] = path.read_bytes()
    return found


def without_varying(value):
    if isinstance(value, dict):
        return {key: without_varying(entry) for key, entry in value.items() if key not in VARYING}
    return [without_varying(entry) for entry in value] if isinstance(value, list) else value


def killed(target: Callable[[Path], object], folder: Path, after: float) -> bool:
    """Run in a process that is killed after some seconds; whether it was still running."""
    process = PROCESSES.Process(target=target, args=(folder,))
    process.start()
    process.join(after)
    running = process.exitcode is None
    if running:
        process.kill()
        process.join()
    else:
        assert process.exitcode == 0
    return running


@pytest.mark.slow
def test_a_run_that_is_killed_at_random_moments_ends_with_the_same_bits(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    expected = left(tmp_path / "whole")
    drawing = random.Random(7)
    kills, most, rounds = 0, often(8), 0
    while kills < most:
        folder = tmp_path / f"killed{rounds}"
        rounds += 1
        target = run
        while kills < most and killed(target, folder, drawing.uniform(0.1, 1.5)):
            kills += 1
            if (folder / "run.yaml").is_file():
                target = go_on
        go_on(folder)  # a run that ended says so
        assert left(folder) == expected


STOPPED = {
    "published": {"dynamics": "published", "schedule": "cosine"},
    "updates": {"drop": "updates", "schedule": "cosine", "first_task_epochs": 4, "later_lr_factor": 0.5},
    "passes": {"score_passes": 3},
    "bf16": {"precision": "bf16-pure"},
    "cross_entropy": {"score_objective": "ce", "tune_objective": "ce"},
    "magnitude": {"tuner": ["magnitude"]},
    "gradient": {"tuner": ["gradient"]},
    "gradient_bf16": {"tuner": ["gradient"], "precision": "bf16-pure"},
    "bitfit": {"tuner": ["bitfit"], "tune_objective": "ce"},
    "published_random": {"tuner": ["published_random"], "tune_objective": "ce_cosine"},
    "lora": {"tuner": ["lora"]},
    "diagnosis": {"tuner": ["full"], "diagnose": True},
}


@pytest.mark.parametrize("case", first_is_quick(STOPPED))
def test_a_stop_in_every_epoch_changes_nothing(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"tuner": ["mist"], "method": ["simplecil"], "seeds": [1], **STOPPED[case]}
    if options["tuner"] == ["lora"]:
        pytest.importorskip("peft")
    run(tmp_path / "whole", **options)
    every = 6
    calls = iter(range(100))
    original = Checkpointer.save_if_due

    def save_if_due(self: Checkpointer) -> None:
        if next(calls) % every == every - 1:
            self._stop = signal.SIGTERM
        original(self)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpointer, "save_if_due", save_if_due)
        with pytest.raises(Interrupted):
            run(tmp_path / "stopped", **options)
        stops = 1
        while True:
            try:
                go_on(tmp_path / "stopped")
                break
            except Interrupted:
                stops += 1
    assert stops >= 2
    assert left(tmp_path / "stopped") == left(tmp_path / "whole")


@pytest.mark.slow
def test_stops_while_methods_train_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {
        "tuner": ["mist"],
        "method": ["simplecil", "aper_ssf", "ranpac_ssf", "dualprompt"],
        "seeds": [1],
        "epochs": 2,
    }
    options |= {
        "method_options": ["epochs=1", "batch_size=32", "width=40", "general_blocks=(0,)", "expert_blocks=(1,)"]
    }
    run(tmp_path / "whole", **options)
    calls = iter(range(1000))
    original = Checkpointer.save_if_due
    stops = []

    def save_if_due(self: Checkpointer) -> None:
        if next(calls) in (9, 18, 42):  # while aper_ssf trains, while dualprompt does, and in the second task
            self._stop = signal.SIGTERM
            stops.append(self.state()["state"]["learners"]["aper_ssf"]["sessions"].tolist())
        original(self)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpointer, "save_if_due", save_if_due)
        go = partial(run, tmp_path / "stopped", **options)
        while True:
            try:
                go()
                break
            except Interrupted:
                go = partial(go_on, tmp_path / "stopped")
    assert stops == [[], [], [5]]  # the state from before the method's training
    assert left(tmp_path / "stopped") == left(tmp_path / "whole")


def stopped(folder: Path, monkeypatch: pytest.MonkeyPatch, after: int = 3) -> None:
    """A run that was stopped after some steps of tuning, with two checkpoints."""
    calls = iter(range(1000))
    original = Checkpointer.save_if_due

    def save_if_due(self: Checkpointer) -> None:
        if next(calls) == after:
            self._stop = signal.SIGINT
        original(self)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpointer, "save_if_due", save_if_due)
        with pytest.raises(Interrupted):
            run(folder, tuner=["mist"], method=["simplecil"], seeds=[1])


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "whole", tuner=["mist"], method=["simplecil"], seeds=[1])
    stopped(tmp_path / "out", monkeypatch)
    newest = sorted((tmp_path / "out" / "checkpoint").iterdir())[-1]
    content = bytearray((newest / "tensors.safetensors").read_bytes())
    content[len(content) // 2] ^= 4
    (newest / "tensors.safetensors").write_bytes(content)
    assert f"checkpoint {newest} is damaged" in go_on(tmp_path / "out")
    assert left(tmp_path / "out") == left(tmp_path / "whole")


def test_another_configuration_is_refused_with_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(tmp_path, monkeypatch)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    message = r"another configuration: batch_size is 7, was 32; lr is 0\.5, was 0\.003\. Leave"
    with pytest.raises(ValueError, match=message):
        benchmark.resume(tmp_path, Console(file=io.StringIO()), lr=0.5, batch_size=7)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no run was begun in .*nowhere"):
        benchmark.resume(tmp_path / "nowhere", Console(file=io.StringIO()))


def test_a_finished_run_is_left_alone_but_for_reports_that_were_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore the signal
    try:
        with monkeypatch.context() as patched:
            patched.setattr(benchmark, "write_reports", lambda folder: signal.raise_signal(signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path, tuner=["none"], method=["simplecil"], seeds=[1])
    finally:
        signal.signal(signal.SIGINT, before)
    monkeypatch.undo()  # figures are written from here on
    assert "is finished" in go_on(tmp_path)
    assert (tmp_path / "report.html").is_file()
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert "is finished" in go_on(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == written
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.slow
def test_never_writes_no_checkpoint_and_starts_anew(tmp_path: Path) -> None:
    options = {"tuner": ["mist"], "method": ["simplecil"], "seeds": [1], "checkpoint_every": "never"}
    run(tmp_path / "whole", **options)
    calls = iter(range(100))

    def kill_at_the_tenth(self: Checkpointer) -> None:
        if next(calls) == 9:
            os.kill(os.getpid(), signal.SIGKILL)

    def target() -> None:
        Checkpointer.save_if_due = kill_at_the_tenth  # type: ignore[method-assign] # in a process of its own
        run(tmp_path / "out", **options)

    process = PROCESSES.Process(target=target)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "out" / "checkpoint").exists()
    go_on(tmp_path / "out")
    assert left(tmp_path / "out") == left(tmp_path / "whole")


def test_a_run_that_another_process_works_on_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(tmp_path, monkeypatch)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with lock.locked(tmp_path), pytest.raises(ValueError, match="another process works in"):
        go_on(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_other_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(tmp_path, monkeypatch)
    few = digits.digits()
    monkeypatch.setattr(digits, "digits", lambda: replace(few, test=few.test.subset(torch.arange(20))))
    with pytest.raises(ValueError, match=r"it has 79 training and 20 test images.*it had 79 training and 34 test"):
        go_on(tmp_path)


@pytest.mark.slow
def test_stopping_again_before_the_first_step_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"tuner": ["mist"], "method": ["simplecil"], "seeds": [1]}
    run(tmp_path / "whole", **options)
    stopped(tmp_path / "out", monkeypatch, after=8)  # in the midst of tuning

    def save_and_stop(self: ImageCheck, stream: Stream, tasks: int, progress: Progress, save: Callable) -> None:
        save()
        raise BrokenImage("an image cannot be decoded")

    with monkeypatch.context() as patched:
        patched.setattr(ImageCheck, "check", save_and_stop)
        with pytest.raises(BrokenImage):
            go_on(tmp_path / "out")
    go_on(tmp_path / "out")
    assert left(tmp_path / "out") == left(tmp_path / "whole")
