"""What the methods share that train parameters of their own on a task's images: prompts, adapters, a tuned copy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from mist_ext.backbones import recomputed, train_mode
from mist_ext.data.batches import Batches
from mist_ext.distributed import ranks
from mist_ext.methods.hooks import check_vit, frozen_backbone
from mist_ext.methods.method import Entry, Method
from mist_ext.methods.training import Recipe, fit
from mist_ext.seeding import draw_seed
from mist_ext.system.renamed import Renamed

_SESSIONS, _NETWORK = "sessions", "network/"
MOST_CLASSES = 100_000  # of a state that is read


class TrainedMethod(Method):
    """A method with parameters of its own, trained on every task's images before it learns from their features.

    For each task: `train`, then `learn` and `predict` as with every method, but from the method's own `features`. The
    backbone is only borrowed: outside of these calls it is as it was, bit for bit.

    Every draw is a pure function of the seed, the task, the epoch and the step, so `train` gives the same bits whenever
    it begins from the same state.

    Parameters
    ----------
    recipe : Recipe
    seed : int
    **options
        Of the class that learns from the features, where it is another one.

    Attributes
    ----------
    network : Module
        The method's own parameters.
    sessions : list of range
        The classes of every task that `train` was given; what the network consists of follows from them.
    losses : dict of list
        Of the newest task: the mean loss of each epoch's batches, by what was trained; empty where nothing was.
    stale : str
        Class attribute: why what was trained no longer fits a backbone that moves between tasks; empty if it does.
    """

    seeded = True
    trains = True
    needs_vit: ClassVar[bool] = True
    fixed_options: ClassVar[tuple[str, ...]] = ("seed",)

    _build = Renamed("build_network")
    _grow = Renamed("extend_network")
    _train = Renamed("train_network")
    _features = Renamed("compute_features")

    def __init__(self, recipe: Recipe, seed: int, **options: Any) -> None:
        super().__init__(**options)
        if seed < 0:
            raise ValueError(f"seed={seed}: expected a non-negative integer")
        self.recipe, self.seed = recipe, seed
        self.network: Any = nn.Module()  # whose attributes no type checker knows
        self.sessions: list[range] = []

    @property
    def device(self) -> torch.device:
        """The device that the backbone's parameters lie on."""
        return next(self.backbone.parameters()).device

    @property
    def feature_width(self) -> int:
        """The width of the backbone's features, ``num_features``."""
        return int(self.backbone.num_features)

    def attach(self, backbone: nn.Module) -> None:
        """Take the backbone to train beside, and draw the first parameters.

        Raises
        ------
        ValueError
            If the method cannot work with this backbone.
        """
        if self.needs_vit:
            check_vit(backbone, type(self).__name__)
        super().attach(backbone)
        self._rebuild()

    def train(self, images: Dataset, task_classes: range) -> bool:
        """Train on a task.

        Parameters
        ----------
        images : Dataset
            Of float32 images ``[3, height, width]`` and labels: positions in the class order. Those of the task, or of
            all tasks so far where the method `rehearses`.
        task_classes : range
            The task's classes; they follow those of the task before.

        Returns
        -------
        bool
            Whether `features` of earlier images may have changed.
        """
        start = self.sessions[-1].stop if self.sessions else 0
        if task_classes.start != start or not len(task_classes):
            raise ValueError(f"classes {task_classes}: expected one or more from {start} on, where the last task ended")
        self._extend(task_classes)
        self.losses = {}
        with frozen_backbone(self.backbone):
            train_mode(self.network)
            changed = self.train_network(images, task_classes)
            self.network.eval()
        return changed

    @torch.no_grad()
    def features(self, pixels: Tensor) -> Tensor:
        """Return the features that the method learns from: images ``[n, 3, height, width]`` to float32 ``[n, d]``."""
        self.network.to(self.device)  # which may have moved
        with frozen_backbone(self.backbone):
            return self.compute_features(pixels)

    def state_dict(self) -> dict[str, Entry]:
        return {**super().state_dict(), **self._own_state()}

    def load_state_dict(self, state: Mapping[str, Entry]) -> None:
        rest = {name: value for name, value in state.items() if name != _SESSIONS and not name.startswith(_NETWORK)}
        if _SESSIONS not in state:
            expected = sorted({*self.fixed_options, *self.learned, _SESSIONS})
            raise ValueError(
                f"a state of {type(self).__name__} has {expected} and its network, this is {sorted(state)}"
            )
        super().load_state_dict(rest)
        self._load_own(state)

    def check_fits(self, backbone: nn.Module, state: Mapping[str, Entry]) -> None:
        """Raise ValueError or RuntimeError unless a state's tensors are those of the network; takes no memory.

        The options say how large the network is, so those of a file must not be believed before this.
        """
        tensors: Iterable[Tensor] = (*backbone.parameters(), *backbone.buffers())
        memo = {id(t): nn.Parameter(t.to("meta")) if isinstance(t, nn.Parameter) else t.to("meta") for t in tensors}
        shapes: dict[str, Any] = dict(state)
        shapes |= {name: value.to("meta") for name, value in shapes.items() if name.startswith(_NETWORK)}
        twin = deepcopy(self)
        with torch.device("meta"):
            twin.attach(deepcopy(backbone, memo))
            twin._load_own(shapes)

    def inference_state(self) -> dict[str, Entry]:
        return {**super().inference_state(), **self._own_state()}

    def load_inference_state(self, state: Mapping[str, Entry]) -> None:
        super().load_inference_state(state)
        self._load_own(state)

    def _own_state(self) -> dict[str, Entry]:
        ends = torch.tensor([session.stop for session in self.sessions], dtype=torch.int64)
        tensors = self.network.state_dict()
        return {_SESSIONS: ends, **{_NETWORK + name: value.detach().clone() for name, value in tensors.items()}}

    def _load_own(self, state: Mapping[str, Entry]) -> None:
        ends = state[_SESSIONS]
        if not isinstance(ends, Tensor) or ends.ndim != 1 or ends.dtype != torch.int64:
            raise ValueError(f"the sessions of a state of {type(self).__name__} are not the ends of tasks")
        own = {name.removeprefix(_NETWORK): value for name, value in state.items() if name.startswith(_NETWORK)}
        self._rebuild()
        for end in ends.tolist():
            start = self.sessions[-1].stop if self.sessions else 0
            if not start < end <= MOST_CLASSES:
                raise ValueError(f"a state of {type(self).__name__} has a task that ends at class {end} after {start}")
            self._extend(range(start, end))
            if missing := sorted(self.network.state_dict().keys() - own.keys()):  # before more tasks take more memory
                raise ValueError(f"a state of {type(self).__name__} has no {missing[0]!r}, which its tasks need")
        self.network.load_state_dict(own)
        self.network.eval()

    def _rebuild(self) -> None:
        self.sessions = []
        with self.drawn("network"):
            self.network = self.build_network()
        self.network.to(self.device).eval()

    def _extend(self, classes: range) -> None:
        self.sessions.append(classes)
        with self.drawn("network", len(self.sessions)):
            self.extend_network(classes)
        self.network.to(self.device)

    @contextmanager
    def drawn(self, *purpose: int | str) -> Iterator[None]:
        """Keep torch's CPU generator seeded by the seed and a purpose while the block runs; then restore it."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(self.seed, *purpose))
            yield

    def fit(
        self,
        loss: Callable[[Any, Tensor], Tensor],
        groups: list[tuple[Iterable[nn.Parameter], float]],
        images: Dataset,
        inputs: Callable[[Batches], Iterable[tuple[Any, Tensor]]] = lambda batches: batches,
    ) -> None:
        """Minimise a loss of pixels and labels over the recipe's epochs; ``inputs`` may replace the pixels."""
        key = (self.seed, "train", len(self.sessions))

        def batches(epoch: int) -> Batches:
            return Batches(images, self.recipe.batch_size, (*key, epoch), device=self.device, split="rows")

        def slim(inputs: Any, labels: Tensor) -> Tensor:
            with recomputed(self.backbone, self.network):
                return loss(inputs, labels)

        rows = batches(0).rows.__getitem__ if ranks.size() > 1 else None  # every epoch's batches are as long
        steps, name = lambda epoch: inputs(batches(epoch)), type(self).__name__
        self.losses["learn"] = fit(
            slim, groups, self.recipe, steps, key, name, len(self.sessions), rows, self.callbacks
        )

    def frozen(self, pixels: Tensor) -> Tensor:
        """Return features of the backbone, with any hooks attached to it: float32 ``[n, num_features]``."""
        return self.backbone(pixels.to(next(self.backbone.parameters()).dtype)).float()

    @abstractmethod
    def build_network(self) -> nn.Module:
        """Return the network as it is before the first task."""

    @abstractmethod
    def extend_network(self, classes: range) -> None:
        """Give the network what belongs to a task; `sessions` has it already."""

    @abstractmethod
    def train_network(self, images: Dataset, classes: range) -> bool:
        """Train on a task; whether earlier images' features may have changed."""

    @abstractmethod
    def compute_features(self, pixels: Tensor) -> Tensor:
        """Return the method's own features of images."""
