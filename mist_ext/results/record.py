"""What an experiment's `results.json` holds: one typed record, which runs write and reports read.

Every number is bounded: no sum or square that is made of them overflows.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from mist_ext.results import metrics
from mist_ext.results.metrics import Spread
from mist_ext.results.warning_signs import Sign
from mist_ext.system.names import quoted

SCHEMA = 1

Percent = Annotated[float, Meta(ge=0, le=100)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Cost = Annotated[float, Meta(ge=0, le=1e100)]  # seconds or bytes
Measured = Annotated[float, Meta(ge=-1e100, le=1e100)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Plain = bool | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | float | str | None
Option = Plain | list[Plain | list[Plain]]


class MeanMax(Struct, forbid_unknown_fields=True):
    """A fraction over the sampled steps of a task."""

    mean: Fraction
    max: Fraction


class TensorRecord(Struct, forbid_unknown_fields=True):
    """What a task selected in one tensor.

    Attributes
    ----------
    name : str
    entries, selected : int
    score_share : float or None
        Its share of the sum of all scores; None where nothing was scored, as the next.
    score_selected : float or None
        The share of its own score that the selected entries hold.
    """

    name: str
    entries: Count
    selected: Count
    score_share: Fraction | None = None
    score_selected: Measured | None = None

    def __post_init__(self) -> None:
        if self.selected > self.entries:
            raise ValueError(f"{self.selected} of {self.entries} entries are selected")


class BackboneRecord(Struct, forbid_unknown_fields=True):
    """What tuning did to the backbone (`mist_ext.runs.backbone_change`); None for what a task has not."""

    drift: Measured | None = None
    letters: Percent | None = None
    plasticity: Percent | None = None


class TaskRecord(Struct, forbid_unknown_fields=True):
    """A finished task.

    Attributes
    ----------
    classes : list of int
        Their numbers in the data set.
    accuracy_seen : float
        On the classes seen so far, percent.
    top5_seen : float
        The same, where an image counts if its class is among the five of the highest scores.
    accuracy_per_task : list of float
        On each task so far, percent.
    accuracy_per_class : list of float or None
        On each class so far, percent; None for a class without a test image.
    seconds : dict of str to float
        By phase; None for a phase that there was not.
    peak_memory_bytes : dict of str to float
        By phase; None for a phase that there was not.
    selected_fraction, kept_fraction, changed_fraction, changed_fraction_all : float or MeanMax
        In 0..1; None where it was not measured.
    selection : list of TensorRecord
        Of each tensor of the backbone; empty for a tuner that selects nothing.
    losses : dict of list of float
        The mean loss of every epoch, by phase.
    warnings : list of str
        Signs of training that went wrong without ending.
    backbone : BackboneRecord
        Absent where no diagnosis was asked for.
    """

    classes: Annotated[list[int], Meta(min_length=1)]
    accuracy_seen: Percent
    top5_seen: Percent
    accuracy_per_task: list[Percent]
    accuracy_per_class: list[Percent | None]
    seconds: dict[str, Cost | None]
    peak_memory_bytes: dict[str, Cost | None]
    selected_fraction: Fraction | None
    kept_fraction: MeanMax | None
    changed_fraction: MeanMax | None
    changed_fraction_all: MeanMax | None
    selection: list[TensorRecord]
    losses: dict[str, list[Measured]]
    warnings: list[Sign]
    backbone: BackboneRecord | UnsetType = UNSET


class RunRecord(Struct, forbid_unknown_fields=True):
    """One seed: its finished tasks, and their metrics once there is one."""

    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
    tasks: list[TaskRecord]
    average_accuracy: Percent | None = None
    last_accuracy: Percent | None = None
    learning_accuracy: Percent | None = None
    forgetting: Measured | None = None
    accuracy_matrix: list[list[Percent]] | None = None

    def __post_init__(self) -> None:
        classes = 0
        for number, task in enumerate(self.tasks, 1):
            classes += len(task.classes)
            for name, expected in (("accuracy_per_task", number), ("accuracy_per_class", classes)):
                values = getattr(task, name)
                if len(values) != expected:
                    raise ValueError(f"tasks[{number - 1}].{name} has {len(values)} numbers, expected {expected}")
        found: dict[str, Any] = {**self.metrics, "accuracy_matrix": self.matrix} if self.tasks else {}
        for name in (*metrics.METRICS, "accuracy_matrix"):
            _require_same(name, getattr(self, name), found.get(name))

    @property
    def classes(self) -> tuple[tuple[int, ...], ...]:
        """The classes of each task."""
        return tuple(tuple(task.classes) for task in self.tasks)

    @property
    def seen(self) -> list[float]:
        """The accuracy on the classes seen after each task, percent."""
        return [task.accuracy_seen for task in self.tasks]

    @property
    def matrix(self) -> list[list[float]]:
        """The accuracy matrix, percent."""
        return [task.accuracy_per_task for task in self.tasks]

    @property
    def metrics(self) -> dict[str, float]:
        """Each of `mist_ext.results.metrics.METRICS`; there must be a finished task."""
        return {
            "average_accuracy": metrics.average_accuracy(self.seen),
            "last_accuracy": metrics.last_accuracy(self.seen),
            "learning_accuracy": metrics.learning_accuracy(self.matrix),
            "forgetting": metrics.forgetting(self.matrix),
        }


class Expected(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What was published for an experiment's protocol, in percent; what was not is absent.

    Attributes
    ----------
    average_accuracy, last_accuracy, learning_accuracy : float or None
    accuracy_seen : list of float or None
        On the classes seen so far, after each task.
    source : str
        Where it was published.
    """

    average_accuracy: Percent | None = None
    last_accuracy: Percent | None = None
    learning_accuracy: Percent | None = None
    accuracy_seen: list[Percent] | None = None
    source: str


class DataRecord(Struct, forbid_unknown_fields=True):
    """The data set and its stream of tasks; classes are numbered as their names are listed.

    Attributes
    ----------
    split : str
        Which published split the images are, in words; empty where they are none.
    images_per_class : int or None
        Of how many training images the methods learnt at most; None: of all.
    augmentation : str
        ``none`` where training images looked as test images do.
    """

    name: str
    layout: str
    split: str
    tasks: Count
    classes_per_task: Count
    class_names: list[str]
    evaluated_on: str
    normalize: str
    images_per_class: int | None = None
    augmentation: str = "auto"


class Described(Struct, kw_only=True, forbid_unknown_fields=True):
    """An experiment's configuration: backbone, tuner and method each have a ``name`` and their options.

    Attributes
    ----------
    changed : dict of str to str
        Which options that its figures depend on are not the preset's, each with both values in words; absent if none.
    """

    data: DataRecord
    backbone: dict[str, Option]
    tuner: dict[str, Option]
    method: dict[str, Option]
    seeds: list[int]
    class_order_seed: int | None
    deterministic: bool
    preset: str | None
    changed: dict[str, str] | UnsetType = UNSET
    expected: Expected | UnsetType = UNSET

    def __post_init__(self) -> None:
        for part in ("backbone", "tuner", "method"):
            if not isinstance(name := getattr(self, part).get("name"), str):
                raise ValueError(f"{part}.name is {name!r}, expected str")


class ExperimentRecord(Struct, forbid_unknown_fields=True):
    """The whole file.

    Attributes
    ----------
    schema : int
        `SCHEMA`.
    config : Described
    runs : list of RunRecord
        One for each seed that was begun.
    environment : dict
        Versions and device.
    summary : dict
        Mean and standard deviation of each metric over seeds; absent until all are finished.
    """

    schema: int
    config: Described
    runs: list[RunRecord]
    environment: dict[str, Plain]
    summary: dict[str, dict[str, Measured]] | UnsetType = UNSET

    def __post_init__(self) -> None:
        seeds = [run.seed for run in self.runs]
        if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
            raise ValueError(f"there are {seeds.count(twice[0])} runs of seed {twice[0]}, expected one")

    @property
    def spreads(self) -> dict[str, Spread]:
        """Each metric over the seeds, each of which must have a finished task."""
        found = [run.metrics for run in self.runs]
        return {name: metrics.mean_std([each[name] for each in found]) for name in metrics.METRICS}

    def check_summary(self) -> None:
        """Raise ValueError for a summary that is not what the runs give."""
        if not self.summary:
            return
        spreads = self.spreads if self.runs and all(run.tasks for run in self.runs) else {}
        for name, stored in self.summary.items():
            for part, value in stored.items():
                _require_same(f"summary.{name}.{part}", value, getattr(spreads.get(name), part, None))


def _require_same(name: str, stored: Any, found: Any) -> None:
    """Raise ValueError where a number that is stored beside those that it is made of contradicts them."""
    if stored is None or stored == found:
        return
    # Numbers of another machine may differ in their last digits.
    if not isinstance(stored, float) or found is None or not math.isclose(stored, found, abs_tol=1e-6):
        raise ValueError(f"{name} is {quoted(stored)}, but the tasks give {quoted(found)}")
