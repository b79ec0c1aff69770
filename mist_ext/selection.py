"""Which entries of which tensor are tuned: plain data, by parameter name."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from mist_ext import ops


def selected_count(n: int, rate: float) -> int:
    """How many of ``n`` entries a rate selects: n - ceil((n - 1) (1 - rate)), at least one.

    That is what ``score >= quantile(score, 1 - rate)`` selects where no two scores are equal.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate is {rate}, expected a fraction above 0 and up to 1")
    # 1 - 0.95 is not quite 0.05: rounding first keeps a whole product whole.
    return n - math.ceil(round((n - 1) * (1 - rate), 6)) if n else 0


class Selection(Mapping[str, "Tensor | None"]):
    """Maps a parameter's name to the positions of its selected entries, or to None where it is selected whole.

    Parameters
    ----------
    index : mapping of str to Tensor or None
        int32, ``[k]``, ascending positions in the flattened parameter. The order of the names is the order of the keep
        rule's ordinals, so keep that of ``named_parameters()``.
    shape : mapping of str to tuple of int
        The parameters' shapes, by the same names.

    Attributes
    ----------
    shape : dict of str to tuple of int
    ordinal : dict of str to int
        Each tensor's number in the selection, which the keep rule draws by.

    Raises
    ------
    ValueError
        If an index is not ascending or points outside its parameter. It is not checked anywhere else.
    """

    def __init__(self, index: Mapping[str, Tensor | None], shape: Mapping[str, tuple[int, ...]]) -> None:
        if index.keys() != shape.keys():
            odd = sorted(index.keys() ^ shape.keys())
            raise ValueError(f"index and shape must name the same parameters, but these are in one only: {odd}")
        self.shape = {name: tuple(shape[name]) for name in index}
        self._index = {name: _checked(name, entries, self.numel(name)) for name, entries in index.items()}
        self.ordinal = {name: ordinal for ordinal, name in enumerate(self._index)}

    def __getitem__(self, name: str) -> Tensor | None:
        return self._index[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        total = sum(self.numel(name) for name in self)
        selected = sum(self.count(name) for name in self)
        return f"Selection({selected:,} of {total:,} entries in {len(self)} tensors)"

    def numel(self, name: str) -> int:
        """How many entries the parameter has."""
        return math.prod(self.shape[name])

    def count(self, name: str) -> int:
        """How many of them are selected."""
        index = self._index[name]
        return self.numel(name) if index is None else index.numel()

    @property
    def by_score(self) -> list[str]:
        """The names of the tensors that are not selected whole."""
        return [name for name, index in self._index.items() if index is not None]

    @property
    def selected_fraction(self) -> float:
        """Selected over all entries of the tensors that are not selected whole; 0 where there is none."""
        total = sum(self.numel(name) for name in self.by_score)
        return sum(self.count(name) for name in self.by_score) / total if total else 0.0

    @classmethod
    def from_scores(cls, scores: Mapping[str, Tensor], rate: float, whole: str | None = None) -> Selection:
        """Select in each tensor the entries with the highest scores, ties by lowest position.

        Parameters
        ----------
        scores : mapping of str to Tensor
            float32, of the parameters' shapes (`Sensitivity.scores`).
        rate : float
            The fraction selected, as `selected_count` turns it into a number.
        whole : str, optional
            A regular expression; tensors with at most one dimension and those whose name it matches anywhere are
            selected whole.

        Raises
        ------
        ValueError
            If a score is NaN; the message names the parameter.
        """
        sparse = [name for name, score in scores.items() if not is_whole(name, score, whole)]
        try:
            chosen = ops.select([scores[name].contiguous() for name in sparse], [
                selected_count(scores[name].numel(), rate) for name in sparse
            ])  # fmt: skip
        except RuntimeError as error:
            raise ValueError(named(error, sparse)) from error
        index: dict[str, Tensor | None] = dict.fromkeys(scores)
        index.update(zip(sparse, chosen, strict=True))
        return cls(index, {name: tuple(score.shape) for name, score in scores.items()})

    @classmethod
    def random(
        cls, named_parameters: Iterable[tuple[str, Tensor]], rate: float, seed: int, whole: str | None = None
    ) -> Selection:
        """Select in each tensor as many entries as `from_scores` would, at random."""
        drawing = torch.Generator().manual_seed(seed)
        scores = {name: torch.rand(p.shape, generator=drawing) for name, p in named_parameters}
        return cls.from_scores(scores, rate, whole)

    @classmethod
    def magnitude(
        cls, named_parameters: Iterable[tuple[str, Tensor]], rate: float, whole: str | None = None
    ) -> Selection:
        """Select in each tensor the entries with the largest absolute value."""
        return cls.from_scores({name: p.detach().abs().float() for name, p in named_parameters}, rate, whole)

    @classmethod
    def whole(cls, named_parameters: Iterable[tuple[str, Tensor]]) -> Selection:
        """Select every entry of every tensor."""
        shape = {name: tuple(p.shape) for name, p in named_parameters}
        return cls(dict.fromkeys(shape), shape)

    def state_dict(self) -> dict[str, Any]:
        """Names in order, shapes, and the index tensors of those that are not selected whole."""
        return {
            "names": list(self._index),
            "shapes": [list(self.shape[name]) for name in self._index],
            "index": {name: index for name, index in self._index.items() if index is not None},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become the selection that was saved."""
        shape = {name: tuple(sizes) for name, sizes in zip(state["names"], state["shapes"], strict=True)}
        self.__init__({name: state["index"].get(name) for name in shape}, shape)  # type: ignore[misc]


def named(error: Exception, names: list[str]) -> str:
    """An op's message, with the parameters' names behind positions such as ``grad[3]``."""

    def name(match: re.Match[str]) -> str:
        position = int(match[2])
        return f"{match[0]} ({names[position]!r})" if position < len(names) else match[0]

    return re.sub(
        r"\b(score|k|param|grad|index|momentum_buffer|exp_avg|exp_avg_sq|updates|master|scale_code|frozen|first|ordinal)\[(\d+)\]",
        name,
        str(error),
    )


def is_whole(name: str, tensor: Tensor, pattern: str | None) -> bool:
    """Whether `Selection.from_scores` selects a tensor whole."""
    return tensor.ndim <= 1 or (pattern is not None and re.search(pattern, name) is not None)


def _checked(name: str, index: Tensor | None, numel: int) -> Tensor | None:
    if index is None:
        return None
    if index.ndim != 1 or index.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"the index of {name!r} is {index.dtype} {list(index.shape)}, expected int32 with one dimension"
        )
    if index.numel():
        low, high = index[0].item(), index[-1].item()
        if not (index[1:] > index[:-1]).all():
            raise ValueError(f"the index of {name!r} is not strictly ascending; sort it and drop repeated positions")
        if low < 0 or high >= numel:
            outside = low if low < 0 else high
            raise ValueError(f"the index of {name!r} holds {outside}, expected positions from 0 to {numel - 1}")
    return index.to(torch.int32)
