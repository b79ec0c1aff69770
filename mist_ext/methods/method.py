"""What all freeze-based methods share: the interface, its checks, and the state of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from mist_ext.system.callbacks import NO_CALLBACKS, Callbacks
from mist_ext.system.renamed import Renamed, require_current_names

Entry = Tensor | int | float | str | tuple[int, ...]  # of a state

# Bounds the memory of a prediction: 4096 rows of RanPAC's published width (10,000) are 330 MB in float64.
PREDICT_ROWS = 4096


class Method(ABC):
    """A freeze-based method: learns one task after another from features.

    A method sees the features of the current task only, and never the images (`TrainedMethod` is for those that
    train on images too, and learn from features of their own). All of its arithmetic is in float64, on the
    device of the features: it costs little beside the backbone, and results hardly depend on the device. A
    state that lies on another device is moved to the features.

    Attributes
    ----------
    seeded : bool
        Class attribute: whether the method draws random numbers, that is, whether it takes a ``seed``.
    trains : bool
        Class attribute: whether it trains on images, beside the backbone, and learns from features of its own.
    rehearses : bool
        Class attribute: whether `train` is given the images of all tasks so far, as an upper bound may be.
    stale : str
        Class attribute: why what was trained no longer fits a backbone that moves between tasks; empty if it does.
    counts : Tensor
        int64, ``[classes]``: the number of rows learned of every class so far.
    losses : dict of list
        Of the newest task: the mean loss of each epoch's batches, by what was trained.
    callbacks : Callbacks
        Show progress and save checkpoints while `train` runs; they do nothing unless they are set.
    """

    seeded: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    rehearses: ClassVar[bool] = False
    stale: ClassVar[str] = ""
    callbacks: Callbacks = NO_CALLBACKS
    learned: ClassVar[tuple[str, ...]] = ("counts",)  # the attributes that learning changes
    needed_to_predict: ClassVar[tuple[str, ...]] = ()  # those that predictions need, all of them if empty
    fixed_options: ClassVar[tuple[str, ...]] = ()  # the options that a loaded state must agree with
    recorded_options: ClassVar[Mapping[str, Any]] = MappingProxyType({})  # defaults that results tell, given or not

    draws = Renamed("seeded")
    _learn = Renamed("update")
    _scores = Renamed("score")
    _width = Renamed("learned_width")
    _state = Renamed("learned")
    _predicting = Renamed("needed_to_predict")
    _fixed = Renamed("fixed_options")

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        require_current_names(cls)

    def __init__(self) -> None:
        self.counts = torch.zeros(0, dtype=torch.int64)
        self.losses: dict[str, list[float]] = {}
        self._backbone: Any = None

    @property
    def backbone(self) -> Any:
        """Return the backbone that the method was attached to; RuntimeError before that."""
        if self._backbone is None:
            raise RuntimeError(f"{type(self).__name__} has no backbone yet: call attach(backbone) first")
        return self._backbone

    def attach(self, backbone: nn.Module) -> None:
        """Take the backbone whose features follow; ValueError if the method cannot work with it."""
        self._backbone = backbone

    def check_fits(self, backbone: nn.Module, state: Mapping[str, Entry]) -> None:  # noqa: B027 # most have no network
        """Raise ValueError or RuntimeError unless a state has the tensors that the options say; takes no memory."""

    def train(self, images: Dataset, task_classes: range) -> bool:
        """Train on images, where the method does that; whether features of earlier images have changed."""
        return False

    @torch.no_grad()
    def features(self, pixels: Tensor) -> Tensor:
        """Turn images ``[n, 3, height, width]`` into what the method learns from: float32 ``[n, d]``."""
        backbone = self.backbone
        features: Tensor = backbone.eval()(pixels.to(next(backbone.parameters()).dtype)).float()
        return features

    @torch.no_grad()
    def learn(self, features: Tensor, labels: Tensor) -> None:
        """Learn a task.

        Parameters
        ----------
        features : Tensor
            Floating point, ``[n, d]``, with n >= 1 and the same d in every task.
        labels : Tensor
            int64, ``[n]``: positions in the stream's class order, so the first task has 0..c-1, the second
            goes on from c. Classes of earlier tasks may come again; a task may have a single class.

        Raises
        ------
        ValueError
            If an argument has another shape or dtype, or is not finite. Nothing has been learned then.
        """
        self._check(features)
        _check_labels(features, labels)
        labels = labels.to(features.device)
        classes = max(int(labels.max()) + 1, len(self.counts))
        targets = functional.one_hot(labels, classes).to(torch.float64)
        self._move(features.device)
        self.update(features.to(torch.float64), targets)
        self.counts = functional.pad(self.counts, (0, classes - len(self.counts)))
        self.counts += targets.sum(dim=0).to(torch.int64)

    @torch.no_grad()
    def predict(self, features: Tensor) -> Tensor:
        """Predict among the classes seen so far, without knowing the task.

        Parameters
        ----------
        features : Tensor
            Floating point, ``[n, d]``.

        Returns
        -------
        Tensor
            int64, ``[n]``, on the device of the features. Ties go to the class that was seen first.

        Raises
        ------
        RuntimeError
            If no task has been learned.
        ValueError
            If the features have another width or are not finite.
        """
        return torch.cat([part.argmax(dim=1) for part in self._parts(features)])

    @torch.no_grad()
    def best(self, features: Tensor, count: int) -> Tensor:
        """Name the classes of the highest scores.

        Arguments and errors as in `predict`.

        Returns
        -------
        Tensor
            int64, ``[n, k]``, the best first, ties as in `predict`; k is ``count``, or the number of classes where that
            is less. It is -1 where no further class has been seen.
        """
        parts = []
        for part in self._parts(features):
            scores, classes = (each[:, :count] for each in part.sort(dim=1, descending=True, stable=True))
            parts.append(classes.masked_fill(scores == -torch.inf, -1))
        return torch.cat(parts)

    @torch.no_grad()
    def scores(self, features: Tensor) -> Tensor:
        """Score every class seen so far: float64 ``[n, classes]``, the highest one is predicted.

        Arguments and errors as in `predict`. A class that was never seen has the score minus infinity.
        """
        return torch.cat(list(self._parts(features)))

    def _parts(self, features: Tensor) -> Iterator[Tensor]:
        if not len(self.counts):
            raise RuntimeError(f"{type(self).__name__}.predict before learn: no class is known yet")
        self._check(features)
        self._move(features.device)
        unseen = self.counts == 0
        for part in features.split(PREDICT_ROWS):
            yield self.score(part.to(torch.float64)).masked_fill(unseen, -torch.inf)

    def memory(self, rows: int, features: int, classes: int) -> int:
        """Return the bytes of working memory that a run checks for before it starts; 0 if they are few.

        Parameters
        ----------
        rows : int
            Images of the largest task.
        features : int
            Width of the features.
        classes : int
            Classes of all tasks together.
        """
        return 0

    def state_dict(self) -> dict[str, Entry]:
        """Copy everything that was learned, as a checkpoint holds it: tensors and plain values only."""
        state = {name: getattr(self, name) for name in (*self.fixed_options, *self.learned)}
        return {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Entry]) -> None:
        """Go on from a `state_dict`.

        Raises
        ------
        ValueError
            If the state is another method's, or was made with other options. Nothing has been changed then.
        """
        name, expected = type(self).__name__, {*self.fixed_options, *self.learned}
        if set(state) != expected:
            raise ValueError(f"a state of {name} has {sorted(expected)}, this one has {sorted(state)}")
        for option in self.fixed_options:
            if state[option] != getattr(self, option):
                raise ValueError(
                    f"this state of {name} has {option}={state[option]}, but the method was created with "
                    f"{option}={getattr(self, option)}: create it with {option}={state[option]}"
                )
        self._take(state, self.learned)

    def inference_state(self) -> dict[str, Entry]:
        """Copy what predictions need."""
        state = {name: getattr(self, name) for name in self.needed_to_predict or self.learned}
        return {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}

    def load_inference_state(self, state: Mapping[str, Entry]) -> None:
        """Predict as the method that gave this `inference_state`; it cannot learn on.

        Raises
        ------
        ValueError
            If an entry is missing, or is not such a tensor as the method has. Nothing has been changed then.
        """
        self._take(state, self.needed_to_predict or self.learned)

    def _take(self, state: Mapping[str, Entry], names: Sequence[str]) -> None:
        """Take some entries of a state, once all of them are found to be what they should."""
        taken: dict[str, Entry] = {}
        for name in names:
            own, value = getattr(self, name), state.get(name)
            if value is None or (own is not None and _kind(value) != _kind(own)):
                raise ValueError(f"{name!r} of a state of {type(self).__name__} is {_kind(value)}, not {_kind(own)}")
            taken[name] = value.clone() if isinstance(value, Tensor) else value
        counts = taken.get("counts", self.counts)
        if not isinstance(counts, Tensor) or counts.ndim != 1 or (counts < 0).any():
            raise ValueError(f"'counts' of a state of {type(self).__name__} are not the rows of each class")
        for name, value in taken.items():
            setattr(self, name, value)

    @abstractmethod
    def update(self, features: Tensor, targets: Tensor) -> None:
        """Learn from float64 features ``[n, d]`` and one-hot float64 targets ``[n, classes seen]``."""

    @abstractmethod
    def score(self, features: Tensor) -> Tensor:
        """Score float64 features ``[n, d]`` for every class seen: ``[n, classes]``, the highest one wins."""

    @property
    @abstractmethod
    def learned_width(self) -> int:
        """Return the width d of the features that were learned, 0 before the first task."""

    def _check(self, features: Tensor) -> None:
        if features.ndim != 2 or not features.is_floating_point():
            raise ValueError(f"features are {features.dtype} {list(features.shape)}, expected floating point [n, d]")
        if self.learned_width and features.shape[1] != self.learned_width:
            raise ValueError(f"features have width {features.shape[1]}, but {self.learned_width} was learned")
        if not torch.isfinite(features).all():
            rows = torch.nonzero(~torch.isfinite(features).all(dim=1)).flatten().tolist()
            raise ValueError(
                f"{len(rows)} of {len(features)} feature rows, the first is row {rows[0]}, are not finite: "
                "the backbone has diverged; lower its learning rate"
            )

    def _move(self, device: torch.device) -> None:
        for name in self.learned:
            value = getattr(self, name)
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))


def _kind(value: object) -> str:
    return f"a tensor of {value.dtype}" if isinstance(value, Tensor) else f"of type {type(value).__name__}"


def _check_labels(features: Tensor, labels: Tensor) -> None:
    if labels.dtype != torch.int64 or labels.shape != features.shape[:1]:
        raise ValueError(
            f"labels are {labels.dtype} of shape {list(labels.shape)}, expected torch.int64 [{len(features)}]"
        )
    if not len(labels):
        raise ValueError("a task without rows cannot be learned: features and labels are empty")
    if labels.min() < 0:
        raise ValueError(f"label {int(labels.min())}: labels are positions in the class order, from 0 on")
