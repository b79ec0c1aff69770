"""The page: complete, escaped, without anything from outside, and as a browser shows it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mist_ext.report import parse_experiment, read_experiments, write_report, write_summary
from mist_ext.report.table import DASH

Result = Callable[..., dict[str, Any]]
VOID = {"meta", "link", "br", "img", "hr", "input"}
NASTY = '<script>alert("1")</script> & "quoted"'
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="neither chromium nor google-chrome is on the PATH")


class Reader(HTMLParser):
    """Collects elements with their attributes, and fails on what is not closed in order."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())

    def attributes(self, *names: str) -> list[str]:
        return [value for _, given in self.elements for name in names if (value := given.get(name)) is not None]


@pytest.fixture(scope="module")
def run(result: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three experiments, one with an expectation and one that was interrupted, and their report."""
    folder = tmp_path_factory.mktemp("run")
    contents = {
        "none": result("none"),
        "mist": result(expected={"last_accuracy": 81.26, "source": "EASE repository, table 2"}),
        "full": result("full"),
    }
    del contents["full"]["runs"][1]["tasks"][2], contents["full"]["summary"]
    for name, content in contents.items():
        (folder / name).mkdir()
        (folder / name / "results.json").write_text(json.dumps(content))
    (folder / "mist" / "config.yaml").write_text("tuner:\n- mist\nlr: 0.003\n")
    write_report(read_experiments([folder]), folder)
    return folder


def test_the_page_has_every_number_of_the_table(run: Path) -> None:
    page = Reader((run / "report.html").read_text(encoding="utf-8"))
    written = Counter(page.words)
    for line in (run / "summary.md").read_text(encoding="utf-8").splitlines()[4:7]:
        for field in line.strip("| ").split(" | "):
            assert written[field.replace("\\", "")] >= 1, field
    assert written["81.26"] >= 1
    assert any("EASE repository, table 2" in words for words in page.words)


def test_every_experiment_has_its_figures_configuration_environment_and_gaps(run: Path) -> None:
    page = Reader((run / "report.html").read_text(encoding="utf-8"))
    words = "\n".join(page.words)
    titles = Counter(page.words)
    assert titles["Accuracy matrix"] == titles["Forgetting per class"] == titles["Time and memory"] == 3
    assert titles["Selected layers"] == 2  # not of the frozen backbone
    assert "lr: 0.003" in words  # the file beside the results
    assert "backbone:" not in words.split("lr: 0.003")[0].rsplit("tuner:", 1)[1]
    assert titles["instruction_set"] == 0  # null
    assert titles["2.15.0"] == 3
    assert "Incomplete: seed 2 has 2 of 3 tasks" in words


def test_nothing_comes_from_outside(run: Path) -> None:
    content = (run / "report.html").read_text(encoding="utf-8")
    page = Reader(content)
    targets = page.attributes("src", "href", "xlink:href", "data", "srcset", "action", "poster")
    assert targets
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in targets)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", content))
    assert "http" not in content.replace("http-equiv", "")
    assert "@import" not in content
    assert any("default-src 'none'" in policy for policy in page.attributes("content"))


def test_links_and_labels_lead_to_one_element_each(run: Path) -> None:
    page = Reader((run / "report.html").read_text(encoding="utf-8"))
    count = Counter(page.attributes("id"))
    assert set(count.values()) == {1}
    for target in page.attributes("href", "xlink:href", "aria-labelledby"):
        assert target.startswith("data:") or count[target.removeprefix("#")] == 1


def test_the_page_can_be_used_without_seeing_it(run: Path) -> None:
    page = Reader((run / "report.html").read_text(encoding="utf-8"))
    by_tag: dict[str, list[dict[str, str | None]]] = {}
    for tag, attributes in page.elements:
        by_tag.setdefault(tag, []).append(attributes)
    assert by_tag["html"] == [{"lang": "en"}]
    assert len(by_tag["title"]) == len(by_tag["h1"]) == len(by_tag["main"]) == 1
    assert len(by_tag["svg"]) == 1 + 3 * 4 + 2
    for drawing in by_tag["svg"]:
        assert drawing["role"] == "img"
        assert re.search(r"\d\.\d+", drawing["aria-label"] or "")
    assert len(by_tag["caption"]) == len(by_tag["table"])
    assert all(heading["scope"] in ("col", "row") for heading in by_tag["th"])


def test_every_text_is_escaped(result: Result, tmp_path: Path) -> None:
    content = result(expected={"last_accuracy": 1.0, "source": NASTY}, preset=NASTY)
    for part in ("data", "backbone", "tuner", "method"):
        content["config"][part]["name"] = f"{part} {NASTY}"
    content["environment"]["device"] = NASTY
    write_summary([parse_experiment(content, "")], tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert len([tag for tag, _ in Reader(page).elements if tag == "script"]) == 1
    assert html.unescape(page).count(NASTY) > 8


def test_the_same_results_make_the_same_page(result: Result, tmp_path: Path) -> None:
    for folder in ("one", "other"):
        write_summary([parse_experiment(result(), "")], tmp_path / folder)
    pages = [(tmp_path / folder / "report.html").read_bytes() for folder in ("one", "other")]
    assert pages[0] == pages[1]
    assert str(tmp_path).encode() not in pages[0]


def test_runs_without_a_finished_task_still_make_a_page(result: Result, tmp_path: Path) -> None:
    content = result(seeds=())
    content["config"]["seeds"] = [5]
    write_summary([parse_experiment(content, "")], tmp_path)
    assert "seed 5 without a finished task" in (tmp_path / "report.html").read_text(encoding="utf-8")


def browse(page: Path, *options: str) -> str:
    """Open a page in a browser without a window; returns its standard output."""
    assert BROWSER is not None
    profile = page.parent / "profile"
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
    ]
    done = subprocess.run(
        [*command, *options, page.absolute().as_uri()], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout


def colours(picture: Image.Image) -> dict[str, int]:
    counted = picture.convert("RGB").getcolors(picture.width * picture.height)
    assert counted
    return {f"#{red:02X}{green:02X}{blue:02X}": count for count, (red, green, blue) in counted}


@needs_browser
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_shows_text_tables_and_every_figure(run: Path, tmp_path: Path, width: int) -> None:
    shot = tmp_path / "shot.png"
    browse(run / "report.html", f"--screenshot={shot}", f"--window-size={width},9000")
    picture = Image.open(shot)
    assert picture.size == (width, 9000)
    found = colours(picture)
    # The figures' colours: tuners none, mist and full, then phases score, learn and evaluate.
    for colour in ("#7F7F7F", "#0072B2", "#009E73", "#56B4E9", "#E69F00"):
        assert found.get(colour, 0) > 200, colour
    assert found.get("#08306B", 0) > 500  # the dark end of the heat maps
    # Every stretch of the page down to its end shows something.
    rows = [row for row in range(0, 9000, 100) if len(colours(picture.crop((0, row, width, row + 100)))) > 8]
    assert len(rows) > 40
    assert max(after - before for before, after in pairwise(rows)) <= 300


@needs_browser
def test_the_documents_own_numbers_are_in_the_browsers_document(run: Path) -> None:
    document = browse(run / "report.html", "--dump-dom")
    assert "<title>mist report: digits</title>" in document
    assert re.search(r"""(?:src|href|url\()\W*https?:""", document) is None
    text = html.unescape(re.sub(r"<[^>]*>", "\n", document))
    for line in (run / "summary.md").read_text(encoding="utf-8").splitlines()[4:7]:
        for field in line.strip("| ").split(" | ")[2:]:
            assert f"\n{field}\n" in text, field


@needs_browser
@pytest.mark.parametrize("heading", ["A_last", "A_tt"])
def test_a_click_sorts_a_table(run: Path, heading: str) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    table = page[page.index("<thead>") : page.index("</thead>")]
    column = [re.sub(r"<[^>]*>", "", name) for name in re.findall(r"<th[^>]*>(.*?)</th>", table)].index(heading)
    click = f"<script>document.querySelectorAll('table.sortable th button')[{column}].click()</script></body>"
    clicked = run / f"clicked_{heading}.html"
    clicked.write_text(page.replace("</body>", click), encoding="utf-8")
    document = browse(clicked, "--dump-dom")
    body = document[document.index("<tbody>") : document.index("</tbody>")]
    lines = [re.findall(r"<t[dh][^>]*>(?:<a[^>]*>)?([^ <]+)", line) for line in body.split("<tr>")[1:]]
    values = [line[column] for line in lines]
    assert len(values) == 3
    numbers = [float(value) for value in values if value != DASH]
    assert numbers == sorted(numbers, reverse=True)
    assert values[len(numbers) :] == [DASH] * (3 - len(numbers))  # what has no number comes last
    assert 'aria-sort="descending"' in document
