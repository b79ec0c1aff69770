"""Which entries of which tensor are tuned: plain data, by parameter name."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mist_ext import ops
from mist_ext.distributed.shard import Shard, alike, is_sharded, local
from mist_ext.distributed.stored import taken


def selected_count(n: int, rate: float) -> int:
    """How many of ``n`` entries a rate selects: n - ceil((n - 1) (1 - rate)), at least one.

    That is what ``score >= quantile(score, 1 - rate)`` selects where no two scores are equal.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate is {rate}, expected a fraction above 0 and up to 1")
    # 1 - 0.95 is not quite 0.05: rounding first keeps a whole product whole.
    return n - math.ceil(round((n - 1) * (1 - rate), 6)) if n else 0


@dataclass(frozen=True)
class Cut:
    """Of which tensor, and of which selection of its entries, a rank has a part.

    Attributes
    ----------
    shape : tuple of int
        The whole tensor's.
    begin : int
        The place in the whole, flattened tensor of the part's entry 0.
    first : int
        How many of the selected entries lie before it.
    count : int
        How many entries of the whole tensor are selected.
    """

    shape: tuple[int, ...]
    begin: int
    first: int
    count: int


class Selection(Mapping[str, "Tensor | None"]):
    """Maps a parameter's name to the positions of its selected entries, or to None where it is selected whole.

    Of a parameter that FSDP2 has sharded it holds this rank's part: positions in the rank's rows, and a `Cut`.

    Parameters
    ----------
    index : mapping of str to Tensor or None
        int32, ``[k]``, ascending positions in the flattened parameter. The order of the names is the order of the keep
        rule's ordinals, so keep that of ``named_parameters()``.
    shape : mapping of str to tuple of int
        The parameters' shapes, by the same names; of a sharded one that of this rank's rows.
    cuts : mapping of str to Cut, optional
        Of the sharded ones.

    Attributes
    ----------
    shape : dict of str to tuple of int
    cuts : dict of str to Cut
    ordinal : dict of str to int
        Each tensor's number in the selection, which the keep rule draws by.

    Raises
    ------
    ValueError
        If an index is not ascending or points outside its parameter. It is not checked anywhere else.
    """

    def __init__(
        self,
        index: Mapping[str, Tensor | None],
        shape: Mapping[str, tuple[int, ...]],
        cuts: Mapping[str, Cut] | None = None,
    ) -> None:
        if index.keys() != shape.keys():
            odd = sorted(index.keys() ^ shape.keys())
            raise ValueError(f"index and shape must name the same parameters, but these are in one only: {odd}")
        self.shape = {name: tuple(shape[name]) for name in index}
        self.cuts = dict(cuts or {})
        self._index = {name: _checked(name, entries, self.numel(name)) for name, entries in index.items()}
        self.ordinal = {name: ordinal for ordinal, name in enumerate(self._index)}

    def __getitem__(self, name: str) -> Tensor | None:
        return self._index[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        total = sum(self.total_numel(name) for name in self)
        selected = sum(self.total_count(name) for name in self)
        return f"Selection({selected:,} of {total:,} entries in {len(self)} tensors)"

    def numel(self, name: str) -> int:
        """How many entries the parameter has, in this rank's rows of it."""
        return math.prod(self.shape[name])

    def count(self, name: str) -> int:
        """How many of them are selected."""
        index = self._index[name]
        return self.numel(name) if index is None else index.numel()

    def first(self, name: str) -> int:
        """How many selected entries of the parameter lie on earlier ranks."""
        return self.cuts[name].first if name in self.cuts else 0

    def total_numel(self, name: str) -> int:
        """How many entries the parameter has, those of all ranks together."""
        return math.prod(self.total_shape(name))

    def total_count(self, name: str) -> int:
        """How many of them are selected."""
        return self.cuts[name].count if name in self.cuts else self.count(name)

    def total_shape(self, name: str) -> tuple[int, ...]:
        """The parameter's shape, the rows of all ranks together."""
        return self.cuts[name].shape if name in self.cuts else self.shape[name]

    @property
    def by_score(self) -> list[str]:
        """The names of the tensors that are not selected whole."""
        return [name for name, index in self._index.items() if index is not None]

    @property
    def selected_fraction(self) -> float:
        """Selected over all entries of the tensors that are not selected whole; 0 where there is none."""
        total = sum(self.total_numel(name) for name in self.by_score)
        return sum(self.total_count(name) for name in self.by_score) / total if total else 0.0

    @classmethod
    def from_scores(cls, scores: Mapping[str, Tensor], rate: float, whole: str | None = None) -> Selection:
        """Select in each tensor the entries with the highest scores, ties by lowest position.

        Parameters
        ----------
        scores : mapping of str to Tensor
            float32, of the parameters' shapes (`Sensitivity.scores`). Sharded ones are brought together one tensor
            after the other, so that all ranks select what one device would, and each keeps its part.
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
        index: dict[str, Tensor | None] = dict.fromkeys(scores)
        index.update(_highest({name: scores[name] for name in sparse if not is_sharded(scores[name])}, rate))
        shape = {name: tuple(score.shape) for name, score in scores.items()}
        cuts = {}
        for name, score in scores.items():
            if is_sharded(score):
                if name in sparse:
                    index.update(_highest({name: score.full_tensor()}, rate))  # type: ignore[attr-defined]
                index[name], shape[name], cuts[name] = _cut(name, index[name], score)
        return cls(index, shape, cuts)

    @classmethod
    def random(
        cls, named_parameters: Iterable[tuple[str, Tensor]], rate: float, seed: int, whole: str | None = None
    ) -> Selection:
        """Select in each tensor as many entries as `from_scores` would, at random."""
        drawing = torch.Generator().manual_seed(seed)
        scores = {name: alike(torch.rand(p.shape, generator=drawing), p) for name, p in named_parameters}
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
        pairs = list(named_parameters)
        shape = {name: tuple(p.shape) for name, p in pairs}
        return cls(dict.fromkeys(shape), shape).local(pairs)

    def local(self, named_parameters: Iterable[tuple[str, Tensor]]) -> Selection:
        """This rank's part of a selection of whole tensors, where the parameters are sharded."""
        index, shape, cuts = dict(self), dict(self.shape), dict(self.cuts)
        for name, parameter in named_parameters:
            if name in index and is_sharded(parameter):
                index[name], shape[name], cuts[name] = _cut(name, index[name], parameter)
        return Selection(index, shape, cuts)

    def state_dict(self) -> dict[str, Any]:
        """Names in order, shapes, and the index tensors of those that are not selected whole.

        It is that of the whole tensors: the index of a sharded one is this rank's `Shard` of theirs.
        """
        return {
            "names": list(self._index),
            "shapes": [list(self.total_shape(name)) for name in self._index],
            "index": {name: self.global_index(name) for name in self.by_score},
        }

    def global_index(self, name: str) -> Tensor:
        """The selected positions in the whole tensor; those in this rank's rows, a `Shard`, where it is sharded."""
        index, cut = self._index[name], self.cuts.get(name)
        assert index is not None
        return index if cut is None else Shard(index + cut.begin, cut.first, cut.count)

    def load_state_dict(self, state: Mapping[str, Any], named_parameters: Iterable[tuple[str, Tensor]] = ()) -> None:
        """Become the selection that was saved, or this rank's part of it where the parameters given are sharded.

        Parts are what `checkpoint.load_latest` returns of them, whatever the number of ranks that saved them.
        """
        shape = {name: tuple(sizes) for name, sizes in zip(state["names"], state["shapes"], strict=True)}
        sharded = {name: p for name, p in named_parameters if is_sharded(p)}
        index: dict[str, Tensor | None] = dict.fromkeys(shape)
        cuts = {}
        for name in shape:
            if name in state["index"]:
                index[name] = taken(state["index"][name])
            if name in sharded:
                index[name], shape[name], cuts[name] = _cut(name, index[name], sharded[name])
        self.__init__(index, shape, cuts)  # type: ignore[misc]


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


def _highest(scores: dict[str, Tensor], rate: float) -> dict[str, Tensor]:
    """The positions of the highest scores of each tensor."""
    names = list(scores)
    counts = [selected_count(score.numel(), rate) for score in scores.values()]
    try:
        return dict(zip(names, ops.select([score.contiguous() for score in scores.values()], counts), strict=True))
    except RuntimeError as error:
        raise ValueError(named(error, names)) from error


def _cut(name: str, index: Tensor | None, tensor: Tensor) -> tuple[Tensor | None, tuple[int, ...], Cut]:
    """This rank's part of a whole tensor's index, the shape of the rank's rows, and where they lie."""
    part, shape = Shard.of(name, tensor), tuple(local(tensor).shape)
    whole, begin, end = tuple(tensor.shape), part.first, part.first + len(part)
    if index is None:
        return None, shape, Cut(whole, begin, begin, part.total)
    first, last = torch.searchsorted(index, torch.tensor([begin, end], dtype=index.dtype, device=index.device)).tolist()
    return index[first:last] - begin, shape, Cut(whole, begin, first, index.numel())


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
