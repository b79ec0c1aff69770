"""The table of a sweep, as it is shown, and as JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mist_ext.report import text
from mist_ext.report.markdown import escape, line
from mist_ext.report.records import text_cells
from mist_ext.report.rows import Spread
from mist_ext.report.sharing import Sharing
from mist_ext.sweep.grid import Grid
from mist_ext.sweep.rows import METRICS, Row
from mist_ext.sweep.significance import LEAST
from mist_ext.system.names import shown

SCHEMA = 1
LEGEND = (
    "A_avg, A_last in %, forgetting and gain in percentage points, mean ± std over seeds. Gain: A_last minus that of "
    "the tuner none with all else the same, paired over (n) seeds. p: two-sided paired t-test of the gain, from "
    f"{LEAST} seeds on, not corrected for the number of rows. changed: % of the score-selected tensors that a step "
    "changes."
)


@dataclass(frozen=True)
class SweepTable:
    """The rows of a sweep, with what is said below them.

    Attributes
    ----------
    grid : Grid
    rows : list of Row
    failures : dict of str to str
        Why points failed, by name.
    environment : dict
        Versions and device of a run.
    sharing : Sharing
        Of the points' experiments.
    """

    grid: Grid
    rows: list[Row]
    failures: dict[str, str]
    environment: dict[str, Any]
    sharing: Sharing

    @property
    def varied(self) -> list[str]:
        """The axes that are columns: those with several values, the data set where it varies, and the tuner."""
        names = list(dict.fromkeys(name for row in self.rows for name in row.axes))
        values = {name: {repr(row.axes[name]) for row in self.rows if name in row.axes} for name in names}
        return [name for name in names if name == "tuner" or len(values[name]) > 1]

    @property
    def headings(self) -> list[str]:
        axes = [name for name in self.varied if name not in ("data", "tuner")]
        first = ["data"] if "data" in self.varied else []
        numbers = ["A_avg", "A_last", "forgetting", "gain over none", "p", "changed %", *self.diagnosed]
        return [*first, "method", "tuner", *axes, *numbers]

    @property
    def diagnosed(self) -> Sequence[str]:
        """The columns of the diagnosis, if any row has one."""
        return text.BACKBONE_HEADINGS if text.diagnosed([row.reported() for row in self.rows]) else ()

    def lines(self) -> list[list[str]]:
        """Each row under `headings`."""
        names = self.headings[: self.headings.index("A_avg")]
        diagnosed = bool(self.diagnosed)
        return [[*(_place(row, name) for name in names), *_numbers(row, diagnosed)] for row in self.rows]

    def title(self) -> str:
        """What all rows share."""
        options = self.grid.points[0].options
        data = ", ".join(dict.fromkeys(shown(row.axes["data"]) for row in self.rows))
        seeds = text.plural(len(self.grid.axes["seeds"]), "seed")
        return " · ".join(filter(None, (data, shown(options.backbone), seeds)))

    def notes(self) -> list[str]:
        """What was shared, what is missing or went wrong, what the diagnosis' columns mean, what failed."""
        grid = self.grid
        runs, experiments = text.plural(len(grid.points), "run"), text.plural(grid.experiments, "experiment")
        notes = [
            f"{experiments} of the grid from {runs}: {text.plural(grid.tunings, 'tuning')} of a backbone instead of "
            f"{grid.tuned_experiments}: methods share a tuned backbone, and points share a run where they differ in "
            "nothing that their tuner uses."
        ]
        notes += [sentence] if (sentence := self.sharing.sentence()) else []
        wanted = set(grid.axes["seeds"])
        for row in self.rows:
            place = ", ".join(shown(value) for value in (*row.axes.values(), row.method))
            if missing := sorted(wanted - set(row.seeds)):
                notes.append(f"{place}: without seed {', '.join(map(str, missing))}")
            notes += text.warning(row.reported().experiment, place)
        notes += [text.BACKBONE_LEGEND] if self.diagnosed else []
        return notes + [f"failed: {name}: {shown(error, 500)}" for name, error in self.failures.items()]

    def markdown(self) -> str:
        """The table, what is said below it, and the legend."""
        left = self.headings.index("A_avg")
        rule = ["---"] * left + ["---:"] * (len(self.headings) - left)
        lines = [f"### {escape(self.title())}", "", line(self.headings), line(rule)]
        lines += [line(list(map(escape, values))) for values in self.lines()]
        lines.append("")
        for note in self.notes():
            lines += [escape(note), ""]
        return "\n".join([*lines, LEGEND.replace("_", r"\_"), ""])

    def json(self) -> str:
        """Every number in full precision, by seed too; null for what was not measured."""
        grid = self.grid
        content = {
            "schema": SCHEMA,
            "axes": grid.axes,
            "runs": len(grid.points),
            "experiments": grid.experiments,
            "tunings": grid.tunings,
            "tuned_experiments": grid.tuned_experiments,
            "test": "two-sided paired t-test over seeds on last_accuracy",
            "environment": self.environment,
            "rows": [_record(row, self.diagnosed) for row in self.rows],
            "failures": self.failures,
        }
        return json.dumps(content, indent=1) + "\n"

    def csv(self) -> str:
        """One line per row, full precision, empty for what was not measured."""
        axes = list(dict.fromkeys(name for row in self.rows for name in row.axes))
        buffer = io.StringIO()
        names = [*axes, "method", "seeds", *(f"{name}_{part}" for name in METRICS for part in ("mean", "std"))]
        names += ["gain_mean", "gain_std", "gain_n", "p", "changed_fraction"]
        names += [f"{name}_{part}" for name in self.diagnosed for part in ("mean", "std")]
        writer = csv.DictWriter(buffer, names, lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            values = {**row.axes, "method": row.method, "seeds": " ".join(map(str, row.seeds))}
            for name in METRICS:
                values[f"{name}_mean"], values[f"{name}_std"] = row.spread(name)
            if row.gain:
                values |= {f"gain_{part}": value for part, value in row.gain._asdict().items()}
            for name, spread in row.reported().backbone.items():
                if spread is not None:
                    values[f"{name}_mean"], values[f"{name}_std"] = spread
            writer.writerow(text_cells({**values, "p": row.p, "changed_fraction": row.changed_fraction()}))
        return buffer.getvalue()


def p_text(p: float | None) -> str:
    """Three digits, where there are as many."""
    return text.DASH if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _place(row: Row, name: str) -> str:
    return shown(row.method if name == "method" else row.axes.get(name, text.DASH))


def _numbers(row: Row, diagnosed: bool) -> list[str]:
    spreads = [text.spread(Spread(*row.spread(name)), len(row.seeds)) for name in METRICS]
    backbone = text.backbone_texts(row.reported()) if diagnosed else []
    return [*spreads, text.gain(row.gain), p_text(row.p), text.percent(row.changed_fraction()), *backbone]


def _record(row: Row, diagnosed: Sequence[str]) -> dict[str, Any]:
    spreads: Mapping[str, Sequence[float]] = {name: row.spread(name) for name in METRICS}
    backbone = row.reported().backbone
    return {
        "axes": row.axes,
        "method": row.method,
        "seeds": row.seeds,
        **{name: {"mean": mean, "std": std} for name, (mean, std) in spreads.items()},
        "gain_over_none": None if row.gain is None else row.gain._asdict(),
        "p": row.p,
        "changed_fraction": row.changed_fraction(),
        **{name: None if (found := backbone[name]) is None else found._asdict() for name in diagnosed},
        "by_seed": {**row.values, **row.diagnosis()},
    }
