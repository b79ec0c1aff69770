"""A run takes a folder over only from a run, and removes nothing that is somebody else's."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from mist_ext.config import Config
from mist_ext.report import read_experiments, write_report
from mist_ext.results import manifest
from mist_ext.runs import benchmark, run_folder
from mist_ext.runs.interruption import Checkpointer


@pytest.fixture(autouse=True)
def few_digits(every_nth_digit: Callable[[int], None], shallow: None) -> None:
    every_nth_digit(12)


def run(folder: Path, **options) -> None:
    given = {"tuner": ["none"], "method": ["simplecil"], "seeds": [1], "epochs": 2, **options}
    benchmark.run(Config(out=str(folder), **given), Console(file=io.StringIO()))


def content(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["checkpoint/weights.pt", "tensorboard/curve"], "checkpoint, tensorboard"),
        (["experiment/results.json"], "experiment"),
        (["run.yaml"], "run.yaml"),
        (["notes/mine.txt"], "notes"),
        ([f"{number:02}" for number in range(12)], "00, 01, 02, 03, 04, 05, 06, 07, 08, 09 and 2 more"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_folder_that_never_was_a_runs_is_refused_and_nothing_in_it_changed(
    names: list[str], told: str, tmp_path: Path
) -> None:
    put(tmp_path, *names)
    before = content(tmp_path)
    with pytest.raises(FileExistsError, match=rf"holds what no run has written there: {told}\."):
        run(tmp_path, overwrite=True)
    assert content(tmp_path) == before


def test_what_is_put_into_a_runs_folder_stops_it_before_anything_is_removed(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    put(tmp_path, "digits-none-simplecil/mine.txt", "backup-digits-none-simplecil/results.json")
    put(tmp_path, "checkpoint/2024/a", "checkpoint/000012 my backup/tensors.safetensors")
    (tmp_path / "digits-none-simplecil" / "accuracy.png").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "empty").mkdir()
    before = content(tmp_path)
    with pytest.raises(FileExistsError) as raised:
        run(tmp_path, overwrite=True)
    told = str(raised.value)
    others = ("backup-digits-none-simplecil", "digits-none-simplecil/mine.txt", "checkpoint/2024", "empty")
    for name in (*others, "000012 my backup"):
        assert name in told
    assert "accuracy.png" not in told  # the run's own name: the link goes, what it leads to stays
    assert content(tmp_path) == before


def test_everything_that_a_run_writes_is_named_and_replaced(tmp_path: Path, figures: None) -> None:
    pytest.importorskip("tensorboard")
    everything = {"tuner": ["mist"], "save": "all", "tensorboard": True, "seeds": [2]}
    run(tmp_path, **everything)
    write_report(read_experiments([tmp_path]), tmp_path)
    put(tmp_path, ".run.yaml.123.tmp", "digits-mist-simplecil/.results.json.77.tmp")  # as a kill leaves them
    run(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["digits-none-simplecil"]
    names = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")]
    assert not [name for name in names if "seed2" in name or name.endswith("tmp")]
    assert (tmp_path / "report.html").is_file()


def test_a_run_that_was_killed_while_it_saved_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(self: Checkpointer) -> None:
        self.save()
        newest = max((tmp_path / "checkpoint").iterdir())
        newest = newest.rename(newest.with_name(f".{newest.name}.99.unfinished"))
        put(newest, ".tmpUCYvsr")  # safetensors' own, before it has its name
        self.save()
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Checkpointer, "save_if_due", killed)
        with pytest.raises(Killed):
            run(tmp_path, tuner=["mist"])
    run(tmp_path, overwrite=True)
    assert not (tmp_path / "checkpoint").exists()


def test_a_finished_run_leaves_what_is_not_its_own_in_the_folder_of_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Checkpointer.save_if_due

    def save_if_due(self: Checkpointer) -> None:
        put(tmp_path, "checkpoint/mine.pt")
        original(self)

    monkeypatch.setattr(Checkpointer, "save_if_due", save_if_due)
    run(tmp_path, checkpoint_every="0s")
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == ["mine.pt"]


def test_a_manifest_reaches_nothing_outside(tmp_path: Path) -> None:
    out = tmp_path / "out"
    put(tmp_path, "precious", "out/one", "out/folder/two")
    (out / "link").symlink_to(tmp_path)
    known = manifest.Manifest("1", ["../precious", "link/precious", str(tmp_path / "precious"), "one", "folder/*"])
    known.write(out)
    own, others = manifest.sorted_out(out, known.files)
    assert [path.name for path in own] == ["folder", "one", "two"]
    assert sorted(path.name for path in others) == ["link", "manifest.json"]


def test_another_kind_of_manifest_is_not_taken_for_a_runs(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"name": "an extension", "files": ["*"], "version": 3}))
    put(tmp_path, "one")
    with pytest.raises(ValueError, match=r"manifest.json is damaged.*mist_ext"):
        run(tmp_path, overwrite=True)
    assert (tmp_path / "one").is_file()


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped:
        @staticmethod
        def now() -> Stopped:
            return Stopped()

        def strftime(self, form: str) -> str:
            return "2030-01-01-000000"

    monkeypatch.setattr(run_folder, "datetime", Stopped)
    monkeypatch.chdir(tmp_path)
    names = []
    for _ in range(3):
        with run_folder.begun(Config()) as out:
            names.append(str(out))
    assert names == [f"runs/2030-01-01-000000{end}" for end in ("", "-2", "-3")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_stops_it_before_anything_is_removed(tmp_path: Path) -> None:
    run(tmp_path)
    before = content(tmp_path)
    (tmp_path / "digits-none-simplecil").chmod(0o500)
    with pytest.raises(PermissionError, match="cannot be written"):
        run(tmp_path, overwrite=True)
    (tmp_path / "digits-none-simplecil").chmod(0o700)
    assert content(tmp_path) == before
