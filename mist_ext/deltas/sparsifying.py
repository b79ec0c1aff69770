"""What TIES and DARE do to a task vector before it is merged: keep its largest entries, or drop some at random."""

from __future__ import annotations

import torch

from mist_ext.deltas.delta import TaskDelta
from mist_ext.deltas.digests import tensor_digest
from mist_ext.deltas.vectors import Vector
from mist_ext.kernels.keep_rule import keep_mask, keep_threshold
from mist_ext.seeding import draw_seed

Vectors = dict[str, Vector]


def trim(vectors: Vectors, density: float) -> Vectors:
    """Set all but the largest entries of a task vector to 0: TIES, arXiv 2306.01708, section 4, step 1.

    Parameters
    ----------
    vectors : dict of Vector
        By tensor.
    density : float
        How much is kept: ``int(density * n)`` of the n entries of all tensors together. Of equally large ones those of
        earlier tensors, then of lower positions.
    """
    if density == 1 or not vectors:
        return vectors
    sizes = torch.cat([vector.values.abs() for vector in vectors.values()])
    largest = sizes.sort(descending=True, stable=True).indices[: int(density * len(sizes))]
    kept = torch.zeros(len(sizes), dtype=torch.bool)
    kept[largest] = True
    masks = kept.split([len(vector.values) for vector in vectors.values()])
    return {
        name: Vector(vector.positions, vector.values * mask)
        for (name, vector), mask in zip(vectors.items(), masks, strict=True)
    }


def drop(vectors: Vectors, density: float, seed: int, delta: TaskDelta) -> Vectors:
    """Drop entries of a task vector at random and divide the rest by the density: DARE, arXiv 2311.03099, equation 1.

    The j-th changed entry of a tensor is kept as the package's counter-based rule says, under a key of the seed, the
    tensor's name, its changed positions and their new values.

    Parameters
    ----------
    vectors : dict of Vector
        By tensor.
    density : float
        The probability that an entry is kept.
    seed : int
    delta : TaskDelta
        Whose vector it is.
    """
    threshold = keep_threshold(density)
    dropped = {}
    for name, vector in vectors.items():
        key = draw_seed(seed, "dare", name, tensor_digest(vector.positions), tensor_digest(delta.changes[name].new))
        kept = keep_mask(key, 0, 0, len(vector.values), threshold)
        dropped[name] = Vector(vector.positions, vector.values * kept / density)
    return dropped
