"""The files of a report: each experiment's figures, and the tables, figure and page that join all experiments."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mist_ext.report import digests
from mist_ext.report.comparisons import Comparison, compare, groups
from mist_ext.report.experiments import Experiment
from mist_ext.report.figures import Drawing, comparison, experiment_drawings, figure_names
from mist_ext.report.full_precision import json_text
from mist_ext.report.joint_table import joint_table
from mist_ext.report.page import configuration, page
from mist_ext.report.renderers.latex import latex
from mist_ext.report.renderers.markdown import markdown
from mist_ext.report.renderers.spreadsheet import csv_text
from mist_ext.report.table import Tables
from mist_ext.system.files import write_atomically

PAGE = "report.html"


def write_report(
    experiments: Sequence[Experiment],
    folder: str | Path | None,
    figures: bool = True,
    tell: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write each experiment's figures beside its results, and the files that join all experiments into a folder.

    Every figure is drawn once, and not at all where its files show what they would show again. The joint files are
    `summary.json`, `summary.md`, `summary.csv` and `summary.tex`, `accuracy.png` and `accuracy.svg`, and the page
    `report.html`.

    Parameters
    ----------
    experiments : sequence of Experiment
        From `read_experiments`, at least one.
    folder : path-like or None
        Made if it does not exist; None leaves the joint files out.
    figures : bool
        Whether there are figures, in files and on the page.
    tell : callable, optional
        Is told where figures are that cannot stand beside their results.

    Returns
    -------
    list of Path
        The files, those that were up to date among them.

    Raises
    ------
    ValueError
        If there is no experiment.
    PermissionError
        If nothing can be written; the message says what to do.
    """
    drawn = _Drawn()
    files = []
    for experiment in experiments if figures else ():
        files += _write_figures(experiment, _figures_home(experiment, folder, tell), drawn)
    return files if folder is None else [*files, *write_summary(experiments, folder, figures, drawn)]


def write_figures(experiment: Experiment, folder: str | Path) -> list[Path]:
    """Write the figures of one experiment, as PNG and SVG, unless they are there and up to date.

    Parameters
    ----------
    experiment : Experiment
        From `read_experiments` or `parse_experiment`.
    folder : path-like
        Made if it does not exist.

    Returns
    -------
    list of Path
        The files: `accuracy` and `matrix`; where they were recorded also `forgetting`, `selection` and `costs`. None
        where no task is finished.
    """
    return _write_figures(experiment, Path(folder), _Drawn())


class _Drawn(dict[int, list[Drawing]]):
    """The figures of each experiment, by ``id(experiment)``: drawn when they are asked for, once."""

    def of(self, experiment: Experiment) -> list[Drawing]:
        if id(experiment) not in self:
            self[id(experiment)] = experiment_drawings(experiment)
        return self[id(experiment)]


def write_summary(
    experiments: Sequence[Experiment], folder: str | Path, figures: bool = True, drawn: _Drawn | None = None
) -> list[Path]:
    """Write the files that join all experiments.

    Parameters
    ----------
    experiments : sequence of Experiment
        At least one.
    folder : path-like
        Made if it does not exist.
    figures : bool
        Whether there are figures, in files and on the page.
    drawn : optional
        The experiments' figures that are drawn already.

    Returns
    -------
    list of Path
        The files. No figure where no experiment has a finished task.

    Raises
    ------
    ValueError
        If there is no experiment.
    PermissionError
        If the folder cannot be written.
    """
    if not experiments:
        raise ValueError("no experiments to summarise: give at least one run")
    folder = Path(folder)
    if not _writable(folder):
        raise PermissionError(f"the report cannot be written to {folder}: no permission; give a folder of yours: --out")
    comparisons = compare(experiments)
    tables = joint_table(comparisons)
    contents: dict[str, bytes | str] = {
        "summary.json": json_text(comparisons),
        "summary.md": markdown(tables),
        "summary.csv": csv_text(tables),
        "summary.tex": latex(tables),
    }
    digest = _page_digest(comparisons, tables, figures)
    shown = ["accuracy.png", "accuracy.svg"] if figures and groups(comparisons) else []
    if not all(digests.holds(folder / name, digest) for name in (*shown, PAGE)):
        drawn = (drawn or _Drawn()) if figures else None
        joint = replace(comparison(comparisons), digest=digest) if shown else None
        contents |= joint.files() if joint else {}
        drawings = [drawn.of(one.experiment) if drawn is not None else [] for one in comparisons]
        contents[PAGE] = page(comparisons, tables, joint, drawings, digest)
    _write(folder, contents)
    return [folder / name for name in dict.fromkeys((*contents, *shown, PAGE))]


def _page_digest(comparisons: Sequence[Comparison], tables: Tables, figures: bool) -> str:
    """Digest all that the page and the figure that joins all experiments show."""
    experiments = [one.experiment for one in comparisons]
    shown = [[each.config, each.runs, each.environment, configuration(each)] for each in experiments]
    return digests.of_parts(shown, [one.label for one in comparisons], tables.tables, tables.notes, figures)


def _figures_home(experiment: Experiment, folder: str | Path | None, tell: Callable[[str], None] | None) -> Path:
    """Return where an experiment's figures are written: beside its results, else in a folder of that name."""
    own = Path(experiment.source).parent
    if _writable(own) or _up_to_date(experiment, own):
        return own
    if folder is None or not _writable(Path(folder)):
        raise PermissionError(
            f"the figures of {own} cannot be written there: no permission; give a folder of yours, --out, or leave "
            "them out, --no-figures"
        )
    absolute = own.resolve()
    home = Path(folder) / absolute.parent.name / absolute.name
    if tell is not None:
        tell(f"{own} cannot be written; its figures are in {home}")
    return home


def _writable(folder: Path) -> bool:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return os.access(there, os.W_OK | os.X_OK)


def _up_to_date(experiment: Experiment, folder: Path) -> bool:
    digest = digests.of_experiment(experiment)
    return all(digests.holds(folder / name, digest) for name in _file_names(experiment))


def _file_names(experiment: Experiment) -> list[str]:
    return [f"{name}.{form}" for name in figure_names(experiment) for form in ("png", "svg")]


def _write_figures(experiment: Experiment, folder: Path, drawn: _Drawn) -> list[Path]:
    if not _up_to_date(experiment, folder):
        contents: dict[str, bytes | str] = {}
        for drawing in drawn.of(experiment):
            contents |= drawing.files()
        _write(folder, contents)
    return [folder / name for name in _file_names(experiment)]


def _write(folder: Path, contents: Mapping[str, bytes | str]) -> None:
    if contents:
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomically(folder / name, content)
