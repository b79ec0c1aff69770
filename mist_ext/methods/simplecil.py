"""SimpleCIL: class means and cosine similarity."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from mist_ext.methods.prototypes import ClassMeans


class SimpleCIL(ClassMeans):
    """Prototypes of frozen features.

    The prototype of class c is the mean of its features, p_c = (1/n_c) sum_i f_i, and a sample belongs to the
    class with the highest cosine similarity, argmax_c cos(f, p_c) (Zhou et al., "Revisiting Class-Incremental
    Learning with Pre-Trained Models: Generalizability and Adaptivity are All You Need", arXiv 2303.07338).
    Nothing is trained, so it is the best test of a data pipeline.
    """

    def score(self, features: Tensor) -> Tensor:
        return functional.normalize(features, dim=1) @ functional.normalize(self.prototypes, dim=1).T
