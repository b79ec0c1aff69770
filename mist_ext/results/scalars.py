"""Numbers for TensorBoard, written while a run goes on."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from mist_ext.results.record import TaskRecord

# Curves of fractions that are recorded by mean and maximum, and their entries in a task's record.
_FRACTIONS = {"kept": "kept_fraction", "changed": "changed_fraction", "changed of all": "changed_fraction_all"}


def require_tensorboard() -> None:
    """Raise ValueError where the package tensorboard is missing: call it before any work."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError(
            "--tensorboard needs the package tensorboard, which is not installed; "
            'give pip install "mist_ext[tensorboard]" or pip install tensorboard, or leave the option out'
        )


class Scalars:
    """Writes scalars into a folder that ``tensorboard --logdir`` reads, also while the run goes on.

    A step that is written twice, as after resuming from a checkpoint, is shown twice with the same value.

    Parameters
    ----------
    folder : path-like
        Made if it does not exist; one for each curve, such as ``EXPERIMENT/tensorboard/seed-1993``.

    Raises
    ------
    ValueError
        If the package tensorboard is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def __enter__(self) -> Scalars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, tag: str, value: float, step: int) -> None:
        """Add one number.

        Parameters
        ----------
        tag : str
            Its curve; what stands before a slash groups curves.
        value : float
            A tensor of one element is taken too, and waits for the GPU.
        step : int
            The position on the horizontal axis: an optimiser step for a loss, else a task, counted from 1.
        """
        self._writer.add_scalar(tag, float(value), step)

    def add_task(self, record: TaskRecord, number: int) -> None:
        """Add everything that a finished task's record of `results.json` holds, and flush it to the disk.

        Parameters
        ----------
        record : TaskRecord
        number : int
            The task, counted from 1.
        """
        for tag, value in _of_task(record):
            self.add(tag, value, number)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._writer.close()


def _of_task(record: TaskRecord) -> Iterator[tuple[str, float]]:
    """Yield tags and values; what was not measured is left out."""
    yield "accuracy/seen", record.accuracy_seen
    yield "accuracy/seen top 5", record.top5_seen
    for task, accuracy in enumerate(record.accuracy_per_task, 1):
        yield f"accuracy per task/{task}", accuracy
    for group, values in (("seconds", record.seconds), ("peak memory bytes", record.peak_memory_bytes)):
        for phase, value in values.items():
            if value is not None:
                yield f"{group}/{phase}", value
    if record.selected_fraction is not None:
        yield "fraction/selected", record.selected_fraction
    for name, entry in _FRACTIONS.items():
        if (measured := getattr(record, entry)) is not None:
            yield f"fraction/{name}", measured.mean
