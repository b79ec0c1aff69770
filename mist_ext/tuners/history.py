"""What earlier tasks did to a backbone's entries: how often each was selected, and which are frozen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mist_ext.distributed.shard import Shard, local
from mist_ext.distributed.shard_files import TensorOnDisk, check_entries, entries_of
from mist_ext.kernels import ops
from mist_ext.selection import Selection

MOST_STRIKES = 255  # a uint8 code


class History:
    """Strikes and frozen entries of the tensors that are selected by score, on the host.

    Parameters
    ----------
    backbone : Module
    sharded : bool
        Whether the ranks share its rows out among them; each keeps the history of its own.

    Attributes
    ----------
    strikes : dict of str to Tensor
        uint8, one count an entry.
    frozen : dict of str to Tensor
        uint8, bit-packed (`ops.pack_bits`).
    """

    def __init__(self, backbone: nn.Module, sharded: bool) -> None:
        self.backbone, self.sharded = backbone, sharded
        self.strikes: dict[str, Tensor] = {}
        self.frozen: dict[str, Tensor] = {}

    def scale_codes(self, selection: Selection) -> dict[str, Tensor]:
        """Return the strikes of the selected entries, for the tensors that have any."""
        return {
            name: self.strikes[name][_positions(selection, name)] for name in selection.by_score if name in self.strikes
        }

    def add_strikes(self, selection: Selection) -> None:
        """Count a strike against every selected entry of the backbone."""
        for name in self._of_backbone(selection):
            strikes = self.strikes.setdefault(name, torch.zeros(selection.numel(name), dtype=torch.uint8))
            chosen = _positions(selection, name)
            strikes[chosen] = (strikes[chosen].int() + 1).clamp(max=MOST_STRIKES).to(torch.uint8)

    def freeze(self, selection: Selection) -> None:
        """Freeze the selected entries of the backbone for all later tasks."""
        for name in self._of_backbone(selection):
            flags = torch.zeros(selection.numel(name), dtype=torch.bool)
            if name in self.frozen:
                flags |= ops.unpack_bits(self.frozen[name], len(flags))
            flags[_positions(selection, name)] = True
            self.frozen[name] = ops.pack_bits(flags)

    def _of_backbone(self, selection: Selection) -> list[str]:
        """Return the tensors selected by score, without the objectives' own layers."""
        names = {name for name, _ in self.backbone.named_parameters()}
        return [name for name in selection.by_score if name in names]

    def state_dict(self) -> dict[str, Any]:
        """Return both; of a sharded backbone, this rank's parts."""
        return {
            "strikes": {name: self._part(name, counts) for name, counts in self.strikes.items()},
            "frozen": {name: self._saved_flags(name, bits) for name, bits in self.frozen.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what was saved, by any number of ranks; ValueError if it does not fit the backbone."""
        self.strikes = {name: self._own(name, counts) for name, counts in state["strikes"].items()}
        self.frozen = {name: self._own_flags(name, flags) for name, flags in state["frozen"].items()}

    def _part(self, name: str, own: Tensor) -> Tensor:
        """Return what a checkpoint stores of a tensor's values, one for each entry: this rank's shard, or all."""
        parameter = self.backbone.get_parameter(name)
        return Shard(own, Shard.of(name, parameter).first, parameter.numel()) if self.sharded else own

    def _own(self, name: str, saved: Tensor | TensorOnDisk, dtype: torch.dtype = torch.uint8) -> Tensor:
        """Return the saved values of this rank's entries."""
        parameter = self.backbone.get_parameter(name)
        check_entries(name, saved, parameter, dtype)
        return entries_of(saved, Shard.of(name, parameter).first if self.sharded else 0, local(parameter).numel())

    def _saved_flags(self, name: str, bits: Tensor) -> Tensor:
        """Return frozen flags as a checkpoint stores them: packed, but not in shards, which may begin within a byte."""
        entries = local(self.backbone.get_parameter(name)).numel()
        return self._part(name, ops.unpack_bits(bits, entries)) if self.sharded else bits

    def _own_flags(self, name: str, saved: Tensor | TensorOnDisk) -> Tensor:
        if saved.dtype != torch.bool:
            entries = self.backbone.get_parameter(name).numel()
            if not isinstance(saved, Tensor) or saved.dtype != torch.uint8 or saved.shape != (-(-entries // 8),):
                raise ValueError(f"the frozen entries of {name!r} are not the packed bits of {entries} entries")
            saved = ops.unpack_bits(saved, entries)
        return ops.pack_bits(self._own(name, saved, torch.bool))


def _positions(selection: Selection, name: str) -> Tensor:
    index = selection[name]
    assert index is not None  # of what is selected by score
    return index.cpu().long()
