"""Data-parallel training in which ranks exchange only the gradients that a step keeps."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from mist_ext.kernels import ops
from mist_ext.optim.rank_differences import facts, refuse_differences
from mist_ext.optim.sparse import Part, SparseOptimizer
from mist_ext.optim.unwrapped import unwrapped

Key = tuple[int, tuple[int, ...]]  # of a bucket: the number of a parameter group, and positions of parameters in it

WIRES = (torch.float32, torch.bfloat16)
REDUCTIONS = ("sum", "mean")


@dataclass
class Bucket:
    """The kept gradients of some parameters of a group, packed, on their way to the other ranks and back."""

    part: Part
    packed: Tensor
    places: Tensor
    work: dist.Work | None = None

    @property
    def ended(self) -> bool:
        """Whether the sum over all ranks is complete."""
        return self.work is None or self.work.is_completed()


class SparseExchange:
    """Let a sparse optimiser step by the sum of all ranks' gradients, of which only those that it keeps are exchanged.

    Which entries a step keeps is a pure function that every rank knows. So each rank packs those gradients into one
    vector, the vectors are summed over the ranks (all-reduce), and every rank updates from the sum: half a percent of
    the bytes that exchanging dense gradients takes. Dense gradients stay on their rank.

    Together with `InBackward` each block is packed and sent as soon as backward has made its gradients, and updated
    when the sum has come, by the time the next block arrives or in ``optimizer.step()``. The bits are the same either
    way.

    All ranks must begin with the same parameters and take as many steps, each with gradients of the same parameters;
    ``optimizer.step()`` is a meeting of all ranks' hosts. Parameters that FSDP2 has sharded are left out, since it has
    reduced their gradients already. Norms by `clip_grad_norm_` are of a rank's own gradients.

    Parameters
    ----------
    optimizer : SparseOptimizer
        `SparseSGD` or `SparseAdamW`, or what accelerate made of one.
    group : ProcessGroup, optional
        The ranks; all of them by default.
    wire : torch.dtype
        The dtype of exchanged gradients: float32, or bfloat16 for half of the bytes.
    reduce : str
        ``"mean"`` over the ranks, as `DistributedDataParallel` has it, or ``"sum"``.

    Attributes
    ----------
    bytes : int
        The size of the packed vectors that this rank gave to the all-reduce in the last step.

    Raises
    ------
    TypeError
        For another optimiser.
    ValueError
        For an optimiser that needs dense gradients, or another wire or reduction than those above.
    RuntimeError
        When it is entered: without a process group, or if the ranks' selections, options, steps or parameters differ.
        By ``optimizer.step()``: if a parameter has a gradient on some ranks only, or with a `GradScaler`.

    Examples
    --------
    >>> with SparseExchange(optimizer):
    ...     for images, labels in loader:  # each rank its own part of the batch
    ...         loss_function(model(images), labels).backward()
    ...         optimizer.step()
    ...         optimizer.zero_grad()
    """

    def __init__(
        self,
        optimizer: SparseOptimizer,
        group: dist.ProcessGroup | None = None,
        wire: torch.dtype = torch.float32,
        reduce: str = "mean",
    ) -> None:
        optimizer = unwrapped(optimizer, "SparseExchange")
        _refuse_dense(optimizer)
        if wire not in WIRES:
            raise ValueError(f"wire is {wire}, expected torch.float32 or torch.bfloat16")
        if reduce not in REDUCTIONS:
            raise ValueError(f"reduce is {reduce!r}, expected 'sum' or 'mean'")
        self.optimizer = optimizer
        self.group = group
        self.wire = wire
        self.reduce = reduce
        self.bytes = 0
        self._plan: list[Key] = []  # the buckets of a step in the order in which all ranks send them
        self._taken: dict[Key, Bucket] = {}  # in this step, in order
        self._sent: set[Key] = set()
        self._in_flight: deque[Bucket] = deque()  # sent, and not yet applied
        self._steps: list[int] = []  # of each group, known without asking the device
        self._divisors: dict[torch.device, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> SparseExchange:
        if not dist.is_available() or not dist.is_initialized():
            raise RuntimeError(
                "SparseExchange needs a process group: start with torchrun and call "
                "torch.distributed.init_process_group() first, or leave it out where there is one process"
            )
        if self.optimizer.exchange is not None:
            raise RuntimeError("the optimiser is in another SparseExchange already; leave that one first")
        # What the ranks have to agree on passes between their hosts, so that no step waits for a GPU, and never behind
        # gradients.
        ranks = dist.get_process_group_ranks(self.group or dist.group.WORLD)
        control = dist.new_group(ranks, backend="gloo", use_local_synchronization=True)
        assert isinstance(control, dist.ProcessGroup)
        self._control = control
        self._size = len(ranks)
        try:
            self._read_steps()
            refuse_differences(self._gather(facts(self.optimizer, self._steps, self.wire, self.reduce)))
        except BaseException:
            dist.destroy_process_group(self._control)
            raise
        self._handles.append(self.optimizer.register_load_state_dict_post_hook(self._read_steps))
        self.optimizer.exchange = self
        return self

    def __exit__(self, *_: object) -> None:
        self.optimizer.exchange = None
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._plan.clear()
        self._divisors.clear()
        self._forget()
        dist.destroy_process_group(self._control)

    @torch.no_grad()
    def take(self, part: Part, gradients: list[Tensor]) -> None:
        """Pack the kept gradients of some parameters of a group; send them if they are next in the agreed order."""
        self._refuse_scaler()
        _refuse_dense(self.optimizer)
        self._take(self._pack(part, gradients))

    @torch.no_grad()
    def take_packed(self, part: Part, packed: Tensor, places: Tensor) -> None:
        """Take what `SampledGradients` has packed already, as `take` does."""
        self._refuse_scaler()
        self._take(Bucket(part, packed.to(self.wire), places))

    def _take(self, bucket: Bucket) -> None:
        self._taken[bucket.part.number, tuple(bucket.part.chosen)] = bucket
        self._send()
        while self._in_flight and self._in_flight[0].ended:
            self._apply(self._in_flight.popleft())

    @torch.no_grad()
    def finish(self) -> None:
        """Send the remaining buckets, and update all parameters whose gradients were taken."""
        self._refuse_scaler()
        self._agree()
        self._send()
        while self._in_flight:
            self._apply(self._in_flight.popleft())
        self.bytes = sum(b.packed.numel() * b.packed.element_size() for b in self._taken.values())
        self._steps = [step + 1 for step in self._steps]
        self._forget()

    def _pack(self, part: Part, gradients: list[Tensor]) -> Bucket:
        index = part.index
        device = gradients[0].device
        count = [g.numel() if entries is None else entries.numel() for g, entries in zip(gradients, index, strict=True)]
        places = ops.places(count, step=self._steps[part.number], **part.keep_rule)
        packed = torch.empty(int(places[-1]), dtype=self.wire, device=device)
        if device.type == "cuda":
            places = places.pin_memory().to(device, non_blocking=True)
        ops.pack_(packed, gradients, index, places, step=part.group["step"], **part.keep_rule)
        return Bucket(part, packed, places)

    def _send(self) -> None:
        """Start to sum the taken buckets over the ranks in the agreed order, up to the first that is missing."""
        for key in self._plan:
            if key in self._sent:
                continue
            if key not in self._taken:
                return
            bucket = self._taken[key]
            if bucket.packed.numel():
                bucket.work = dist.all_reduce(bucket.packed, group=self.group, async_op=True)
            self._sent.add(key)
            self._in_flight.append(bucket)

    def _apply(self, bucket: Bucket) -> None:
        if bucket.work is not None:
            bucket.work.wait()
        device = bucket.packed.device
        if device.type == "cuda":  # this may be another stream than the one that packed
            for tensor in (bucket.packed, bucket.places):
                tensor.record_stream(torch.cuda.current_stream(device))
        divisor = self._divisor(device) if self.reduce == "mean" else None
        source = {"grad": [], "packed": bucket.packed, "places": bucket.places, "grad_scale": divisor}
        self.optimizer.apply(bucket.part, **source)

    def _divisor(self, device: torch.device) -> Tensor:
        """Return the number of ranks, by which the update divides a sum of gradients."""
        if device not in self._divisors:
            self._divisors[device] = torch.full((), self._size, dtype=torch.float32, device=device)
        return self._divisors[device]

    def _agree(self) -> None:
        """Raise RuntimeError unless all ranks took the same buckets; where those are new, take rank 0's order."""
        mine = hashlib.blake2b(repr(sorted(self._taken)).encode(), digest_size=16).digest()
        digests = [torch.empty(16, dtype=torch.uint8) for _ in range(self._size)]
        dist.all_gather(digests, torch.frombuffer(bytearray(mine), dtype=torch.uint8), group=self._control)
        if any(not torch.equal(other, digests[0]) for other in digests):
            self._raise_difference()
        if self._taken.keys() != set(self._plan):
            order = [list(self._taken)]
            dist.broadcast_object_list(order, group_src=0, group=self._control)
            self._plan = order[0]

    def _raise_difference(self) -> None:
        """Raise RuntimeError with a parameter that has a gradient on some ranks only, if there is one."""
        by_rank = self._gather({name for bucket in self._taken.values() for name in bucket.part.names})
        for name in (name for group in self.optimizer.param_groups for name in group["param_names"]):
            have = [rank for rank, theirs in enumerate(by_rank) if name in theirs]
            if have and len(have) < self._size:
                lack = sorted(set(range(self._size)) - set(have))
                raise RuntimeError(
                    f"{name!r} has a gradient on {_ranks(have)}, but none on {_ranks(lack)}; every rank must use the "
                    "same parameters in a step (add 0 * parameter.sum() to the loss of a rank that does not)"
                )
        raise RuntimeError(
            "the ranks' gradients are complete in different parts; enter InBackward or SampledGradients on all ranks "
            "or on none"
        )

    def _refuse_scaler(self) -> None:
        for name in ("grad_scale", "found_inf"):
            if getattr(self.optimizer, name, None) is not None:
                raise RuntimeError(
                    "GradScaler cannot be used with SparseExchange, since each rank would look for infinities among "
                    "its own gradients alone; use bfloat16, which needs no scaler"
                )

    def _gather(self, mine: Any) -> list[Any]:
        """Return an object of each rank."""
        objects: list[Any] = [None] * self._size
        dist.all_gather_object(objects, mine, group=self._control)
        return objects

    def _read_steps(self, *_: object) -> None:
        self._steps = [int(group["step"]) for group in self.optimizer.param_groups]

    def _forget(self) -> None:
        self._taken.clear()
        self._sent.clear()
        self._in_flight.clear()


def _refuse_dense(optimizer: SparseOptimizer) -> None:
    """Raise ValueError for an optimiser that needs dense gradients, as one may from some step on."""
    if optimizer.needs_dense_gradients:
        raise ValueError(
            f"{type(optimizer).__name__} needs dense gradients here, of which an exchange keeps few; reduce whole "
            "ones, as DistributedDataParallel does, or leave drop at 'gradients'"
        )


def _ranks(ranks: list[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
