"""One seed of one tuner, and its state."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mist_ext.data.stream import Stream
from mist_ext.distributed.shard_files import fill_
from mist_ext.methods.method import Method
from mist_ext.runs.backbone_change import BackboneChange
from mist_ext.tuners.tuner import Tuned, Tuner

SHARED = ""  # in place of a method's name: the backbone's own features, for all methods that train nothing


@dataclass
class SeedRun:
    """One seed of one tuner: the backbone that it tunes, and the methods that learn from its features.

    Attributes
    ----------
    task : int
        The number of the task at hand.
    tuned : Tuned or None
        What tuning on the task at hand took, once that is done.
    features : dict of list
        Of the test images of earlier tasks, by the method whose own they are or ``SHARED``; what has changed since is
        not kept.
    change : BackboneChange
        What the diagnosis keeps from task to task.
    """

    seed: int
    tuner_name: str
    stream: Stream
    backbone: nn.Module
    tuner: Tuner
    learners: dict[str, Method]
    task: int = 0
    tuned: Tuned | None = None
    features: dict[str, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)
    change: BackboneChange = field(default_factory=BackboneChange)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the seed run depends on, torch's random states included."""
        return {
            "task": self.task,
            "tuned": None if self.tuned is None else dataclasses.asdict(self.tuned),
            "backbone": dict(self.backbone.state_dict()),
            "tuner": self.tuner.state_dict(),
            "change": self.change.state_dict(),
            "learners": {name: learner.state_dict() for name, learner in self.learners.items()},
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`.

        Raises
        ------
        ValueError
            If it is not that of such a seed run; the message says how it differs. The seed run is of no use then.
        """
        try:
            self._load(state)
        except (ValueError, TypeError, LookupError, AttributeError, RuntimeError, AssertionError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(
                f"the checkpoint does not fit seed {self.seed} of tuner {self.tuner_name!r} ({reason}); start the run "
                "anew with --overwrite"
            ) from error

    def _load(self, state: dict[str, Any]) -> None:
        tasks = len(self.stream.tasks)
        if state["task"] not in range(tasks + 1):
            raise ValueError(f"task is {state['task']!r}, expected 0 to {tasks}")
        self.task = state["task"]
        self.tuned = None if state["tuned"] is None else Tuned.restored(state["tuned"])
        fill_(self.backbone.state_dict(), state["backbone"])
        self.tuner.load_state_dict(state["tuner"])
        self.change.load_state_dict(state["change"])
        for name, learner in self.learners.items():
            learner.load_state_dict(state["learners"][name])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["random_cuda"][: torch.cuda.device_count()])
