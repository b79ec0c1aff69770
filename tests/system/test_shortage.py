"""Where memory, disk, file handles or a worker run out, a run ends in a sentence and can go on."""

from __future__ import annotations

import errno
import io
import json
import multiprocessing
import os
import pkgutil
import resource
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from slow import first_is_quick
from torch.utils.data import DataLoader, Dataset

from mist_ext import cli
from mist_ext.config import Config
from mist_ext.data.image_sets import ImageFiles
from mist_ext.methods.simplecil import SimpleCIL
from mist_ext.runs import benchmark
from mist_ext.runs.interruption import Checkpointer
from mist_ext.selection import Selection
from mist_ext.system import shortage
from mist_ext.system.files import write_atomically
from mist_ext.system.memory import NotEnoughMemory
from mist_ext.system.shortage import Shortage
from mist_ext.tuners.objective import MutualInformation

SETTINGS: dict[str, Any] = {"method": ["simplecil"], "seeds": [1], "epochs": 2, "checkpoint_every": "0s"}
TOO_MUCH = 2**46  # bytes, beyond what a process can address


@pytest.fixture
def few_digits(every_nth_digit: Callable[[int], None], shallow: None) -> None:
    """Two tasks of 60 images and two batches each."""
    every_nth_digit(12)


def run(folder: Path, **options: Any) -> None:
    benchmark.run(Config(out=str(folder), **{**SETTINGS, **options}), Console(file=io.StringIO()))


def resumed(folder: Path) -> dict[str, Any]:
    benchmark.resume(folder, Console(file=io.StringIO()))
    (file,) = folder.glob("*/results.json")
    return json.loads(file.read_text())


class Killing(Dataset[int]):
    """Whose worker is killed as the kernel does it when memory runs out."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, item: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return item


def too_many_files() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        open(os.devnull).close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def full_disk() -> None:
    with open("/dev/full", "wb", buffering=0) as file:
        file.write(b"1")


def too_large_a_file() -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with tempfile.TemporaryDirectory() as folder:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
        try:
            write_atomically(Path(folder, "results.json"), "12")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


REAL: dict[str, tuple[Callable[[], object], str]] = {
    "torch": (lambda: torch.empty(TOO_MUCH, dtype=torch.uint8), "memory"),
    "numpy": (lambda: np.empty(TOO_MUCH * 4), "memory"),
    "python": (lambda: bytearray(TOO_MUCH), "memory"),
    "files": (too_many_files, "files"),
    "disk": (full_disk, "disk"),
    "size": (too_large_a_file, "size"),
    "worker": (lambda: list(DataLoader(Killing(), num_workers=1, multiprocessing_context="fork")), "worker"),
}


@pytest.mark.parametrize("what", REAL)
def test_what_really_runs_out_is_known(what: str) -> None:
    cause, kind = REAL[what]
    with pytest.raises((RuntimeError, MemoryError, OSError)) as raised:
        cause()
    assert shortage.kind_of(raised.value) == kind
    expected = NotEnoughMemory if kind in ("memory", "worker") else Shortage
    words = rf"^{shortage.WORDS[kind]} in tune 1/4( \(.+\))?; .*; go on$"
    with pytest.raises(expected, match=words), shortage.explained("tune 1/4", "; go on"):
        cause()


def test_a_file_that_may_not_be_larger_is_named() -> None:
    with pytest.raises(OSError, match=r"File too large: '.*results\.json'"):
        too_large_a_file()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), "memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "memory"),
        (RuntimeError("received 0 items of ancdata"), "files"),
        (OSError("Caught OSError in DataLoader worker process 0.\n[Errno 24] Too many open files: 'a.png'"), "files"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
        (OSError(errno.ENOENT, "No such file"), None),
        (RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nshapes differ"), None),
        (ValueError("out of memory"), None),
    ],
)
def test_errors_of_other_machines_are_known_by_their_words(error: Exception, kind: str | None) -> None:
    assert shortage.kind_of(error) == kind


def test_other_errors_stay_what_they_are() -> None:
    for error in (RuntimeError("shapes differ"), FileNotFoundError(2, "x"), NotEnoughMemory("a sentence")):
        with pytest.raises(type(error)) as raised, shortage.explained("tune"):
            raise error
        assert raised.value is error


def fail_at(monkeypatch: pytest.MonkeyPatch, of: Any, name: str, at: int, cause: Callable[[], object]) -> None:
    """The n-th call of a function ends as a cause does."""
    original, calls = getattr(of, name), [0]

    def failing(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == at:
            cause()
        return original(*arguments, **named)

    monkeypatch.setattr(of, name, failing)


BREAKING = {
    "score": (MutualInformation, "forward", 2, "torch", r"memory ran out in score, 1 of 2 done, .*lower --batch-size"),
    "tune": (MutualInformation, "forward", 4, "torch", r"memory ran out in tune 1/1, 1 of 2 done, .*--checkpointing"),
    "select": (Selection, "from_scores", 1, "numpy", r"memory ran out in select, .*take a smaller backbone"),
    "learn": (SimpleCIL, "learn", 1, "python", r"memory ran out in learn simplecil, .*method-options width="),
    "evaluate": (SimpleCIL, "predict", 1, "torch", r"memory ran out in evaluate simplecil, "),
    "extract": ("mist_ext.runs.features", "backbone_features", 2, "torch", r"memory ran out in extract, 0 of 1 done, "),
    "disk": (
        "mist_ext.runs.experiment_results.ExperimentResults",
        "add_task",
        1,
        "disk",
        r"the disk is full in save results, ",
    ),
    "files": (
        "mist_ext.runs.classifiers",
        "save_classifier",
        1,
        "files",
        "too many files are open in save classifiers, ",
    ),
}


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("phase", first_is_quick(BREAKING))
def test_a_run_names_the_phase_and_what_to_make_smaller_and_can_go_on(
    phase: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, name, at, cause, message = BREAKING[phase]
    of = pkgutil.resolve_name(of) if isinstance(of, str) else of
    with monkeypatch.context() as patched:
        fail_at(patched, of, name, at, REAL[cause][0])
        with pytest.raises((NotEnoughMemory, Shortage), match=f"^{message}") as raised:
            run(tmp_path, tuner=["mist"])
    assert f"mist run --resume {tmp_path} goes on" in str(raised.value)
    assert "seed 1 mist task" in str(raised.value)
    content = resumed(tmp_path)
    assert len(content["runs"][0]["tasks"]) == 2
    assert "summary" in content


@pytest.mark.usefixtures("few_digits")
def test_training_of_a_method_names_its_batch_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_at(monkeypatch, torch.optim.SGD, "step", 2, REAL["torch"][0])
    with pytest.raises(
        NotEnoughMemory, match=r"in train ease, Ease 1/1, 1 of \d done, .*lower the method's batch size"
    ):
        run(tmp_path, tuner=["none"], method=["ease"], method_options=["epochs=1", "batch_size=8"])


def limited(folder: Path, answers: Any) -> None:
    """A run whose process may take no more memory from its fourth step on."""
    seen = [0]

    def limit(_checkpointer: Checkpointer) -> None:
        seen[0] += 1
        if seen[0] == 4:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            taken = pages * resource.getpagesize() + 2**20
            resource.setrlimit(resource.RLIMIT_AS, (taken, taken))
            torch.empty(2**26).fill_(1)  # what the allocator has kept would do for a small step

    Checkpointer.save_if_due = limit  # type: ignore[method-assign]
    try:
        run(folder, tuner=["mist"])
    except NotEnoughMemory as error:
        answers.send(str(error))


@pytest.mark.usefixtures("few_digits")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_a_process_that_may_take_no_more_ends_in_a_sentence(tmp_path: Path) -> None:
    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=limited, args=(tmp_path, sending))
    with torch.autograd.set_multithreading_enabled(False):  # a fork does not have its threads
        process.start()
    assert receiving.poll(60)
    assert "memory ran out in tune 1/1, 1 of 2 done, seed 1 mist task 1/2" in receiving.recv()
    process.join(10)


def test_an_image_is_not_to_blame_for_too_many_open_files(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    images = ImageFiles([tmp_path / "a.png"], torch.zeros(1, dtype=torch.int64))
    images.read(0)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            images.read(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[Any], str]:
    """What a command says that ends with an error."""

    def of(error: Exception) -> str:
        def command(_options: Any) -> int:
            raise error

        monkeypatch.setitem(cli.COMMANDS, "info", command)
        with pytest.raises(SystemExit) as ending:
            cli.main(["info"])
        assert ending.value.code == 2
        return capsys.readouterr().err

    return of


def test_every_command_ends_in_a_sentence(told: Callable[[Any], str]) -> None:
    assert told(MemoryError()).startswith("mist: memory ran out; lower --batch-size")
    no_library = ImportError("libtorch.so: failed to map segment from shared object", name="torch._C")
    assert told(no_library).startswith("mist: torch._C cannot be imported: libtorch.so: failed to map")
    assert told(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 bytes")).startswith(
        "mist: memory ran out (DefaultCPUAllocator"
    )
    with pytest.raises(RuntimeError, match="shapes differ"):
        told(RuntimeError("shapes differ"))
