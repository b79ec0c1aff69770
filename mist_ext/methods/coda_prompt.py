"""CODA-Prompt: prompts that are weighted sums of components, some of them new with every task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mist_ext.methods.hooks import Hook, prefixes, prompt_length
from mist_ext.methods.prompted import Classifier, PromptedMethod, check_blocks
from mist_ext.methods.training import Recipe


class CodaPrompt(PromptedMethod):
    """Decomposed attention-based prompts.

    Smith et al., "CODA-Prompt: COntinual Decomposed Attention-based Prompting for Rehearsal-Free Continual Learning",
    arXiv 2211.13218, section 4. In every block that has prompts, component m has a prompt P_m [L, D], an attention
    vector A_m [D] and a key K_m [D]. An image gets (equations 3 to 5)::

        p = sum_m alpha_m P_m      alpha_m = cos(q(x) * A_m, K_m)      * by entries

    whose first L / 2 rows are extra keys of the attention, the others extra values. A task adds components and trains
    them alone, those of earlier tasks stay. The loss is cross-entropy plus lambda times the mean squared entry of
    B B^T - I for B of P, A and K (equation 6; new components begin orthogonal to the earlier ones). A task adds
    m (L + 2) D numbers a block.

    Published for a ViT-B/16: 100 components over 10 tasks, L = 8, the first five blocks, Adam, cosine annealing from
    0.001, 20 epochs, batch 128, lambda = 0.1.

    Parameters
    ----------
    components : int
        m, the components that a task adds.
    length : int
        L, even.
    prompted_blocks : tuple of int
        From 0.
    orthogonality : float
        lambda.
    epochs : int
    lr : float
    batch_size : int
    classifier : str
        ``linear``, or ``prototypes`` of the prompted features.
    seed : int
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("seed", "classifier", "components", "length", "prompted_blocks")

    def __init__(
        self,
        components: int = 10,
        length: int = 8,
        prompted_blocks: tuple[int, ...] = (0, 1, 2, 3, 4),
        orthogonality: float = 0.1,
        epochs: int = 20,
        lr: float = 0.001,
        batch_size: int = 128,
        classifier: Classifier = "linear",
        seed: int = 1993,
    ) -> None:
        super().__init__(Recipe(epochs, lr, batch_size, "adam"), seed, classifier)
        if components < 1 or length < 2 or length % 2:
            raise ValueError(f"components={components}, length={length}: expected 1 or more, and an even length")
        self.components, self.length, self.orthogonality = components, length, orthogonality
        self.prompted_blocks = tuple(prompted_blocks)

    def build_network(self) -> nn.Module:
        check_blocks(self.backbone, "prompted_blocks", self.prompted_blocks)
        prompt_length(self.backbone, "length", self.length, self.length)
        network = super().build_network()
        # One entry for every task: [blocks, components, L D], and twice [blocks, components, D].
        network.prompts, network.attention, network.keys = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        return network

    def extend_network(self, classes: range) -> None:
        self._heads.extend(classes)
        width = self.feature_width
        for part, size in zip(self._lists(), (self.length * width, width, width), strict=True):
            for earlier in part:
                earlier.requires_grad_(False)
            drawn = torch.empty(len(self.prompted_blocks), self.components, size).uniform_()
            part.append(nn.Parameter(orthogonal(drawn, [own.detach().to(drawn.device) for own in part])))

    def _trained(self) -> Iterable[nn.Parameter]:
        return [part[-1] for part in self._lists()]

    def _prompts(self, query: Tensor, training: bool) -> tuple[list[Hook], Tensor]:
        prompts, attention, keys = (torch.cat(list(part), dim=1) for part in self._lists())
        by_block, penalty = {}, query.new_zeros(())
        for block, own, focus, key in zip(self.prompted_blocks, prompts, attention, keys, strict=True):
            attended = functional.normalize(query.unsqueeze(1) * focus, dim=2)
            weights = torch.einsum("nmd,md->nm", attended, functional.normalize(key, dim=1))
            halves = (weights @ own).view(len(query), self.length, -1).chunk(2, dim=1)
            by_block[block] = (halves[0], halves[1])
            penalty = penalty + sum(_unlike_identity(part) for part in (own, focus, key))
        return prefixes(self.backbone, by_block), self.orthogonality * penalty

    def _lists(self) -> tuple[nn.ParameterList, nn.ParameterList, nn.ParameterList]:
        return self.network.prompts, self.network.attention, self.network.keys


def orthogonal(drawn: Tensor, earlier: list[Tensor]) -> Tensor:
    """Make components ``[blocks, m, size]`` unit vectors, orthogonal to each other and to earlier ones.

    Where there are more components than dimensions that cannot be; the last ones are unit vectors alone.
    """
    made = drawn.clone()
    if drawn.is_meta:  # for its shape alone
        return made
    for block in range(len(drawn)):
        basis = [row / row.norm() for part in earlier for row in part[block]]
        frame = torch.linalg.qr(torch.stack(basis, dim=1))[0] if basis else drawn.new_zeros(drawn.shape[2], 0)
        for index, row in enumerate(drawn[block]):
            rest = row
            for _ in range(2):  # once more for what rounding left
                rest = rest - frame @ (frame.T @ rest)
            if rest.norm() <= 1e-4 * row.norm():
                made[block, index] = row / row.norm()
                continue
            made[block, index] = rest / rest.norm()
            frame = torch.cat([frame, made[block, index].unsqueeze(1)], dim=1)
    return made


def _unlike_identity(rows: Tensor) -> Tensor:
    return (rows @ rows.T - torch.eye(len(rows), device=rows.device)).square().mean()
