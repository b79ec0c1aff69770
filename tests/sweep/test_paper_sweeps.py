"""The sweeps that make the paper's tables: what they run, and one of them from files to table."""

from __future__ import annotations

import json
from collections import Counter
from operator import itemgetter
from pathlib import Path

import miniatures
import pytest
import yaml
from slow import only_long

from mist_ext.cli import main
from mist_ext.config import presets
from mist_ext.sweep.grid import Grid, read_grid
from mist_ext.sweep.significance import LEAST

PAPER = Path(__file__).parents[2] / "bench" / "sweeps" / "paper"
DATA = ("cifar100", "imagenet_r", "imagenet_a", "cub200", "cars196")
HOSTS = ("l2p", "dualprompt", "ease", "slca", "simplecil", "ranpac")


@pytest.mark.parametrize("path", sorted(PAPER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_sweep_of_the_paper_is_what_was_published_over_seeds(path: Path) -> None:
    grid = read_grid(path, "DATA")
    assert grid.unused == []
    assert grid.redundant == ["preset"]
    assert len(grid.axes["seeds"]) >= LEAST
    assert grid.axes["tuner"][:2] == ["none", "mist"]
    for point in grid.points:
        options = point.options
        assert (options.backbone, options.class_order_seed) == ("vit_base_patch16_224.augreg_in21k", 1993)
        assert (options.data_root, options.epochs if point.tunes else 20) == ("DATA", 20)
        assert options.dynamics == ("published" if options.tuner == ["mist"] else "exact")


def test_the_main_table_has_every_method_on_every_data_set() -> None:
    grid = read_grid(PAPER / "main.yaml")
    cells = Counter((*point.options.method, point.options.data, *point.options.tuner) for point in grid.points)
    assert cells == dict.fromkeys(((h, d, t) for h in HOSTS for d in DATA for t in ("none", "mist")), LEAST)


@pytest.mark.parametrize(
    ("name", "axis", "values"),
    [
        ("selection_rule", "tuner", ["none", "mist", "published_random", "published_magnitude", "published_gradient"]),
        ("objective", "tune_objective", ["mi", "ce_cosine"]),
        ("gradient_dropping", "keep", [0.05, 0.1, 0.2, 0.5, 1.0]),
        ("selection_rate", "rate", [0.01, 0.05, 0.1, 0.2, 0.5]),
    ],
)
def test_an_ablation_varies_one_thing_before_two_methods(name: str, axis: str, values: list) -> None:
    grid: Grid = read_grid(PAPER / f"{name}.yaml")
    assert grid.axes[axis] == values
    mist = [point for point in grid.points if point.axes["tuner"] == "mist" or axis == "tuner"]
    assert {point.options.data for point in mist} == {"imagenet_r"}
    expected = dict.fromkeys(((method, value) for method in ("ranpac", "simplecil") for value in values), LEAST)
    assert Counter((*point.options.method, point.axes[axis]) for point in mist) == expected
    mist = [point.options for point in grid.points if point.axes["tuner"] == "mist"]
    objectives = {(options.score_objective, options.tune_objective) for options in mist}
    assert objectives == {("mi", "mi"), *([("ce_cosine", "ce_cosine")] if name == "objective" else [])}


def small_ranpac(preset: str) -> dict[str, list[str]]:
    return {} if "simplecil" in preset else {"method_options": ["ranpac.width=50"]}


@pytest.mark.slow
@pytest.mark.usefixtures("forked_points", "shallow")
def test_a_sweep_of_the_paper_runs_in_parts_from_files_to_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    miniatures.imagenet_r_tree(tmp_path / "DATA")
    grid = yaml.safe_load((PAPER / "selection_rule.yaml").read_text())
    grid["fixed"] = {"backbone": "vit_nano", "epochs": 2, "workers": 0, "classes_per_task": 100, "images_per_class": 1}
    grid["axes"]["seeds"] = [1]
    grid["axes"]["preset"] = [{"preset": name, **small_ranpac(name)} for name in grid["axes"]["preset"]]
    Path("rule.yaml").write_text(yaml.safe_dump(grid))
    for number in (1, 2):
        assert main(["sweep", "rule.yaml", "--data-root", "DATA", "--part", f"{number}/2"]) == 0
    assert main(["report", "runs/rule-part-1-of-2", "runs/rule-part-2-of-2", "--out", "runs/rule"]) == 0
    table = Path("runs/rule/sweep.tex").read_text()
    for tuner in ("none", "mist", "published_random", "published_magnitude", "published_gradient"):
        assert table.count(tuner.replace("_", r"\_") + " &") >= 2
    rows = json.loads(Path("runs/rule/sweep.json").read_text())["rows"]
    assert all((row["gain_over_none"] is None) == (row["axes"]["tuner"] == "none") for row in rows)
    assert not any("preset" in line for line in table.splitlines() if not line.startswith("%"))
    for name in ("sweep.png", "sweep.svg", "sweep.csv", "sweep.json", "report.html"):
        assert (Path("runs/rule") / name).is_file()
    said = " ".join(capsys.readouterr().out.split())
    assert "10 experiments of the grid from 10 runs: 8 tunings of a backbone" in said
    assert "not finished" not in said


@pytest.mark.slow
@pytest.mark.usefixtures("forked_points")
@pytest.mark.parametrize("name", ["main", "objective", "gradient_dropping", "selection_rate"])
def test_the_others_end_in_their_tables_too(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_long()
    monkeypatch.chdir(tmp_path)
    miniatures.few_classes(tmp_path / "DATA", 4)
    grid = yaml.safe_load((PAPER / f"{name}.yaml").read_text())
    trained = ("l2p", "dualprompt", "ease", "slca")
    points = []
    for preset in grid["axes"]["preset"]:
        method = presets.preset(preset)["method"][0]
        options = ["ranpac.width=50"] if method == "ranpac" else [f"{method}.epochs=1"] if method in trained else []
        cifar = "cifar100" in preset
        size = {"classes_per_task": 50, "images_per_class": 1} if cifar else {"classes_per_task": 2}
        points.append({"preset": preset, **size, **({"method_options": options} if options else {})})
    grid["fixed"] = {"backbone": "vit_nano", "epochs": 2, "workers": 0}
    grid["axes"] |= {"preset": points, "seeds": [1]}
    Path("grid.yaml").write_text(yaml.safe_dump(grid))
    assert main(["sweep", "grid.yaml", "--data-root", "DATA", "--out", "ended"]) == 0
    found = json.loads(Path("ended/sweep.json").read_text())
    assert not found["failures"]
    assert {row["method"] for row in found["rows"]} == {
        presets.preset(p)["method"][0] for p in map(itemgetter("preset"), points)
    }
    assert all((row["gain_over_none"] is None) == (row["axes"]["tuner"] == "none") for row in found["rows"])
    for suffix in ("png", "tex", "csv"):
        assert Path(f"ended/sweep.{suffix}").is_file()
