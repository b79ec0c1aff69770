"""How the numbers of a row are written, the same in every kind of table."""

from __future__ import annotations

from collections.abc import Sequence

from mist_ext.report.experiments import WHOLE, Experiment
from mist_ext.report.rows import Group, Row, Spread
from mist_ext.report.sharing import sharing
from mist_ext.results import warning_signs
from mist_ext.results.metrics import Gain
from mist_ext.results.record import Expected
from mist_ext.system.costs import PHASES
from mist_ext.system.names import shown

DASH = "–"  # noqa: RUF001 - an en dash: what was not measured

# Headings of the columns, in the order of `share_texts`, `backbone_texts`, `second_texts` and `memory_texts`.
SHARE_HEADINGS = ("selected", "kept", "changed", "of all")
BACKBONE_HEADINGS = ("drift", "letters", "plasticity")
SECOND_HEADINGS = (*PHASES, "total")
MEMORY_HEADINGS = (*PHASES, WHOLE)

LEGEND = (
    "A_avg, A_last in %, forgetting and gain in percentage points, mean ± std over seeds. "
    "Gain: A_last minus that of the tuner none with the same method, paired over (n) seeds. "
    "selected: % of the entries that are chosen by score; kept: % of these in a step; "
    "changed: % of the score-selected tensors that a step changes; of all: of the whole backbone. "
    "Seconds are sums over tasks, averaged over seeds."
)
BACKBONE_LEGEND = (
    "drift: cosine between the features of earlier tasks' test images before and after tuning on a task, mean over "
    "tasks, 1 where nothing moves; letters: % of held-out Latin letters that a linear probe recognises after the last "
    "task; plasticity: % right among a task's own classes, by class means, mean over tasks."
)


MEMORY_LEGEND = (
    "Peak memory is the largest over tasks and seeds, of all that the process holds (on a GPU of all tensors), what "
    "earlier phases and other methods of the run left there included; whole: of any phase."
)


def legend(rows: Sequence[Row]) -> str:
    """What the columns mean."""
    parts = [LEGEND, BACKBONE_LEGEND if diagnosed(rows) else "", MEMORY_LEGEND if memory_recorded(rows) else ""]
    return " ".join(filter(None, parts))


def title(group: Group, rows: Sequence[Row]) -> str:
    """A line that says what all rows of a group share."""
    counts = [len(row.seeds) for row in rows]
    fewest, most = min(counts), max(counts)
    seeds = plural(most, "seed") if fewest == most else f"{fewest} to {plural(most, 'seed')}"
    return f"{shown(group.data)} · {shown(group.backbone)} · {plural(group.tasks, 'task')} · {seeds}"


def accuracy_texts(row: Row, rows: Sequence[Row]) -> dict[str, str]:
    """A_avg, A_last, forgetting and gain, by heading.

    Where any of the rows that stand in one table has a published expectation, that stands beside what was obtained.
    """
    average, last, forgetting = (
        spread(value, len(row.seeds)) for value in (row.average_accuracy, row.last_accuracy, row.forgetting)
    )
    if not any(other.experiment.expected for other in rows):
        return {"A_avg": average, "A_last": last, "forgetting": forgetting, "gain over none": gain(row.gain)}
    expected = row.experiment.expected or Expected(source="")
    return {
        "A_avg": average,
        "A_avg published": accuracy(expected.average_accuracy),
        "A_last": last,
        "A_last published": accuracy(expected.last_accuracy),
        "forgetting": forgetting,
        "gain over none": gain(row.gain),
    }


def share_texts(row: Row) -> list[str]:
    """Selected, kept and changed, in percent."""
    return [percent(row.fractions[name]) for name in ("selected", "kept", "changed", "changed_all")]


def backbone_texts(row: Row) -> list[str]:
    """What tuning did to the backbone."""
    drift, *percents = (row.backbone[name] for name in BACKBONE_HEADINGS)
    return [spread(drift, len(row.seeds), 4), *(spread(value, len(row.seeds)) for value in percents)]


def diagnosed(rows: Sequence[Row]) -> bool:
    """Whether any row tells what tuning did to the backbone."""
    return any(value is not None for row in rows for value in row.backbone.values())


def second_texts(row: Row) -> list[str]:
    """Seconds of each phase, and their sum."""
    return [seconds(row.seconds[phase]) for phase in SECOND_HEADINGS]


def memory_texts(row: Row) -> list[str]:
    """Peak memory of each phase, and the largest, in MiB."""
    return [memory(row.memory[phase]) for phase in MEMORY_HEADINGS]


def memory_recorded(rows: Sequence[Row]) -> bool:
    """Whether any row tells how much memory it took."""
    return any(value is not None for row in rows for value in row.memory.values())


def spread(value: Spread | None, seeds: int, digits: int = 2) -> str:
    """Mean and standard deviation, the latter only where there is more than one seed."""
    if value is None:
        return DASH
    mean, std = f"{value.mean:.{digits}f}", f"{value.std:.{digits}f}"
    return f"{mean} ± {std}" if seeds > 1 else mean


def gain(value: Gain | None) -> str:
    """A signed `spread`, with the number of paired seeds."""
    if value is None:
        return DASH
    return f"{'+' if value.mean >= 0 else ''}{spread(Spread(value.mean, value.std), value.n)} ({value.n})"


def accuracy(value: float | None) -> str:
    """A percentage of images."""
    return DASH if value is None else f"{value:.2f}"


def percent(fraction: float | None) -> str:
    return DASH if fraction is None else f"{100 * fraction:.2f}"


def seconds(value: float | None) -> str:
    if value is None:
        return DASH
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def memory(value: float | None) -> str:
    """Bytes in MiB."""
    return DASH if value is None else f"{value / 2**20:,.0f}"


def label(row: Row) -> str:
    """The row's tuner; a star where something is missing."""
    return f"{shown(row.label)} *" if row.experiment.gaps else shown(row.label)


def method(row: Row) -> str:
    """The row's method."""
    return shown(row.experiment.method)


def notes(rows: Sequence[Row]) -> list[str]:
    """What stands below all tables: `incomplete`, then `warnings`, `sources`, and what was `shared`."""
    return incomplete(rows) + warnings(rows) + sources(rows) + shared(rows)


def incomplete(rows: Sequence[Row]) -> list[str]:
    """One sentence per incomplete experiment; means leave its shorter runs out."""
    return [f"* {called(row)}: incomplete, {'; '.join(row.experiment.gaps)}" for row in rows if row.experiment.gaps]


def warnings(rows: Sequence[Row]) -> list[str]:
    """One sentence per experiment whose training went wrong without ending."""
    return [sentence for row in rows for sentence in warning(row.experiment, called(row))]


def warning(experiment: Experiment, name: str) -> list[str]:
    """Which signs there are that training went wrong, and in how many tasks: a sentence, or none."""
    tasks = [task.warnings for run in experiment.runs for task in run.tasks]
    counts = {words: sum(sign in signs for signs in tasks) for sign, words in warning_signs.WORDS.items()}
    found = "; ".join(f"{words} in {count} of {plural(len(tasks), 'task')}" for words, count in counts.items() if count)
    return [f"warning: {name}: {found}; a lower learning rate may help"] if found else []


def sources(rows: Sequence[Row]) -> list[str]:
    """Where the published expectations come from, one sentence per source."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if expected := row.experiment.expected:
            found.setdefault(expected.source, []).append(called(row))
    return [f"published: {shown(source, 200)} ({'; '.join(called)})" for source, called in found.items()]


def shared(rows: Sequence[Row]) -> list[str]:
    """What methods shared, in one sentence, or none."""
    return [sentence] if (sentence := sharing(row.experiment for row in rows).sentence()) else []


def called(row: Row) -> str:
    """A row in a sentence."""
    return f"{shown(row.experiment.data)}, {shown(row.label)}, {method(row)}"


def plural(number: int, noun: str) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
