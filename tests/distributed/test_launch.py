"""How several processes start, and what is refused."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import forked
import pytest
import torch
from forked import Forked
from processes import Failed, environment, free_port, outcomes_of
from small_runs import run

import mist_ext
from mist_ext import backbones, cli, data
from mist_ext.data import digits
from mist_ext.distributed import agreement
from mist_ext.runs import benchmark


@pytest.mark.parametrize(
    ("name", "own", "message"),
    [
        ("option", {"lr": 1.0}, "lr is 1.0 on rank 1, 0.003 on rank 0"),
        ("seeds", {"seeds": [7]}, "seeds is [7] on rank 1, [1] on rank 0"),
        ("folder", {"data_root": "/elsewhere"}, "data_root is '/elsewhere' on rank 1, None on rank 0"),
    ],
)
def test_ranks_with_different_options_are_refused(name: str, own: dict, message: str, tmp_path: Path) -> None:
    def work(rank: int) -> None:
        run(tmp_path / "run", **(own if rank == 1 else {}))

    for outcome in outcomes_of(2, work):
        assert isinstance(outcome, Failed)
        assert message in str(outcome)
    assert not (tmp_path / "run").exists()


def test_ranks_with_different_versions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(rank: int) -> None:
        if rank == 1:
            monkeypatch.setattr(mist_ext, "__version__", "0.0.1")
        run(tmp_path / "run")

    for outcome in outcomes_of(2, work):
        assert "mist_ext's version is '0.0.1' on rank 1" in str(outcome)


def test_ranks_with_different_data_or_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(rank: int) -> None:
        if rank == 1:
            source = data.load("digits")
            monkeypatch.setattr(digits, "digits", lambda: replace(source, train=source.train.subset(torch.arange(60))))
            create = backbones.create

            def other(*arguments) -> torch.nn.Module:
                made = create(*arguments)
                with torch.no_grad():
                    next(made.parameters()).add_(1e-3)
                return made

            monkeypatch.setattr(backbones, "create", other)
        run(tmp_path / "run")

    for outcome in outcomes_of(2, work):
        assert "the data is " in str(outcome)
        assert "the backbone is " in str(outcome)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"download": True}, "download is True on rank 1, False on rank 0"),
        ({"lr": -1.0}, "lr is -1.0 on rank 1, 0.003 on rank 0"),
        ({"device": "cuda"}, "rank 1: device is cuda:0, "),
    ],
)
def test_what_one_rank_alone_cannot_do_keeps_no_rank_waiting(
    others: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(rank: int) -> None:
        if others.get("device"):  # which a rank chooses for itself
            name = "cuda:0" if rank else "cpu"
            run(tmp_path / "run", device=name, download=False)
        run(tmp_path / "run", **(others if rank else {}))

    for outcome in outcomes_of(2, work):
        assert message in str(outcome)


def test_a_run_and_one_that_goes_on_are_refused(tmp_path: Path) -> None:
    run(tmp_path / "run", tuner=["none"])

    def work(rank: int) -> None:
        if rank:
            benchmark.resume(tmp_path / "run")
        run(tmp_path / "run")

    for outcome in outcomes_of(2, work):
        assert "command is 'resume' on rank 1, 'run' on rank 0" in str(outcome)


def test_what_fails_on_one_rank_fails_on_all_and_says_where() -> None:
    def work(rank: int) -> None:
        def load() -> None:
            if rank == 1:
                raise FileNotFoundError("no images here")

        agreement.everywhere(load)

    for outcome in outcomes_of(2, work):
        assert "EveryRanksError: rank 1: no images here" in str(outcome)


def test_more_processes_than_images_in_a_batch_are_refused(tmp_path: Path) -> None:
    for outcome in outcomes_of(3, lambda _: run(tmp_path / "run", batch_size=2)):
        assert "batch_size is 2, but 3 processes share a batch" in str(outcome)


def command(folder: Path) -> list[str]:
    return ["-m", "mist_ext", "run", "--tuner", "none", "--method", "simplecil", "--out", str(folder / "run")]


def test_a_missing_network_interface_is_named(tmp_path: Path) -> None:
    port, absent = free_port(), {"GLOO_SOCKET_IFNAME": "absent0"}
    started = [Forked(*command(tmp_path), env=os.environ | environment(rank, 2, port) | absent) for rank in range(2)]
    for rank, process in enumerate(started):
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 2
        assert f"mist: rank {rank} cannot reach the other processes at 127.0.0.1:{port}" in said
        assert "'absent0'" in said
        assert "Traceback" not in said


def test_a_sweep_is_not_started_by_torchrun(tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch) -> None:
    for name, value in environment(1, 2, free_port()).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        cli.main(["sweep", str(tmp_path / "grid.yaml")])
    assert "mist: rank 1: mist sweep starts processes of its own" in capfd.readouterr().err


def test_a_wrong_number_of_processes_is_named(tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(SystemExit):
        cli.main(["run", "--out", str(tmp_path / "run")])
    assert "the environment variable WORLD_SIZE is 'many', expected the number" in capfd.readouterr().err


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = forked.run(*command(tmp_path), env=os.environ | environment(0, 2, port))
    assert done.returncode == 2
    assert f"port {port} is in use by another program; give torchrun another --master-port" in done.stderr
    assert "Traceback" not in done.stderr
