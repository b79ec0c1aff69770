"""L2P: a pool of prompts beside the input tokens, selected by the image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from mist_ext.methods.hooks import Hook, pooled_prompt_tokens, prompt_length, prompt_tokens, token_count
from mist_ext.methods.prompted import Classifier, PromptedMethod
from mist_ext.methods.training import Recipe
from mist_ext.system.suggest import unknown
from mist_ext.tuners.schedules import constant

Head = Literal["prompt", "token"]


class L2P(PromptedMethod):
    """Learning to prompt.

    Wang et al., "Learning to Prompt for Continual Learning", arXiv 2112.08654. A pool of M prompts P_m [L, D] has a
    key k_m [D] each. The query q(x) is the frozen model's feature; the N prompts with the most similar keys join the
    embedded tokens (equations 2 to 4), and the classifier gets the mean of the outputs at the prompts' places::

        x_p = [P_s1; ...; P_sN; x_e]      loss = cross-entropy - lambda sum_{i <= N} cos(q(x), k_si)   (equation 5)

    M L D numbers for prompts, M D for keys. The paper's optional penalty on prompts that were used often is left out,
    as in the published code's default. For a ViT-B/16: M = 10, L = 5, N = 5, Adam at a constant rate of 0.03 batch /
    256, 5 epochs, batch 16, gradients clipped to 1, lambda = 0.1. The PyTorch port (JH-LEE-KR/l2p-pytorch) and
    LAMDA-PILOT (exps/l2p.json) have these; the authors' own configuration (google-research/l2p, cifar100_l2p.py) has
    L = 10, N = 4 and lambda = 1.

    Parameters
    ----------
    pool : int
        M.
    length : int, optional
        L; by default 5, or fewer where N prompts of that length outnumber the backbone's positions.
    selected : int
        N.
    pull : float
        lambda.
    head_type : str
        What the classifier gets: ``prompt``, as published, or ``token``, the backbone's own feature, on which the
        prompts act as in visual prompt tuning. Prompts take the place of what a backbone was trained to put there.
    epochs : int
    lr : float
    batch_size : int
    classifier : str
        ``linear``, or ``prototypes`` of the prompted features.
    seed : int
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("seed", "classifier", "pool", "selected", "head_type")

    def __init__(
        self,
        pool: int = 10,
        length: int | None = None,
        selected: int = 5,
        pull: float = 0.1,
        head_type: Head = "prompt",
        epochs: int = 5,
        lr: float = 0.001875,
        batch_size: int = 16,
        classifier: Classifier = "linear",
        seed: int = 1993,
    ) -> None:
        super().__init__(Recipe(epochs, lr, batch_size, "adam", schedule=constant, clip=1.0), seed, classifier)
        if not 1 <= selected <= pool:
            raise ValueError(f"selected={selected}: expected 1 to {pool}, the prompts in the pool")
        if head_type not in get_args(Head):
            raise unknown("head_type", head_type, get_args(Head))
        self.head_type = head_type
        self.pool, self.length, self.selected, self.pull = pool, length, selected, pull

    def build_network(self) -> nn.Module:
        if self.selected > (budget := token_count(self.backbone)):
            raise ValueError(
                f"selected={self.selected}: so many prompts, but the backbone has {budget} positions; "
                f"expected at most {budget}"
            )
        length = prompt_length(self.backbone, "length", self.length, 5, self.selected)
        network = super().build_network()
        width = self.feature_width
        network.prompts = nn.Parameter(torch.empty(self.pool, length, width).uniform_(-1, 1))
        network.keys = nn.Parameter(torch.empty(self.pool, width).uniform_(-1, 1))
        return network

    def extend_network(self, classes: range) -> None:
        self._heads.extend(classes)

    def _trained(self) -> Iterable[nn.Parameter]:
        return [self.network.prompts, self.network.keys]

    def _prompts(self, query: Tensor, training: bool) -> tuple[list[Hook], Tensor]:
        similarity = functional.normalize(query) @ functional.normalize(self.network.keys).T
        closest = similarity.topk(self.selected, dim=1)
        prompts = self.network.prompts[closest.indices].flatten(1, 2)
        blocks = self.backbone.blocks
        own = self.head_type == "token"
        hooks = prompt_tokens(blocks[0], blocks[-1], prompts) if own else pooled_prompt_tokens(self.backbone, prompts)
        return hooks, -self.pull * closest.values.sum(dim=1).mean()
