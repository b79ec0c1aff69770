"""`mist cost`: what it prints and writes, and what it refuses before any work."""

from __future__ import annotations

import csv
import json
import signal
import time
from pathlib import Path

import pytest
from forked import Forked
from rich.console import Console

from mist_ext import cli
from mist_ext.cli import parsers
from mist_ext.config import Config, costly
from mist_ext.config.option import kinds
from mist_ext.cost.cost_command import FORMS, cost
from mist_ext.cost.cost_table import CostTable
from mist_ext.report.table import DASH


@pytest.fixture(scope="module")
def table() -> CostTable:
    tuners, methods = ["none", "mist", "gradient"], ["simplecil", "ease"]
    options = Config(weights="none", tuner=tuners, method=methods, batch_size=4, dynamics="published")
    return cost(options, None, 1, None, Console(quiet=True))


def test_the_json_has_every_phase(table: CostTable) -> None:
    content = json.loads(FORMS[".json"](table))
    assert (content["backbone"], content["image_size"], content["timed_steps"]) == ("vit_nano", 32, 1)
    rows = {(row["name"], row["phase"]): row for row in content["rows"]}
    assert list(rows) == [
        ("none", None),
        ("mist", "score"),
        ("mist", "tune"),
        ("gradient", None),
        ("simplecil", "learn"),
        ("simplecil", "evaluate"),
        ("ease", "train"),
        ("ease", "learn"),
        ("ease", "evaluate"),
    ]
    for (name, _), row in rows.items():
        assert (row["seconds"] is None) == (name in ("none", "gradient"))
        assert ("use --dynamics exact" in (row["reason"] or "")) == (name == "gradient")
    assert rows["ease", "train"]["backward_flops"] > 0


def test_the_tables_have_a_line_for_each(table: CostTable) -> None:
    tuners, methods = table.tables.tables
    assert [line.cells[0].text for line in tuners.lines] == ["none", "mist", "gradient"]
    assert [line.cells[0].text for line in methods.lines] == ["simplecil", "ease"]
    by_name = {column.name: position for position, column in enumerate(tuners.columns)}
    none, mist, gradient = ([cell.text for cell in line.cells] for line in tuners.lines)
    assert set(none[1:]) == set(gradient[1:]) == {DASH}
    assert (mist[by_name["selected %"]], mist[by_name["kept %"]][:2]) == ("5.00", "0.")
    assert mist[by_name["score forward"]] == mist[by_name["tune forward"]] != DASH
    assert "learn backward" not in {column.name for column in methods.columns}
    for form in (".md", ".tex"):
        text = FORMS[form](table)
        assert "tune forward" in text
        assert "has exact dynamics only" in text


def test_the_command_prints_the_table_and_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cost.csv"
    options = ["--tuner", "bitfit", "--method", "l2p", "--batch-size", "2", "--repeats", "1", "--backbone", "resnet10t"]
    assert cli.main(["cost", *options, "--image-size", "32", "--rate", "0.1", "--out", str(file)]) == 0
    output = capsys.readouterr().out
    assert "resnet10t, 32 x 32 pixels, fp32" in output
    assert "rate changes nothing: it is used by mist" in output
    assert "tuner bitfit: tune " in output
    assert "l2p: method 'L2P' attaches to the blocks" in " ".join(output.split())
    tuned, refused = csv.DictReader(file.read_text().splitlines())
    assert (tuned["name"], tuned["phase"], tuned["batch_size"]) == ("bitfit", "tune", "2")
    assert refused["seconds"] == ""
    assert "but the backbone is a ResNet" in refused["reason"]


def test_the_batch_size_counts_for_methods_without_a_tuner(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--tuner", "none", "--method", "simplecil", "--batch-size", "2", "--keep", "0.5", "--repeats", "1"]
    assert cli.main(["cost", *options]) == 0
    output = capsys.readouterr().out
    assert "keep changes nothing" in output
    assert "batch_size" not in output


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
        (
            ["--method", "l2p", "--method-options", "l2p.batch_size=0"],
            "batch_size=0: expected a whole number from 1 on",
        ),
        (["--method", "ranpac", "--method-options", "width=-1"], "width=-1: RanPAC needs at least one random feature"),
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


def test_an_interruption_ends_it_quietly() -> None:
    process = Forked("-m", "mist_ext", "cost")
    deadline = time.monotonic() + 60
    while not process.written()[0].startswith("tuner none"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "mist: interrupted\n")
