"""One seed of one tuner, and its state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from mist_ext import backbones, tuners
from mist_ext.data.stream import Stream, Task
from mist_ext.distributed import ranks
from mist_ext.distributed.fsdp import shard
from mist_ext.distributed.shard_files import fill_
from mist_ext.methods.method import Method
from mist_ext.runs.backbone_change import BackboneChange
from mist_ext.runs.context import RunContext, new_learner
from mist_ext.runs.features import Labelled
from mist_ext.seeding import draw_seed
from mist_ext.system.names import say
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
    features: dict[str, list[Labelled]] = field(default_factory=dict)
    change: BackboneChange = field(default_factory=BackboneChange)

    @classmethod
    def begin(cls, context: RunContext, seed: int, tuner_name: str) -> SeedRun:
        """Make backbone, tuner and methods, and say which methods go stale."""
        options = context.options
        order_seed = seed if options.class_order_seed is None else options.class_order_seed
        torch.manual_seed(draw_seed(seed, "model"))
        backbone = backbones.create(options.backbone, options.weights)
        if options.shard and ranks.size() > 1:
            shard(backbone, backbones.blocks(backbone), context.device)
        else:
            backbone.to(context.device)
        tuner = tuners.create(tuner_name, backbone, options, seed)
        learners = {name: new_learner(options, name, seed, backbone) for name in options.method}
        for name, learner in learners.items():
            if tuner.moves_backbone and learner.stale:
                stale = f"tuner {tuner_name} moves the backbone between tasks, and {name} goes stale: {learner.stale}"
                say(context.console, stale)
        return cls(seed, tuner_name, context.streams(order_seed), backbone, tuner, learners)

    @property
    def seen(self) -> list[Task]:
        """The tasks so far, that at hand included."""
        return self.stream.tasks[: self.task + 1]

    def failed_phase(self) -> str | None:
        """Return the phase of tuning that an error ended."""
        tuned = getattr(self.tuner, "tuned", None)
        return None if tuned is None else tuned.costs.broken

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the seed run depends on, torch's random states included."""
        return {
            "task": self.task,
            "tuned": None if self.tuned is None else self.tuned.state_dict(),
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
