"""What a point's folder says of it: its results, or why there are none."""

from __future__ import annotations

from pathlib import Path

from mist_ext.report.experiments import Experiment
from mist_ext.report.parsing import ResultsError
from mist_ext.report.reading import read_experiments
from mist_ext.runs import run_folder
from mist_ext.sweep.point import Point
from mist_ext.system import names
from mist_ext.system.names import quoted

ERROR = "error.txt"  # in a point's folder: why it failed, its first line in short


def finished(folder: Path, point: Point) -> bool:
    """Return whether a point's run is complete, its reports included."""
    experiments = [file.parent for file in folder.glob("*/results.json")]
    complete = len(experiments) == len(point.options.method) and run_folder.finished(experiments)
    return complete and not (folder / "checkpoint").exists()


def failure(folder: Path) -> str | None:
    """Return in one line why a point failed; None if it did not."""
    file = folder / ERROR
    return file.read_text(encoding="utf-8", errors="replace").partition("\n")[0] if file.is_file() else None


def experiments(folder: Path, point: Point) -> list[Experiment]:
    """Read a finished point's results, by method; ResultsError for those of another experiment or seed.

    Parameters
    ----------
    folder : Path
        The sweep's.
    point : Point
    """
    own = folder / point.name
    (tuner,) = point.options.tuner
    expected = {f"{tuner}-{method}": method for method in point.options.method}
    found = {}
    for experiment in read_experiments([own]):
        name, seeds = f"{experiment.tuner}-{experiment.method}", [run.seed for run in experiment.runs]
        in_place = names.utf8(Path(experiment.source).parent.name) == experiment.name
        if not in_place or name not in expected or seeds != point.options.seeds:
            raise ResultsError(
                f"{experiment.source} holds results of {quoted(experiment.name)} with seeds {quoted(seeds)}, which is "
                f"not what the sweep runs there; remove {own}, and --resume runs that point again"
            )
        found[expected[name]] = experiment
    return [found[name] for name in point.options.method]
