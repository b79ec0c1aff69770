"""Which entries of which tensor are tuned: plain data, by parameter name."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from mist_ext.distributed.selection_shard import SelectionShard, local_selection
from mist_ext.distributed.shard import Shard, is_sharded, shard_like
from mist_ext.distributed.shard_files import entries_of
from mist_ext.indices import check_ordinals, check_state, checked_index, same_index, select
from mist_ext.parameters import named_pairs, pattern

Pairs = Iterable[tuple[str, Tensor]]


class Selection(Mapping[str, "Tensor | None"]):
    """Maps a parameter's name to the positions of its selected entries, or to None where it is fully selected.

    Of a parameter that FSDP2 has sharded it holds this rank's part: positions in the rank's rows, and a
    `SelectionShard` that says where they lie in the whole.

    Parameters
    ----------
    index : mapping of str to Tensor or None
        int32, ``[k]``, ascending positions in the flattened parameter.
    shape : mapping of str to tuple of int
        The parameters' shapes, by the same names; of a sharded parameter the shape of this rank's rows.
    shards : mapping of str to SelectionShard, optional
        For the sharded parameters.
    ordinal : mapping of str to int, optional
        Each tensor's number, which the keep rule draws by; by default its position among the names, so keep
        their order, that of ``named_parameters()``. The tensors of a `subset` keep theirs.

    Attributes
    ----------
    shape, shards, ordinal : dict
        As given.
    total_numels : dict of str to int
        The number of each parameter's entries, those of all ranks together.

    Raises
    ------
    ValueError
        If an index is not ascending or points outside its parameter, or if two tensors have one ordinal.
    """

    def __init__(
        self,
        index: Mapping[str, Tensor | None],
        shape: Mapping[str, tuple[int, ...]],
        shards: Mapping[str, SelectionShard] | None = None,
        ordinal: Mapping[str, int] | None = None,
    ) -> None:
        self.ordinal = {name: number for number, name in enumerate(index)} if ordinal is None else dict(ordinal)
        for kind, names in {"shape": shape.keys(), "ordinal": self.ordinal.keys()}.items():
            if index.keys() != names:
                odd = sorted(index.keys() ^ names)
                raise ValueError(f"index and {kind} must name the same parameters, but these are in one only: {odd}")
        check_ordinals(self.ordinal)
        self.shape = {name: tuple(shape[name]) for name in index}
        self.shards = dict(shards or {})
        self.total_numels = {name: math.prod(self.total_shape(name)) for name in self.shape}
        self._index = {name: checked_index(name, entries, self.numel(name)) for name, entries in index.items()}

    def __getitem__(self, name: str) -> Tensor | None:
        return self._index[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __eq__(self, other: object) -> bool:
        """Return whether the same entries are selected, under the same ordinals."""
        if not isinstance(other, Selection):
            return NotImplemented
        ours, theirs = ((list(s), s.shape, s.shards, s.ordinal) for s in (self, other))
        return ours == theirs and all(same_index(index, other[name]) for name, index in self.items())

    def __repr__(self) -> str:
        total = sum(self.total_numels.values())
        selected = sum(self.total_count(name) for name in self)
        return f"Selection({selected:,} of {total:,} entries in {len(self)} tensors)"

    def numel(self, name: str) -> int:
        """Return the number of the parameter's entries, in this rank's rows of it."""
        return math.prod(self.shape[name])

    def count(self, name: str) -> int:
        """Return the number of selected entries, in this rank's rows."""
        index = self._index[name]
        return self.numel(name) if index is None else index.numel()

    def first(self, name: str) -> int:
        """Return the number of the parameter's selected entries on earlier ranks."""
        return self.shards[name].first if name in self.shards else 0

    def total_count(self, name: str) -> int:
        """Return the number of selected entries, those of all ranks together."""
        return self.shards[name].count if name in self.shards else self.count(name)

    def total_shape(self, name: str) -> tuple[int, ...]:
        """Return the parameter's shape, the rows of all ranks together."""
        return self.shards[name].shape if name in self.shards else self.shape[name]

    @property
    def by_score(self) -> list[str]:
        """The names of the tensors that are not fully selected."""
        return [name for name, index in self._index.items() if index is not None]

    @property
    def selected_fraction(self) -> float:
        """The selected fraction of the entries of all tensors that are not fully selected; 0 where there is none."""
        total = sum(self.total_numels[name] for name in self.by_score)
        return sum(self.total_count(name) for name in self.by_score) / total if total else 0.0

    @classmethod
    def from_scores(
        cls, scores: Mapping[str, Tensor], rate: float, whole: str | None = None, vectors: bool = True
    ) -> Selection:
        """Select in each tensor the entries with the highest scores, ties by lowest position.

        Parameters
        ----------
        scores : mapping of str to Tensor
            float32, of the parameters' shapes (`Sensitivity.scores`). Sharded ones are gathered one tensor after the
            other, so that all ranks select what one device would, and each keeps its part. An entry of score minus
            infinity is never selected.
        rate : float
            The fraction selected, as `selected_count` turns it into a number.
        whole : str, optional
            A regular expression; tensors whose name it matches anywhere are fully selected. An empty one matches no
            name.
        vectors : bool
            Whether tensors with at most one dimension are fully selected, whatever their name.

        Raises
        ------
        TypeError
            If the scores are no mapping.
        ValueError
            If a score is NaN, in which case the message names the parameter, or if all of them are 0.

        Warns
        -----
        UserWarning
            If all scores of a tensor are 0.
        """
        if not isinstance(scores, Mapping):
            raise TypeError(f"scores is a {type(scores).__name__}, expected a mapping as sensitivity.scores() returns")
        expression = pattern("whole", whole) if whole else None
        return cls(*select(scores, rate, expression, vectors))

    @classmethod
    def random(
        cls, named_parameters: Pairs, rate: float, seed: int, whole: str | None = None, vectors: bool = True
    ) -> Selection:
        """Select in each tensor as many entries as `from_scores` would, at random.

        ``seed`` alone decides which; the other arguments and errors are those of `from_scores`.
        """
        generator = torch.Generator().manual_seed(seed)
        pairs = named_pairs(named_parameters)
        scores = {name: shard_like(torch.rand(p.shape, generator=generator), p) for name, p in pairs}
        return cls.from_scores(scores, rate, whole, vectors)

    @classmethod
    def magnitude(
        cls, named_parameters: Pairs, rate: float, whole: str | None = None, vectors: bool = True
    ) -> Selection:
        """Select in each tensor the entries with the largest absolute value; otherwise as `from_scores`."""
        scores = {name: p.detach().abs().float() for name, p in named_pairs(named_parameters)}
        return cls.from_scores(scores, rate, whole, vectors)

    @classmethod
    def whole(cls, named_parameters: Pairs) -> Selection:
        """Select every entry of every tensor."""
        pairs = named_pairs(named_parameters)
        shape = {name: tuple(p.shape) for name, p in pairs}
        return cls(dict.fromkeys(shape), shape).local(pairs)

    def local(self, named_parameters: Pairs) -> Selection:
        """Return this rank's part of a selection of whole tensors, where the parameters are sharded."""
        index, shape, shards = dict(self), dict(self.shape), dict(self.shards)
        for name, parameter in named_parameters:
            if name in index and is_sharded(parameter):
                index[name], shape[name], shards[name] = local_selection(name, index[name], parameter)
        return Selection(index, shape, shards, self.ordinal)

    def subset(self, names: str) -> Selection:
        """Return the part of the selection whose names match a regular expression anywhere.

        The tensors keep their ordinals: an optimiser of a subset draws for them what one of the whole selection would,
        so the parts of a selection can be shared out among several optimisers.

        Raises
        ------
        ValueError
            If the expression is invalid, or matches no name.
        """
        expression = pattern("names", names)
        chosen = [name for name in self if expression.search(name)]
        if not chosen:
            raise ValueError(f"names is {names!r}, which matches none of the {len(self)} tensors: {', '.join(self)}")
        return Selection(
            {name: self[name] for name in chosen},
            {name: self.shape[name] for name in chosen},
            {name: self.shards[name] for name in chosen if name in self.shards},
            {name: self.ordinal[name] for name in chosen},
        )

    def union(self, other: Selection) -> Selection:
        """Return the selection of what either selects, also written ``self | other``.

        Tensors keep their ordinals, by which they are ordered; one of ``other`` whose ordinal is taken gets the next
        free one. So the union of the subsets of a selection is that selection.

        Raises
        ------
        ValueError
            If a tensor is in both with different shapes, or is sharded.
        TypeError
            If ``other`` is something else.
        """
        if not isinstance(other, Selection):
            raise TypeError(f"a selection is united with a Selection, not a {type(other).__name__}")
        index, shape, ordinal = dict(self), {**other.shape, **self.shape}, dict(self.ordinal)
        free = itertools.count(1 + max([*self.ordinal.values(), *other.ordinal.values()], default=0))
        for name, theirs in other.items():
            if name not in self:
                index[name] = theirs
                ordinal[name] = next(free) if other.ordinal[name] in ordinal.values() else other.ordinal[name]
                continue
            if other.total_shape(name) != self.total_shape(name):
                shapes = f"{list(self.total_shape(name))} and {list(other.total_shape(name))}"
                raise ValueError(f"{name!r} was selected as {shapes}, so there is no union")
            if name in self.shards or name in other.shards:
                raise ValueError(f"both select entries of {name!r}, which is sharded; unite selections before `local`")
            ours = self[name]
            index[name] = None if ours is None or theirs is None else torch.cat([ours, theirs.to(ours.device)]).unique()
        ordered = sorted(index, key=ordinal.__getitem__)
        return Selection({name: index[name] for name in ordered}, shape, {**other.shards, **self.shards}, ordinal)

    __or__ = union

    def followed_by(self, other: Selection) -> Selection:
        """Return this selection and after it another, of other tensors, with new ordinals.

        The selections of consecutive parts of a model's parameters become the selection that was made of all at once.

        Raises
        ------
        ValueError
            If a tensor is in both.
        """
        if both := sorted(self.keys() & other.keys()):
            raise ValueError(f"{both[0]!r} is in both selections; `union` unites them")
        return Selection({**self, **other}, {**self.shape, **other.shape}, {**self.shards, **other.shards})

    def state_dict(self) -> dict[str, Any]:
        """Return names, shapes, ordinals and the indices of what is not fully selected, sharded ones as `Shard`."""
        return {
            "names": list(self._index),
            "shapes": [list(self.total_shape(name)) for name in self._index],
            "ordinals": [self.ordinal[name] for name in self._index],
            "index": {name: self.global_index(name) for name in self.by_score},
        }

    def global_index(self, name: str) -> Tensor:
        """Return the selected positions in the whole tensor; of a sharded one those in this rank's rows, a `Shard`."""
        index, shard = self._index[name], self.shards.get(name)
        assert index is not None
        return index if shard is None else Shard(index + shard.begin, shard.first, shard.count)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], named_parameters: Pairs = ()) -> Selection:
        """Return the selection that `state_dict` returned, or this rank's part of it where the parameters are sharded.

        Indices of sharded parameters are as `checkpoint.load_latest` returns them, saved by any number of ranks.

        Raises
        ------
        ValueError
            If this is not the state of a selection, or one of other shapes than the parameters given.
        """
        check_state(state)
        parameters = dict(named_parameters)
        shape = dict(zip(state["names"], map(tuple, state["shapes"]), strict=True))
        ordinal = dict(zip(state["names"], state["ordinals"], strict=True))
        if unknown := sorted(state["index"].keys() - shape.keys()):
            raise ValueError(f"the state has an index of {unknown[0]!r}, which is not among its names")
        whole = {name: entries_of(state["index"][name]) if name in state["index"] else None for name in shape}
        selection = cls(whole, shape, ordinal=ordinal)
        for name in shape.keys() & parameters.keys():
            if tuple(parameters[name].shape) != shape[name]:
                raise ValueError(
                    f"{name!r} has shape {list(parameters[name].shape)}, but was selected as {list(shape[name])}"
                )
        return selection.local(parameters.items())

    def load_state_dict(self, state: Mapping[str, Any], named_parameters: Pairs = ()) -> None:
        """Replace this selection by what `from_state_dict` returns."""
        self.__dict__ = self.from_state_dict(state, named_parameters).__dict__
