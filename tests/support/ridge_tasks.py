"""Tasks for RanPAC, and the published choice of its ridge, written out in numpy float64."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


def task(rows: int, classes: range, noise: float, seed: int, width: int = 8) -> tuple[Tensor, Tensor]:
    centres = torch.randn(30, width, generator=torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes.start, classes.stop, (rows,), generator=generator)
    return centres[labels] + noise * torch.randn(rows, width, generator=generator), labels


def one_hot(labels: Tensor, classes: int) -> Array:
    return np.eye(classes)[labels.numpy()]


def published_errors(hidden: Array, targets: Array, fitted: int) -> list[float]:
    gram, cross = hidden[:fitted].T @ hidden[:fitted], hidden[:fitted].T @ targets[:fitted]
    errors = []
    for ridge in 10.0 ** np.arange(-8, 9):
        weights = np.linalg.solve(gram + ridge * np.eye(len(gram)), cross)
        errors.append(float(((hidden[fitted:] @ weights - targets[fitted:]) ** 2).mean()))
    return errors
