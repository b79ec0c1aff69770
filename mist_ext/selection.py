"""Which entries of which tensor are tuned: plain data, by parameter name."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from mist_ext.distributed.cut import Cut, cut
from mist_ext.distributed.shard import Shard, alike, is_sharded
from mist_ext.distributed.stored import taken
from mist_ext.indices import check_form, check_ordinals, checked_index, highest, is_whole, same_index, tell_of_dead
from mist_ext.parameters import named_pairs, pattern

Pairs = Iterable[tuple[str, Tensor]]


class Selection(Mapping[str, "Tensor | None"]):
    """Maps a parameter's name to the positions of its selected entries, or to None where it is selected whole.

    Of a parameter that FSDP2 has sharded it holds this rank's part: positions in the rank's rows, and a `Cut`.

    Parameters
    ----------
    index : mapping of str to Tensor or None
        int32, ``[k]``, ascending positions in the flattened parameter.
    shape : mapping of str to tuple of int
        The parameters' shapes, by the same names; of a sharded one that of this rank's rows.
    cuts : mapping of str to Cut, optional
        Of the sharded ones.
    ordinal : mapping of str to int, optional
        Each tensor's number, which the keep rule draws by; by default its place among the names, so keep their order,
        that of ``named_parameters()``. What is made of a part of a selection (`subset`) keeps them.

    Attributes
    ----------
    shape : dict of str to tuple of int
    cuts : dict of str to Cut
    ordinal : dict of str to int

    Raises
    ------
    ValueError
        If an index is not ascending or points outside its parameter, or if two tensors have one ordinal.
    """

    def __init__(
        self,
        index: Mapping[str, Tensor | None],
        shape: Mapping[str, tuple[int, ...]],
        cuts: Mapping[str, Cut] | None = None,
        ordinal: Mapping[str, int] | None = None,
    ) -> None:
        self.ordinal = {name: number for number, name in enumerate(index)} if ordinal is None else dict(ordinal)
        for kind, names in {"shape": shape.keys(), "ordinal": self.ordinal.keys()}.items():
            if index.keys() != names:
                odd = sorted(index.keys() ^ names)
                raise ValueError(f"index and {kind} must name the same parameters, but these are in one only: {odd}")
        check_ordinals(self.ordinal)
        self.shape = {name: tuple(shape[name]) for name in index}
        self.cuts = dict(cuts or {})
        self.total_numels = {name: math.prod(self.total_shape(name)) for name in self.shape}
        self._index = {name: checked_index(name, entries, self.numel(name)) for name, entries in index.items()}

    def __getitem__(self, name: str) -> Tensor | None:
        return self._index[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __eq__(self, other: object) -> bool:
        """Whether the same entries are selected, under the same ordinals."""
        if not isinstance(other, Selection):
            return NotImplemented
        ours, theirs = ((list(s), s.shape, s.cuts, s.ordinal) for s in (self, other))
        return ours == theirs and all(same_index(index, other[name]) for name, index in self.items())

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
        return self.total_numels[name]

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
            selected whole. Nothing is by its name where it is empty.

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
        sparse = [name for name, score in scores.items() if not is_whole(name, score, expression)]
        index: dict[str, Tensor | None] = dict.fromkeys(scores)
        index.update(highest({name: scores[name] for name in sparse if not is_sharded(scores[name])}, rate))
        shape = {name: tuple(score.shape) for name, score in scores.items()}
        cuts = {}
        filled = [name for name in sparse if scores[name].numel()]
        dead = [name for name in filled if not is_sharded(scores[name]) and not scores[name].any()]
        for name, score in scores.items():
            if is_sharded(score):
                if name in sparse:
                    together = score.full_tensor()  # type: ignore[attr-defined]
                    dead += [] if together.any() else [name]
                    index.update(highest({name: together}, rate))
                index[name], shape[name], cuts[name] = cut(name, index[name], score)
        tell_of_dead(dead, len(filled))
        return cls(index, shape, cuts)

    @classmethod
    def random(cls, named_parameters: Pairs, rate: float, seed: int, whole: str | None = None) -> Selection:
        """Select in each tensor as many entries as `from_scores` would, at random."""
        drawing = torch.Generator().manual_seed(seed)
        scores = {name: alike(torch.rand(p.shape, generator=drawing), p) for name, p in named_pairs(named_parameters)}
        return cls.from_scores(scores, rate, whole)

    @classmethod
    def magnitude(cls, named_parameters: Pairs, rate: float, whole: str | None = None) -> Selection:
        """Select in each tensor the entries with the largest absolute value."""
        scores = {name: p.detach().abs().float() for name, p in named_pairs(named_parameters)}
        return cls.from_scores(scores, rate, whole)

    @classmethod
    def whole(cls, named_parameters: Pairs) -> Selection:
        """Select every entry of every tensor."""
        pairs = named_pairs(named_parameters)
        shape = {name: tuple(p.shape) for name, p in pairs}
        return cls(dict.fromkeys(shape), shape).local(pairs)

    def local(self, named_parameters: Pairs) -> Selection:
        """This rank's part of a selection of whole tensors, where the parameters are sharded."""
        index, shape, cuts = dict(self), dict(self.shape), dict(self.cuts)
        for name, parameter in named_parameters:
            if name in index and is_sharded(parameter):
                index[name], shape[name], cuts[name] = cut(name, index[name], parameter)
        return Selection(index, shape, cuts, self.ordinal)

    def subset(self, names: str) -> Selection:
        """The part of it whose names match a regular expression anywhere.

        The tensors keep their ordinals: an optimiser of a subset draws for them what one of the whole selection would,
        so the parts of a selection can be shared out among several optimisers.

        Raises
        ------
        ValueError
            If the expression is none, or matches no name.
        """
        expression = pattern("names", names)
        chosen = [name for name in self if expression.search(name)]
        if not chosen:
            raise ValueError(f"names is {names!r}, which matches none of the {len(self)} tensors: {', '.join(self)}")
        return Selection(
            {name: self[name] for name in chosen},
            {name: self.shape[name] for name in chosen},
            {name: self.cuts[name] for name in chosen if name in self.cuts},
            {name: self.ordinal[name] for name in chosen},
        )

    def union(self, other: Selection) -> Selection:
        """What either selects, also written ``self | other``.

        Tensors keep their ordinals, by which they are ordered; one of ``other`` whose ordinal another tensor has gets
        the next that is free. So the union of the subsets of a selection is that selection.

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
            if name in self.cuts or name in other.cuts:
                raise ValueError(f"both select entries of {name!r}, which is sharded; unite selections before `local`")
            ours = self[name]
            index[name] = None if ours is None or theirs is None else torch.cat([ours, theirs.to(ours.device)]).unique()
        ordered = sorted(index, key=ordinal.__getitem__)
        return Selection({name: index[name] for name in ordered}, shape, {**other.cuts, **self.cuts}, ordinal)

    __or__ = union

    def state_dict(self) -> dict[str, Any]:
        """Names, shapes, ordinals and, of what is not selected whole, indices; of a sharded one a `Shard`."""
        return {
            "names": list(self._index),
            "shapes": [list(self.total_shape(name)) for name in self._index],
            "ordinals": [self.ordinal[name] for name in self._index],
            "index": {name: self.global_index(name) for name in self.by_score},
        }

    def global_index(self, name: str) -> Tensor:
        """The selected positions in the whole tensor; those in this rank's rows, a `Shard`, where it is sharded."""
        index, cut = self._index[name], self.cuts.get(name)
        assert index is not None
        return index if cut is None else Shard(index + cut.begin, cut.first, cut.count)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], named_parameters: Pairs = ()) -> Selection:
        """The selection that was saved, or this rank's part of it where the parameters given are sharded.

        Parts are what `checkpoint.load_latest` returns of them, whatever the number of ranks that saved them.

        Raises
        ------
        ValueError
            If it is not the state of a selection, or one of other shapes than the parameters given.
        """
        check_form(state)
        names, parameters = state["names"], dict(named_parameters)
        shape = {name: tuple(sizes) for name, sizes in zip(names, state["shapes"], strict=True)}
        ordinal = dict(zip(names, state["ordinals"], strict=True))
        if unknown := sorted(state["index"].keys() - shape.keys()):
            raise ValueError(f"the state has an index of {unknown[0]!r}, which is not among its names")
        whole = {name: taken(state["index"][name]) if name in state["index"] else None for name in shape}
        selection = cls(whole, shape, ordinal=ordinal)
        for name in shape.keys() & parameters.keys():
            if tuple(parameters[name].shape) != shape[name]:
                raise ValueError(
                    f"{name!r} has shape {list(parameters[name].shape)}, but was selected as {list(shape[name])}"
                )
        return selection.local(parameters.items())

    def load_state_dict(self, state: Mapping[str, Any], named_parameters: Pairs = ()) -> None:
        """Become what `from_state_dict` returns."""
        self.__dict__ = self.from_state_dict(state, named_parameters).__dict__
