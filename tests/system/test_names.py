"""Names are data: whatever a folder, class, data set or file is called, it is shown, and steers nothing."""

from __future__ import annotations

import csv
import io
import json
import os
import unicodedata
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import miniatures
import pytest
from hand_made import results, task_record
from rich.console import Console
from slow import first_is_quick

from mist_ext import cli, report
from mist_ext.report import as_text, parse_experiment, read_experiments, write_report
from mist_ext.runs import benchmark
from mist_ext.system.names import LONGEST, printable, quoted, say, shown, utf8
from mist_ext.system.progress import Progress

EVIL = "[/red]$x$ <b>&|`*_=\x1b]0;t\x07\x9b31m\u202e\udcff{0}%s\\"


def printed(text: str) -> bool:
    """Whether a terminal shows all of a text, and is steered by nothing in it."""
    return not any(unicodedata.category(each) in ("Cc", "Cf", "Cs") for each in text.replace("\n", ""))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("digits", "digits"),
        ("Löwe 狮子 👩‍🔬", "Löwe 狮子 👩‍🔬"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x9b31m", r"\x9b31m"),
        ("a\tb\nc\r\x7f", r"a\tb\nc\r\x7f"),
        (os.fsdecode(b"caf\xe9"), r"caf\udce9"),
        ("\u202eexe.gpj", r"\u202eexe.gpj"),
        ("a\u2028b\u2066", r"a\u2028b\u2066"),
        ("[/red] [link=x]", "[/red] [link=x]"),
    ],
)
def test_what_cannot_be_seen_is_written_as_an_escape(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert printed(printable(text).replace("\u200d", ""))


def test_a_long_name_is_cut_in_its_middle() -> None:
    assert shown("a" * LONGEST) == "a" * LONGEST
    name = shown("a" * 4000 + "b" * 1000)
    assert len(name) == LONGEST
    assert name.startswith("aaa")
    assert name.endswith("bbb")
    assert "…" in name
    assert shown(5) == "5"
    assert len(quoted(["x" * 10_000] * 1000)) < 2000


def test_a_message_is_shown_as_it_is() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=40)
    say(console, f"{EVIL} [bold]x[/bold]\nsecond line " + "y" * 60)
    assert file.getvalue() == f"{printable(EVIL)} [bold]x[/bold]\nsecond line {'y' * 60}\n"


def test_progress_shows_names_as_they_are() -> None:
    file = io.StringIO()
    with Progress(Console(file=file, width=200, force_terminal=True, color_system=None), total=1) as progress:
        progress.begin(EVIL)
        list(progress.track(range(2), EVIL, 2))
        progress.advance(EVIL)
        progress._bars.refresh()
    text = file.getvalue()
    assert text.count(printable(EVIL)) >= 3
    assert not any(code in text for code in ("\x1b]0", "\x9b", "\u202e", "\udcff"))


def result(name: str) -> dict[str, Any]:
    """Results in which everything that has a name is called so."""
    tasks = [
        task_record(
            [2 * number, 2 * number + 1],
            [90.0] * (number + 1),
            accuracy_per_class=[90.0 - number] * (2 * number + 2),
            seconds={"learn": 1.0},
            selection=[{"name": f"{name}.0.{name}", "entries": 4, "selected": 1, "score_share": 1.0}],
        )
        for number in range(2)
    ]
    published = {"average_accuracy": 1.0, "source": name}
    made = results({1: tasks}, name, name, name, finished=False, backbone={"name": name}, expected=published)
    made["config"]["data"]["class_names"] = [f"{number}{name}" for number in range(4)]
    return made | {"environment": {name: name}}


def written(name: str, folder: Path) -> Path:
    experiment = folder / "run" / "experiment"
    experiment.mkdir(parents=True)
    (experiment / "results.json").write_text(json.dumps(result(utf8(name))))
    return experiment


class Words(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    "name",
    first_is_quick(
        [
            EVIL,
            "[link=x]",
            "\"><script>alert(1)</script><img src=x onerror=alert(1)> ' {{ 7*7 }} {% x %}",
            "x" * 5000,
            "\x1b" * 5000,
            os.fsdecode(b"\xff\xfe\x80"),
        ]
    ),
    ids=["evil", "link", "html", "long", "long_escapes", "no_utf8"],
)
def test_a_report_takes_any_name(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = written(name, tmp_path)
    experiments = read_experiments([experiment])
    files = write_report(experiments, tmp_path / "joint")
    assert cli.main(["report", str(experiment)]) == 0
    terminal = capsys.readouterr().out
    assert printed(terminal)
    assert shown(name)[:10] in terminal
    for file in files:
        assert file.stat().st_size < 2**20
        if file.suffix == ".svg":
            root = ElementTree.fromstring(file.read_text(encoding="utf-8"))
            assert not {element.tag.rpartition("}")[2] for element in root.iter()} & {"script", "b", "img", "a"}
    sizes = [(file.read_bytes()[16:20], file.read_bytes()[20:24]) for file in files if file.suffix == ".png"]
    assert all(int.from_bytes(side, "big") < 5000 for size in sizes for side in size)
    words = Words()
    words.feed((tmp_path / "joint" / "report.html").read_text(encoding="utf-8"))
    assert not words.tags & {"b", "img", "iframe", "object"}
    assert not any(attribute.startswith("on") for attribute in words.attributes)
    assert (tmp_path / "joint" / "report.html").read_text(encoding="utf-8").count("<script") == 1
    assert shown(name) in words.text
    again = json.loads((tmp_path / "joint" / "summary.json").read_text(encoding="utf-8"))["experiments"][0]
    assert again["data"] == again["tuner"] == utf8(name)  # whole, for programs


def test_markdown_has_no_markup_of_names() -> None:
    experiment = parse_experiment(result("a|b <b>x</b> *y* __z__ [l](u) `c` &lt; in_word #1"), "")
    lines = as_text([experiment], "markdown").splitlines()
    expected = r"a\|b &lt;b&gt;x&lt;/b&gt; \*y\* \_\_z\_\_ \[l\](u) \`c\` &amp;lt; in_word \#1"
    assert f"| {expected} | {expected} \\* | 90.00 |" in lines[4]
    assert not any("<" in line for line in lines)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "=cmd|' /C calc'!A0"])
def test_no_name_is_a_formula_of_a_spreadsheet(name: str) -> None:
    (line,) = csv.DictReader(io.StringIO(as_text([parse_experiment(result(name), "")], "csv")))
    for column in ("data", "backbone", "tuner", "method", "expected_source"):
        assert line[column].lstrip("'").startswith(printable(name)[:1])
        assert line[column][0] not in "=+-@\t\r"
    assert (line["average_accuracy_mean"], line["forgetting_mean"]) == ("90.0", "0.0")


def test_negative_numbers_stay_numbers() -> None:
    content = result("x")
    content["runs"][0]["tasks"][1]["accuracy_per_task"] = [95.0, 90.0]
    (line,) = csv.DictReader(io.StringIO(as_text([parse_experiment(content, "")], "csv")))
    assert line["forgetting_mean"] == "-5.0"


def test_an_error_shows_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["report", EVIL], ["run", EVIL], ["run", "--data", EVIL], ["predict", EVIL, __file__]):
        with pytest.raises(SystemExit):
            cli.main(arguments)
        errors = capsys.readouterr().err
        assert errors.startswith("mist: ")
        assert printed(errors)


@pytest.mark.skipif(os.name != "posix" or os.uname().sysname == "Darwin", reason="needs names that are no UTF-8")
def test_a_run_on_folders_of_any_name_ends_and_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a checkpoint that is read, and a classifier."""
    monkeypatch.chdir(tmp_path)
    classes = ["=1+1", "$x$ <b>", "\x1b[31mred", os.fsdecode(b"caf\xe9")]
    images, out = Path("[red]" + os.fsdecode(b"\xff")), Path("[", "red]\x1b[2J" + os.fsdecode(b"\xfe"))
    miniatures.class_folders(images, classes, {"train": 3, "test": 2})
    arguments = ["--data", f"folder:{images}", "--tuner", "none", "--method", "simplecil", "--seeds", "1"]
    assert cli.main(["run", *arguments, "--classes-per-task", "2", "--workers", "0", "--out", str(out)]) == 0
    (experiment,) = [file.parent for file in out.glob("*/results.json")]
    photo = next((images / "test" / classes[2]).iterdir())
    assert cli.main(["predict", str(experiment), str(photo)]) == 0
    assert cli.main(["report", str(out)]) == 0
    output = capsys.readouterr()
    assert printed(output.out)
    assert printed(output.err)
    for name in (*classes, str(out)):
        assert printable(name) in output.out
    assert {file.name for file in experiment.iterdir()} >= {"accuracy.png", "matrix.svg", "forgetting.png", "log.jsonl"}
    recorded = json.loads((experiment / "results.json").read_text())
    assert recorded["config"]["data"]["class_names"] == [utf8(name) for name in sorted(classes)]
    assert (out / "report.html").is_file()
    assert benchmark.resume(out, Console(file=io.StringIO())) == out
    assert report.read_experiments([out])[0].class_name(0) == printable(sorted(classes)[0])
