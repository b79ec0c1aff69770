"""How much each parameter matters to a task: squared gradients, accumulated while backward runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType

import torch
from torch import Tensor, nn

from mist_ext.arrival import Arrivals
from mist_ext.distributed.shard import local
from mist_ext.distributed.shard_files import TensorOnDisk, fill_
from mist_ext.kernels import ops
from mist_ext.parameters import dense, named_pairs


class Sensitivity:
    """Accumulate ``scale * g**2`` of each batch gradient into a score while it is entered as a context.

    A gradient is added to its parameter's score as soon as backward has made it, and freed at once, so the dense
    gradients of the whole model never exist together. Parameters are not changed.

    Parameters
    ----------
    named_parameters : iterable of (str, Parameter)
        Those that do not require a gradient are left out. Of parameters that FSDP2 has sharded, this rank's rows are
        scored, by gradients that are reduced over the ranks already.
    frozen : mapping of str to Tensor, optional
        uint8, bit-packed (`ops.pack_bits`): entries whose bit is set keep the score 0. Of a sharded parameter those of
        this rank's rows.
    scale : float
        Multiplies each squared gradient; with a loss scaled by S, pass 1 / S**2.
    scores : mapping of str to Tensor, optional
        What `scores` returned before an interruption: the sums go on from there.

    Raises
    ------
    TypeError
        For parameters without names.
    ValueError
        For a parameter under two names, or for scores or frozen entries of what is not among the parameters.
    RuntimeError
        When it is entered: if a parameter has a gradient already, or another context takes its gradients.

    Examples
    --------
    >>> with Sensitivity(model.named_parameters()) as sensitivity:
    ...     for images, labels in loader:
    ...         objective(model(images), labels).backward()
    >>> selection = Selection.from_scores(sensitivity.scores(), rate=0.05)
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        frozen: Mapping[str, Tensor] | None = None,
        scale: float = 1.0,
        scores: Mapping[str, Tensor | TensorOnDisk] | None = None,
    ) -> None:
        pairs = named_pairs(named_parameters)
        self.parameters = {name: p for name, p in pairs if p.requires_grad}
        self.frozen = dict(frozen or {})
        if unknown := sorted(self.frozen.keys() - dict(pairs).keys()):
            raise ValueError(f"frozen names {unknown[0]!r}, which is not among the parameters given")
        if unknown := sorted((scores or {}).keys() - self.parameters.keys()):
            raise ValueError(f"scores names {unknown[0]!r}, which is not among the parameters that require a gradient")
        self.scale = scale
        self._score = {
            name: torch.zeros_like(p, dtype=torch.float32, memory_format=torch.contiguous_format)
            for name, p in self.parameters.items()
        }
        fill_({name: self._score[name] for name in scores or {}}, scores or {})
        self._arrivals = Arrivals("Sensitivity")

    def __enter__(self) -> Sensitivity:
        self._arrivals.watch(self.parameters, self._accumulate)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._arrivals.end()

    @torch.no_grad()
    def _accumulate(self, name: str, parameter: Tensor) -> None:
        gradient = dense(name, local(parameter.grad))  # type: ignore[arg-type] # there is one when this is called
        ops.accumulate_([local(self._score[name])], [gradient], [self.frozen.get(name)], self.scale)
        parameter.grad = None

    def scores(self) -> dict[str, Tensor]:
        """Return scores by name: float32, shaped and sharded as the parameters, 0 where no gradient arrived."""
        return self._score
