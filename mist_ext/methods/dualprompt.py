"""DualPrompt: one general prompt, and an expert prompt for every task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mist_ext.methods.hooks import Hook, prefixes, prompt_length
from mist_ext.methods.prompted import Classifier, PromptedMethod, check_blocks
from mist_ext.methods.training import Recipe
from mist_ext.tuners.schedules import constant


class DualPrompt(PromptedMethod):
    """Complementary prompts by prefix tuning.

    Wang et al., "DualPrompt: Complementary Prompting for Rehearsal-free Continual Learning", arXiv 2204.04799. A
    general prompt g is attached to some blocks and shared by all tasks; task t has an expert prompt e_t for other
    blocks and a key k_t. Both are prefixes, extra keys and values of the attention (equation 4)::

        attention(Q, [p_K; K], [p_V; V])      loss = cross-entropy - lambda cos(q(x), k_t)   (equations 5 and 6)

    In training t is known; in a prediction it is argmax_t cos(q(x), k_t). With G and E blocks, g has 2 G L_g D
    numbers, each e_t 2 E L_e D, each key D. L counts the rows of each of p_K and p_V, as in the published code, where
    the paper's text halves a prompt. A new expert begins as a copy of the one before, as published. For a
    ViT-B/16: L_g = 5 in blocks 1 and 2, L_e = 20 in blocks 3 to 5 (the paper), Adam at a constant rate of 0.001, 5
    epochs, batch 24, gradients clipped to 1, lambda = 0.1 (LAMDA-PILOT, exps/dualprompt.json, where L_e is 5). The
    authors' own configuration (google-research/l2p, cifar100_dualprompt.py) has L_e = 5 and lambda = 1.

    Parameters
    ----------
    general_length, expert_length : int, optional
        L_g and L_e; by default 5 and 20, or the backbone's positions where there are fewer.
    general_blocks, expert_blocks : tuple of int
        From 0.
    pull : float
        lambda.
    epochs : int
    lr : float
    batch_size : int
    classifier : str
        ``linear``, or ``prototypes`` of the prompted features.
    seed : int
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("seed", "classifier", "general_blocks", "expert_blocks")

    def __init__(
        self,
        general_length: int | None = None,
        expert_length: int | None = None,
        general_blocks: tuple[int, ...] = (0, 1),
        expert_blocks: tuple[int, ...] = (2, 3, 4),
        pull: float = 0.1,
        epochs: int = 5,
        lr: float = 0.001,
        batch_size: int = 24,
        classifier: Classifier = "linear",
        seed: int = 1993,
    ) -> None:
        super().__init__(Recipe(epochs, lr, batch_size, "adam", schedule=constant, clip=1.0), seed, classifier)
        self.general_length, self.expert_length, self.pull = general_length, expert_length, pull
        self.general_blocks, self.expert_blocks = tuple(general_blocks), tuple(expert_blocks)
        if both := set(self.general_blocks) & set(self.expert_blocks):
            raise ValueError(f"general_blocks and expert_blocks share {sorted(both)}; a block takes one of them")

    def build_network(self) -> nn.Module:
        check_blocks(self.backbone, "general_blocks", self.general_blocks)
        check_blocks(self.backbone, "expert_blocks", self.expert_blocks)
        prompt_length(self.backbone, "expert_length", self.expert_length, 20)
        length = prompt_length(self.backbone, "general_length", self.general_length, 5)
        network = super().build_network()
        width = self.feature_width
        network.general = nn.Parameter(torch.empty(len(self.general_blocks), 2, length, width).uniform_(-1, 1))
        network.experts, network.keys = nn.ParameterList(), nn.ParameterList()
        return network

    def extend_network(self, classes: range) -> None:
        self._heads.extend(classes)
        width = self.feature_width
        length = prompt_length(self.backbone, "expert_length", self.expert_length, 20)
        experts, keys = self.network.experts, self.network.keys
        for earlier in (*experts, *keys):
            earlier.requires_grad_(False)
        if len(experts):
            expert = experts[-1].detach().clone()
        else:
            expert = torch.empty(len(self.expert_blocks), 2, length, width).uniform_(-1, 1)
        experts.append(nn.Parameter(expert))
        keys.append(nn.Parameter(torch.empty(width).uniform_(-1, 1)))

    def _trained(self) -> Iterable[nn.Parameter]:
        return [self.network.general, self.network.experts[-1], self.network.keys[-1]]

    def _prompts(self, query: Tensor, training: bool) -> tuple[list[Hook], Tensor]:
        keys = torch.stack(list(self.network.keys))
        similarity = functional.normalize(query) @ functional.normalize(keys).T
        newest = len(keys) - 1
        task = torch.full((len(query),), newest, device=query.device) if training else similarity.argmax(dim=1)
        experts = self.network.experts[newest : newest + 1] if training else self.network.experts
        stacked = torch.stack(list(experts))
        chosen = stacked[torch.zeros_like(task) if training else task]  # [n, blocks, 2, length, width]
        by_block = {
            block: (own[0], own[1]) for block, own in zip(self.general_blocks, self.network.general, strict=True)
        }
        for index, block in enumerate(self.expert_blocks):
            by_block[block] = (chosen[:, index, 0], chosen[:, index, 1])
        return prefixes(self.backbone, by_block), -self.pull * similarity[:, newest].mean()
