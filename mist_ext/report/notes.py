"""What is said below the tables of a report."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from mist_ext.config import TuningOptions
from mist_ext.config.option import about
from mist_ext.config.tuning import UNTRAINED
from mist_ext.report.comparisons import Comparison
from mist_ext.report.experiments import Experiment
from mist_ext.report.numbers import plural
from mist_ext.report.sharing import sharing
from mist_ext.report.table import Note
from mist_ext.results import warning_signs
from mist_ext.system.names import shown


def notes(comparisons: Sequence[Comparison]) -> list[Note]:
    """Return a note on each incomplete experiment and each training that went wrong, on sources, and on shared work."""
    incomplete = [
        Note(f"* {called(one)}: incomplete, {'; '.join(gaps)}", warning=True)
        for one in comparisons
        if (gaps := one.experiment.gaps)
    ]
    wrong = [note for one in comparisons for note in warnings(one.experiment, called(one))]
    shared = sharing(one.experiment for one in comparisons).sentence()
    changed = [note for one in comparisons for note in changes(one.experiment, called(one))]
    return [
        *incomplete,
        *wrong,
        *changed,
        *_sources(comparisons),
        *_sampled(comparisons),
        *([Note(shared)] if shared else []),
    ]


def warnings(experiment: Experiment, name: str) -> list[Note]:
    """Return which signs there are that training went wrong, and in how many tasks: a note, or none."""
    tasks = [task.warnings for run in experiment.runs for task in run.tasks]
    counts = {words: sum(sign in signs for signs in tasks) for sign, words in warning_signs.WORDS.items()}
    found = "; ".join(f"{words} in {count} of {plural(len(tasks), 'task')}" for words, count in counts.items() if count)
    trained = experiment.tuner != "none" or experiment.method not in UNTRAINED
    advice = "; a lower learning rate may help" if trained else ""
    return [Note(f"warning: {name}: {found}{advice}", warning=True)] if found else []


def changes(experiment: Experiment, name: str, but: Collection[str] = ()) -> list[Note]:
    """Return which options, but for some, are not those of the experiment's preset: a note, or none."""
    words = changed_in_words(experiment, but)
    return [Note(f"{name}: preset {shown(experiment.config.preset)}, changed: {words}", True)] if words else []


def changed_in_words(experiment: Experiment, but: Collection[str] = ()) -> str:
    """Return the same in words alone."""
    return ", ".join(
        f"{shown(name)} {shown(values, 300)}" for name, values in experiment.changed.items() if name not in but
    )


def called(one: Comparison) -> str:
    """Return what an experiment is called in a sentence."""
    return f"{shown(one.experiment.data)}, {shown(one.label)}, {shown(one.experiment.method)}"


def _sampled(comparisons: Sequence[Comparison]) -> Iterator[Note]:
    """Say whose weight gradients were computed at the kept entries alone, which rounds otherwise than whole ones."""
    uses = about(TuningOptions)["weight_gradients"].tuners or ()
    tuned = [one for one in comparisons if one.experiment.tuner in uses]
    labels = [one.label for one in tuned if one.experiment.config.tuner.get("weight_gradients") == "sampled"]
    if labels:
        yield Note(f"weight gradients sampled at the kept entries: {', '.join(map(shown, dict.fromkeys(labels)))}")


def _sources(comparisons: Sequence[Comparison]) -> Iterator[Note]:
    """Say where the published expectations come from, one note per source."""
    found: dict[str, list[str]] = {}
    for one in comparisons:
        if expected := one.experiment.expected:
            found.setdefault(expected.source, []).append(called(one))
    for source, names in found.items():
        yield Note(f"published: {shown(source, 200)} ({'; '.join(names)})")
