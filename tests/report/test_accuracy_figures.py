"""Figures of accuracies: of one experiment, and of all in one figure."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hand_made import TWO_SEEDS, experiment_of, experiments_of_two_tuners

from mist_ext.report import write_figures, write_summary


def png_size(file: Path) -> tuple[int, int]:
    head = file.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("tasks", [1, 2, 10, 30])
def test_figures_of_an_experiment_for_any_number_of_tasks_and_seeds(tmp_path: Path, tasks: int, seeds: int) -> None:
    matrix = [[100.0 - after - on for on in range(after + 1)] for after in range(tasks)]
    experiment = experiment_of("mist", matrices=dict.fromkeys(range(seeds), matrix))
    files = write_figures(experiment, tmp_path)
    kinds = ["accuracy", "matrix", "costs"]
    assert [file.name for file in files] == [f"{kind}.{ending}" for kind in kinds for ending in ("png", "svg")]
    for file in files[::2]:
        assert min(png_size(file)) > 300


def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect the figures that are drawn."""
    from matplotlib.figure import Figure

    figures: list[Any] = []
    save = Figure.savefig

    def keep(figure: Figure, *args: Any, **options: Any) -> None:
        if figure not in figures:  # which is saved in two formats
            figures.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_the_figures_show_the_means_over_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = drawn(monkeypatch)
    write_figures(experiment_of(matrices=TWO_SEEDS), tmp_path)
    accuracy, matrix, _ = (figure.axes[0] for figure in figures)
    lines = [list(line.get_ydata()) for line in accuracy.get_lines()]
    assert lines == [[90.0, 75.0], [94.0, 85.0], [92.0, 80.0], [92.0, 75.0]]  # the last: a task's own, right after it
    assert [tick.get_text() for tick in accuracy.get_xticklabels()] == ["1", "2"]
    assert "%" in accuracy.get_ylabel()
    assert {entry.get_position(): entry.get_text() for entry in matrix.texts} == {
        (0, 0): "92.0", (0, 1): "85.0", (1, 1): "75.0",
    }  # fmt: skip


def test_tuners_are_compared_by_colour_in_a_panel_for_each_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = drawn(monkeypatch)
    write_summary([*experiments_of_two_tuners(), experiment_of(data="glyphs")], tmp_path)
    (figure,) = (figure for figure in figures if figure.legends)
    titles = [axes.get_title().split("\n") for axes in figure.axes]
    assert [(title.split(" ")[0], method) for title, method in titles] == [
        ("digits", "ranpac"), ("digits", "simplecil"), ("glyphs", "simplecil")
    ]  # fmt: skip
    for axes, count in zip(figure.axes, (2, 2, 1), strict=True):
        ends = {line.get_color(): line.get_ydata()[-1] for line in axes.get_lines()}
        assert len(ends) == len(axes.get_lines()) == count
        assert {text.get_color(): text.get_text() for text in axes.texts} == {
            colour: f"{end:.1f}" for colour, end in ends.items()
        }
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    names = [entry.get_text() for entry in figure.legends[0].get_texts()]
    assert names == ["tuner", "none", "mist"]


def test_methods_behind_one_tuner_share_a_panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = drawn(monkeypatch)
    write_summary([experiment_of("none", method) for method in ("simplecil", "ranpac", "fecam")], tmp_path)
    (figure,) = (figure for figure in figures if figure.legends)
    (axes,) = figure.axes
    assert len({(line.get_linestyle(), line.get_marker()) for line in axes.get_lines()}) == 3
    names = [entry.get_text() for entry in figure.legends[0].get_texts()]
    assert names == ["tuner", "none", " ", "method", "fecam", "ranpac", "simplecil"]


def test_methods_that_share_panels_have_one_line_each_in_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = drawn(monkeypatch)
    methods = {"digits": ("simplecil", "ranpac"), "glyphs": ("fecam", "slca")}
    write_summary([experiment_of("none", name, data=data) for data, of in methods.items() for name in of], tmp_path)
    (figure,) = (figure for figure in figures if figure.legends)
    looks = [(line.get_linestyle(), line.get_marker()) for axes in figure.axes for line in axes.get_lines()]
    assert len(set(looks)) == len(looks) == 4
    names = [entry.get_text() for entry in figure.legends[0].get_texts()]
    assert names == ["tuner", "none", " ", "method", "fecam", "ranpac", "simplecil", "slca"]


def test_numbers_of_curves_that_end_together_stand_below_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = drawn(monkeypatch)
    write_summary([experiment_of(tuner) for tuner in ("none", "mist", "full")], tmp_path)
    (figure,) = (figure for figure in figures if figure.legends)
    heights = sorted(text.get_position()[1] for text in figure.axes[0].texts)
    low, high = figure.axes[0].get_ylim()
    assert min(b - a for a, b in itertools.pairwise(heights)) > 0.05 * (high - low)


def test_numbers_stay_above_the_axis_and_those_far_from_it_beside_their_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = drawn(monkeypatch)
    ends = {"none": 1.0, "mist": 90.0, "full": 1.0, "random": 1.0}
    write_summary([experiment_of(name, matrices={1: [[95.0], [end, end]]}) for name, end in ends.items()], tmp_path)
    (figure,) = (figure for figure in figures if figure.legends)
    heights = {text.get_text(): text.get_position()[1] for text in figure.axes[0].texts}
    assert heights["90.0"] == 90.0
    assert min(text.get_position()[1] for text in figure.axes[0].texts) > figure.axes[0].get_ylim()[0]


@pytest.mark.slow
def test_ten_experiments_in_one_figure(tmp_path: Path) -> None:
    tuners = ["none", "mist", "full", "random", "magnitude"]
    experiments = [experiment_of(tuner, method, TWO_SEEDS) for tuner in tuners for method in ("simplecil", "ranpac")]
    write_summary(experiments, tmp_path)
    assert min(png_size(tmp_path / "accuracy.png")) > 400
