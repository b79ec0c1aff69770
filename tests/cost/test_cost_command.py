"""`mist cost`: what it prints and writes, and what it refuses before any work."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mist_ext import cli
from mist_ext.cli import parsers
from mist_ext.config import Config, costly
from mist_ext.config.option import kinds

SMALL = ["--tuner", "none", "mist", "full", "--method", "simplecil", "ease", "--batch-size", "4", "--repeats", "1"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("cost") / "cost.json"
    assert cli.main(["cost", *SMALL, "--out", str(file)]) == 0
    return file


def test_the_json_has_every_phase(written: Path) -> None:
    content = json.loads(written.read_text())
    assert (content["backbone"], content["image_size"], content["timed_steps"]) == ("vit_nano", 32, 1)
    rows = {(row["name"], row["phase"]): row for row in content["rows"]}
    assert list(rows) == [
        ("none", None),
        ("mist", "score"),
        ("mist", "tune"),
        ("full", "tune"),
        ("simplecil", "learn"),
        ("simplecil", "evaluate"),
        ("ease", "train"),
        ("ease", "learn"),
        ("ease", "evaluate"),
    ]
    for (name, _), row in rows.items():
        assert row["reason"] is None
        assert (row["seconds"] is None) == (name == "none")
    assert rows["ease", "train"]["backward_flops"] > 0


@pytest.mark.parametrize("form", [".md", ".tex", ".csv"])
def test_the_other_forms_have_what_is_printed(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / f"cost{form}"
    options = ["--tuner", "bitfit", "--method", "l2p", "--batch-size", "2", "--repeats", "1", "--backbone", "resnet10t"]
    assert cli.main(["cost", *options, "--image-size", "32", "--rate", "0.1", "--out", str(file)]) == 0
    output, text = capsys.readouterr().out, file.read_text()
    assert "resnet10t, 32 x 32 pixels, fp32" in output
    assert "rate changes nothing: it is used by mist" in output
    assert "tuner bitfit: tune " in output
    assert "l2p: method 'L2P' attaches to the blocks" in " ".join(output.split())
    if form == ".csv":
        tuned, refused = csv.DictReader(text.splitlines())
        assert (tuned["name"], tuned["phase"], tuned["batch_size"]) == ("bitfit", "tune", "2")
        assert refused["seconds"] == ""
        assert "but the backbone is a ResNet" in refused["reason"]
    else:
        assert "bitfit" in text
        assert "tune forward" in text
        assert "the backbone is a ResNet" in text.replace("\\", "")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--tuner", "lst"], "unknown tuner 'lst'; did you mean 'mist'?"),
        (["--method", "simplecli"], "did you mean 'simplecil'"),
        (["--backbone", "vit_nana"], "unknown backbone 'vit_nana'; did you mean 'vit_nano'"),
        (["--image-size", "64"], "image_size is 64, which backbone 'vit_nano' does not take"),
        (["--image-size", "big"], "image_size is 'big', expected a whole number"),
        (["--repeats", "0"], "repeats is 0, expected 1 or more"),
        (["--out", "cost.txt"], "unknown ending of --out '.txt'; did you mean '.tex'"),
        (["--out", "no/folder/cost.md"], "no/folder is no folder; create it first"),
        (["--rate", "2"], "rate is 2.0, expected at most 1"),
        (["--method-options", "l2p.lenght=3"], "did you mean 'length'"),
        (["--seeds", "1"], "unknown option '--seeds'"),
    ],
)
def test_a_wrong_option_is_named_before_any_work(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["cost", *options])
    assert ended.value.code == 2
    output, errors = capsys.readouterr()
    assert told in " ".join(errors.split())
    assert output == ""


def test_it_has_the_options_of_a_run_and_its_own_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(costly.NAMES) <= set(kinds(Config))
    parsed = parsers.make().parse_args(["cost"])
    assert {name for name in kinds(Config) if hasattr(parsed, name)} == set(costly.NAMES)
    with pytest.raises(SystemExit):
        cli.main(["cost", "--help"])
    assert "file. (default: none)" in " ".join(capsys.readouterr().out.split())
    Config(**costly.defaults()).check()


@pytest.mark.slow
def test_an_interruption_ends_it_quietly() -> None:
    command = [sys.executable, "-u", "-W", "ignore", "-m", "mist_ext", "cost"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("tuner none")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "mist: interrupted\n")
