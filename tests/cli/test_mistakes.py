"""What is wrong with a command is one sentence on standard error, and the exit status 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--epcohs", "3"], "unknown option '--epcohs'; did you mean '--epochs'"),
        (["run", "--data", "digts"], "unknown data set 'digts'; did you mean 'digits'?"),
        (["run", "--ranpac-width", "500"], "unknown option '--ranpac-width'; width is an option of the methods ranpac"),
        (["rnu"], "unknown command 'rnu'; did you mean 'run'?"),
        (["run", "missing.yaml"], "missing.yaml"),
        (["run", "--lr", "fast"], "lr"),
        (["report", "nowhere"], "nowhere is no folder"),
        (["run", "--resume", "nowhere"], "no run was begun in nowhere"),
        (["run", "--preset", "mist/cifar10"], "unknown preset 'mist/cifar10'; did you mean 'mist/cifar100'"),
        (["run", "--checkpoint-every", "5"], "checkpoint_every is '5', expected a duration such as 30s"),
        (["run", "--data", "folder:"], "expected folder:PATH"),
        (["run", "--pres", "mist/cifar100"], "unknown option '--pres'; did you mean '--preset'"),
        (["run", "--preset"], "--preset"),
        (
            ["run", "--preset", "mist/cub200", "--method", "ranpac", "simplecil"],
            "simplecil was published with batch_size",
        ),
        (["run", "--test-fraction", "1.5"], "test_fraction is 1.5, expected less than 1"),
        (["data", "check", "digits", "--test-fraction", "0"], "test_fraction is 0.0, expected a share between 0 and 1"),
        (["predict", ".", __file__, "--top", "0"], "top is 0, expected at least 1"),
        (["run", "--tuner", "mist", "--tuner", "none"], "--tuner is given twice; give all values after one --tuner"),
        (["run", "--lr", "1", "--lr=2"], "--lr is given twice; leave one out"),
        (["run", "--lr", "-1", "--print-config"], "lr is -1.0, expected more than 0"),
        (["run", "--out", "", "--print-config"], "out is '', expected a folder"),
        (["sweep", "grid.yaml", "--out", ""], "--out is '', expected a folder"),
        (["sweep", "grid.yaml", "--part", "9/8"], "part is '9/8', expected NUMBER/PARTS with a number from 1 to PARTS"),
        (["report", ".", "--out", ""], "--out is '', expected a folder"),
        (["predict", "nowhere", __file__], "nowhere is no folder"),
        (["predict", ".", "nowhere.png"], "nowhere.png is no file"),
    ],
)
def test_a_mistake_is_answered_by_one_sentence(mist: Command, arguments: list[str], message: str) -> None:
    status, output, errors = mist(*arguments)
    assert status == 2
    assert message in errors
    assert "Traceback" not in errors
    assert output == ""


def test_an_unknown_key_in_yaml_is_refused(mist: Command, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("sedes: [1]\n")
    status, _, errors = mist("run", str(tmp_path / "my.yaml"))
    assert status == 2
    assert "did you mean 'seeds'" in errors


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("data: [", "my.yaml is no valid YAML"),
        ("preset: 5\n", "my.yaml is 5, expected text or null"),
        ("\tlr: 1\n", "no valid YAML"),
    ],
)
def test_a_damaged_yaml_file_is_named(mist: Command, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(content)
    status, _, errors = mist("run", str(tmp_path / "my.yaml"))
    assert status == 2
    assert message in errors
    assert "Traceback" not in errors
