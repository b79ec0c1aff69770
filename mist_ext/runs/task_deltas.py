"""What every task of a seed run changed in the backbone, in a file for each task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mist_ext.data.stream import Task
from mist_ext.deltas import TaskDelta
from mist_ext.distributed import agreement, ranks
from mist_ext.distributed.shard_files import gather_tensors
from mist_ext.results import delta_names
from mist_ext.runs.changed_weights import changed, with_changes
from mist_ext.runs.context import RunContext
from mist_ext.runs.seed_run import SeedRun
from mist_ext.system.files import write_atomically
from mist_ext.system.names import utf8

State = dict[str, Any]


class TaskDeltas:
    """Writes the deltas of a seed run, from the backbone as it was created on; nothing without ``--deltas``.

    All ranks make one and call its methods; rank 0 keeps the weights from before the task at hand, and writes. Where
    the backbone is not sharded, a checkpoint holds what has changed since the last file, and not the backbone.

    Attributes
    ----------
    written : dict of str
        The files of the tasks so far, and, on rank 0, the digest of the backbone after each.
    """

    def __init__(self, context: RunContext, seed_run: SeedRun, folders: Mapping[str, Path]) -> None:
        self.context, self.seed_run, self.folders = context, seed_run, list(folders.values())
        self.wanted = context.options.deltas and seed_run.tuner.moves_backbone
        self.written: dict[str, str] = {}
        self._before: dict[str, Tensor] = {}

    @classmethod
    def begin(cls, context: RunContext, seed_run: SeedRun, folders: Mapping[str, Path]) -> TaskDeltas:
        """Look at the backbone before its first task.

        Parameters
        ----------
        context : RunContext
        seed_run : SeedRun
            Just begun.
        folders : mapping of str to Path
            The experiments' folders, by the method's name; each gets all files.
        """
        deltas = cls(context, seed_run, folders)
        if deltas.wanted:
            deltas._before = deltas._weights()
        return deltas

    def in_checkpoint(self, state: State) -> State:
        """Return a seed run's state as a checkpoint holds it: with the files so far, and what changed since them."""
        if not self.wanted:
            return state
        state = state | {"deltas": dict(self.written)}
        if self._sharded or not ranks.is_first():  # of which rank 0 alone writes what is not sharded
            return state
        return state | {"backbone": changed(self._before, state["backbone"])}

    def go_on(self, state: State) -> State:
        """Go on where a checkpoint was written, from the files that it names; return the state with the backbone.

        Raises
        ------
        ValueError
            If a file is not the one that this run wrote, or the state is not one of `in_checkpoint`.
        """
        if not self.wanted:
            return state
        if self._sharded:
            self.written = agreement.on_first(lambda: self._read(state, self._before))
            return state
        weights = self._before if ranks.is_first() else gather_tensors(self.seed_run.backbone.state_dict())
        self.written = agreement.everywhere(lambda: self._read(state, weights))
        return state | {"backbone": agreement.everywhere(lambda: with_changes(weights, state["backbone"]))}

    def write(self, task: Task) -> None:
        """Write what the task at hand changed, once the backbone is tuned."""
        if not self.wanted:
            return
        after, name = self._weights(), self._name(task.number)
        self.written[name] = ""
        if ranks.is_first():
            delta = TaskDelta.between(self._before, after, info=self._info(task))
            for folder in self.folders:
                delta.save(folder / name)
            self.written[name] = delta.result_digest
        self._before = after

    @property
    def _sharded(self) -> bool:
        """Whether the backbone may be spread over ranks, of any number of them that go on."""
        return self.context.options.shard

    def _read(self, state: State, weights: dict[str, Tensor]) -> dict[str, str]:
        """Bring weights to where the task at hand began; return the files and the digests of what they lead to."""
        saved, task = state.get("deltas"), state.get("task")
        names = [self._name(number) for number in range(len(self.seed_run.stream.tasks))]
        names = [name for number, name in enumerate(names) if isinstance(task, int) and number < task]
        if not isinstance(saved, dict) or list(saved) != names:
            raise ValueError(
                f"the checkpoint names the deltas {saved}, expected {names}; start the run anew with --overwrite"
            )
        for name in names:
            file = self.folders[0] / name
            try:
                delta = TaskDelta.load(file)
                if delta.result_digest != saved[name]:
                    raise ValueError(
                        f"it is the delta of another run: it leads to the backbone {delta.result_digest}, that of this "
                        f"run to {saved[name]}"
                    )
                delta.apply_(weights)
                if name == names[-1]:
                    delta.verify(weights, applied=True)
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"the run cannot go on, since the deltas of later tasks follow from this one: {file}: {error}; "
                    "bring the file back, or start the run anew with --overwrite"
                ) from error
            if ranks.is_first():
                self._copy(file, self.folders[1:])
        return dict(saved)

    @staticmethod
    def _copy(file: Path, folders: list[Path]) -> None:
        """Bring a delta's file to folders where it is not, or not whole."""
        content = file.read_bytes()
        for other in (folder / file.name for folder in folders):
            if not (other.is_file() and other.read_bytes() == content):
                write_atomically(other, content)

    def _weights(self) -> dict[str, Tensor]:
        """Return the backbone's tensors on rank 0, with memory of their own."""
        gathered = gather_tensors(self.seed_run.backbone.state_dict())
        return {name: tensor.clone() for name, tensor in gathered.items()} if ranks.is_first() else {}

    def _name(self, number: int) -> str:
        return delta_names.FILE.format(seed=self.seed_run.seed, task=number + 1)

    def _info(self, task: Task) -> dict[str, object]:
        """Say whose delta it is; no path, since folders may move before a run goes on."""
        source, seed_run = self.context.source, self.seed_run
        return {
            "data": utf8(source.name),
            "backbone": self.context.options.backbone,
            "tuner": seed_run.tuner_name,
            "seed": seed_run.seed,
            "task": task.number + 1,
            "classes": [utf8(source.class_names[seed_run.stream.class_order[each]]) for each in task.classes],
        }
