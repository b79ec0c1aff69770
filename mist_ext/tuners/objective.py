"""What tuning minimises: MIST's objective on two views of a batch, and cross-entropy, its ablation.

MIST's is supervised InfoNCE, a lower bound of mutual information between the views.

The five steps are in the paper's section 3 (arXiv 2505.19943); the supervised term follows SupCon (arXiv 2004.11362).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from mist_ext.distributed.batch_rows import BatchRows

EPSILON = 1e-8  # inside the division and inside the logarithm, as in the published code


def mutual_information_loss(z: Tensor, labels: Tensor, temperature: float = 0.07) -> Tensor:
    """Return ``mean_i -log p[i, pair(i)] + 2 mean_i sum_j M[i, j] (-log p[i, j])``.

    With ``s = z z^T / temperature``, ``p[i, j] = exp(s[i, j]) / sum_{k != i} exp(s[i, k])`` and ``p[i, i] = 0``; M is
    the "same class" matrix with each row normalised to sum to 1. Its diagonal stays in, which adds a constant.

    Parameters
    ----------
    z : Tensor
        Float, ``[2 B, d]``, rows of unit length: the B originals, then their B augmented copies in the same order.
    labels : Tensor
        int64, ``[B]``.
    temperature : float

    Returns
    -------
    Tensor
        A single value, never negative.

    Raises
    ------
    ValueError
        If ``z`` does not have two rows for each label.
    """
    batch = len(labels)
    if z.ndim != 2 or len(z) != 2 * batch or batch == 0:
        raise ValueError(f"z has shape {list(z.shape)}, expected [{2 * batch}, d]: two views of each of {batch} labels")
    similarity = z @ z.T / temperature
    similarity = similarity - similarity.detach().amax(dim=1, keepdim=True)
    itself = torch.eye(2 * batch, dtype=torch.bool, device=z.device)
    exponent = similarity.exp().masked_fill(itself, 0)
    surprise = -(exponent / (exponent.sum(dim=1, keepdim=True) + EPSILON) + EPSILON).log()
    pair = surprise.diagonal(batch).sum() + surprise.diagonal(-batch).sum()
    both = labels.repeat(2)
    same_class = (both[:, None] == both[None, :]).to(surprise.dtype)
    supervised = (same_class / same_class.sum(dim=1, keepdim=True) * surprise).sum()
    return (pair + 2 * supervised) / (2 * batch)


class MutualInformation(nn.Module):
    """The objective with its linear projector, one for all tasks.

    Parameters
    ----------
    num_features : int
        Width of the backbone's features.
    dimensions : int
        Width of the projection.
    temperature : float

    Attributes
    ----------
    views : int
        Class attribute: of each image, in the order of `TwoViews`.
    """

    views: ClassVar[int] = 2

    def __init__(self, num_features: int, dimensions: int = 128, temperature: float = 0.07) -> None:
        super().__init__()
        self.projector = nn.Linear(num_features, dimensions)
        self.temperature = temperature

    def forward(self, features: Tensor, labels: Tensor, rows: BatchRows | None = None) -> Tensor:
        """Return the loss of a batch.

        Parameters
        ----------
        features : Tensor
            ``[2 B, num_features]`` in the order of `TwoViews`.
        labels : Tensor
            int64, ``[B]``.
        rows : BatchRows, optional
            Of which joint batch features and labels are this rank's part. The loss is that of the joint batch, its
            similarities span all ranks, and its gradient that through this rank's rows: to be summed over the ranks.
        """
        projection = self.projector(features).float()  # the similarities need float32 under autocast
        z = nn.functional.normalize(projection)
        if rows is not None:
            z, labels = _joint(z, labels, rows, self.views)
        return mutual_information_loss(z, labels, self.temperature)


class CrossEntropy(nn.Module):
    """The ablation's objective: cross-entropy of a linear classifier over the classes of one task, both views alike.

    ``mean_i -log softmax(W f_i + b)[class of i]`` over the 2 B rows. Earlier classes have no output, so nothing pushes
    their features away. The classifier serves tuning alone: what predicts is the freeze-based method.

    Parameters
    ----------
    num_features : int
        Width of the backbone's features.
    classes : Tensor
        int64, ``[c]``, ascending: the labels that occur in the task.
    """

    views: ClassVar[int] = 2
    head: ClassVar[type[nn.Module]] = nn.Linear
    classes: Tensor

    def __init__(self, num_features: int, classes: Tensor) -> None:
        super().__init__()
        self.register_buffer("classes", classes)
        self.classifier = self.head(num_features, len(classes))

    def forward(self, features: Tensor, labels: Tensor, rows: BatchRows | None = None) -> Tensor:
        """Return the loss of a batch; arguments as in `MutualInformation`, labels among those of the task."""
        logits = self.classifier(features).float()
        if rows is not None:
            logits, labels = _joint(logits, labels, rows, self.views)
        return nn.functional.cross_entropy(logits, torch.searchsorted(self.classes, labels).repeat(self.views))


class CosineLinear(nn.Module):
    """Logits ``sigma cos(f, w_c)`` with a learned scale sigma that begins at 1: SimpleCIL's classifier, where trained.

    Parameters
    ----------
    width : int
        Of the features.
    classes : int
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, width).uniform_(-(width**-0.5), width**-0.5))
        self.sigma = nn.Parameter(torch.ones(1))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``[n, classes]`` of features ``[n, width]``."""
        normalize = nn.functional.normalize
        return self.sigma * nn.functional.linear(normalize(features), normalize(self.weight))


class CosineCrossEntropy(CrossEntropy):
    """What the published ablations minimise: cross-entropy of a cosine classifier, on the images as they are."""

    views = 1
    head = CosineLinear


def _joint(values: Tensor, labels: Tensor, rows: BatchRows, count: int) -> tuple[Tensor, Tensor]:
    """Return the joint batch's values, view after view, and labels, from one rank's ``[count b, d]`` and ``[b]``."""
    if rows.empty:  # the image was not its own
        values, labels = values[:0], labels[:0]
    views = values.reshape(count, len(labels), values.shape[1]).transpose(0, 1)
    return rows.gather(views).transpose(0, 1).reshape(-1, values.shape[1]), rows.gather(labels)
