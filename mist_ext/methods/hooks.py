"""Forward hooks by which methods attach prompts and adapters to a timm ViT, only while they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

Before = Callable[[nn.Module, tuple[Any, ...]], Any]
After = Callable[[nn.Module, tuple[Any, ...], Any], Any]
Hook = tuple[nn.Module, Before | None, After | None]  # a module, and what happens before and after its forward


def check_vit(backbone: nn.Module, method: str) -> None:
    """Raise ValueError unless the backbone is a timm VisionTransformer of ordinary blocks that run once."""
    from timm.models.vision_transformer import Attention, Block, VisionTransformer

    blocks = getattr(backbone, "blocks", ())
    if isinstance(backbone, VisionTransformer) and all(
        isinstance(block, Block) and isinstance(block.attn, Attention) for block in blocks
    ):
        if backbone.grad_checkpointing:
            raise ValueError(
                f"method {method!r} attaches to the blocks while they run, and checkpointing runs them again when "
                "that is over; leave checkpointing out, or lower the method's batch_size by --method-options"
            )
        return
    raise ValueError(
        f"method {method!r} attaches to the blocks of timm's VisionTransformer, but the backbone is a "
        f"{type(backbone).__name__}; take a ViT such as vit_nano or vit_base_patch16_224, or a method that needs "
        "features alone: simplecil, ranpac, fecam"
    )


def token_count(backbone: Any) -> int:
    """Count the tokens that the ViT has positions for: its patches and prefix tokens."""
    return int(backbone.patch_embed.num_patches + backbone.num_prefix_tokens)


def prompt_length(backbone: Any, option: str, given: int | None, published: int, each: int = 1) -> int:
    """Return the length of a prompt; ValueError where it outnumbers the ViT's own tokens.

    Parameters
    ----------
    backbone : Module
    option : str
        Its name, for the error.
    given : int or None
        None for the published one, or for as much of it as there is room for.
    published : int
    each : int
        Prompts of this length that a block gets at once.
    """
    budget = token_count(backbone)
    if given is None:
        return min(published, budget // each)
    if not 1 <= given * each <= budget:
        raise ValueError(
            f"{option}={given}: {given * each} prompt tokens, but the backbone has {budget} positions; "
            f"expected {option} from 1 to {budget // each}"
        )
    return given


@contextmanager
def frozen_backbone(backbone: nn.Module) -> Iterator[None]:
    """Keep the backbone in evaluation mode, without gradients of its own and uncompiled; afterwards it is as it was.

    Blocks that were compiled before a hook was attached would not run it.
    """
    trained = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    training = [module for module in backbone.modules() if module.training]
    for parameter in trained:
        parameter.requires_grad_(False)
    backbone.eval()
    compiled = any(getattr(module, "_compiled_call_impl", None) is not None for module in backbone.modules())
    try:
        with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True


@contextmanager
def attached(hooks: Iterable[Hook]) -> Iterator[None]:
    """Register forward hooks, and remove them afterwards."""
    with ExitStack() as stack:
        for module, before, after in hooks:
            if before is not None:
                stack.callback(module.register_forward_pre_hook(before).remove)
            if after is not None:
                stack.callback(module.register_forward_hook(after).remove)
        yield


def parallel_to_mlp(block: Any, adapter: Callable[[Tensor], Tensor]) -> list[Hook]:
    """Add ``adapter(x)`` to a block's second residual branch, x being that branch's input."""
    seen: list[Tensor] = []

    def before(_module: nn.Module, args: tuple[Any, ...]) -> None:
        seen[:] = args[:1]

    def after(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> Tensor:
        x = seen.pop()
        return output + adapter(x.float()).to(output.dtype)

    return [(block.norm2, before, None), (block.drop_path2, None, after)]


def scale_and_shift(module: nn.Module, scale: Tensor, shift: Tensor) -> Hook:
    """Replace a module's output y by ``y * scale + shift``."""
    return (module, None, lambda _module, _args, output: output * scale.to(output.dtype) + shift.to(output.dtype))


def prompt_tokens(first: nn.Module, last: nn.Module, prompts: Tensor) -> list[Hook]:
    """Append prompts ``[length, d]`` or ``[batch, length, d]`` before a block, and cut them off after a block."""

    def before(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x = args[0]
        return (torch.cat([x, prompts.to(x.dtype).expand(len(x), -1, -1)], dim=1), *args[1:])

    def after(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> Tensor:
        return output[:, : -prompts.shape[-2]]

    return [(first, before, None), (last, None, after)]


def pooled_prompt_tokens(backbone: Any, prompts: Tensor) -> list[Hook]:
    """Append prompts ``[batch, length, d]`` before all blocks; the mean of their outputs takes every token's place."""
    blocks = list(backbone.blocks)
    begin, _cut = prompt_tokens(blocks[0], blocks[-1], prompts)

    def after(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> Tensor:
        length = prompts.shape[1]
        return output[:, -length:].mean(dim=1, keepdim=True).expand(-1, output.shape[1] - length, -1)

    return [begin, (backbone.norm, None, after)]


def prefixes(backbone: Any, by_block: Mapping[int, tuple[Tensor, Tensor]]) -> list[Hook]:
    """Prefix keys and values, ``[length, d]`` or ``[batch, length, d]``, for some blocks' attention.

    The attention gets as many empty tokens, whose keys and values are replaced where they are computed, and whose own
    outputs are cut off: the other tokens' outputs are those of prefix tuning, by any implementation of attention.
    """
    hooks: list[Hook] = []
    for number, (keys, values) in by_block.items():
        attention = backbone.blocks[number].attn
        hooks += _prefix(attention, keys, values)
    return hooks


def _prefix(attention: Any, keys: Tensor, values: Tensor) -> list[Hook]:
    length = keys.shape[-2]

    def before(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x = args[0]
        return (torch.cat([x, x.new_zeros(len(x), length, x.shape[2])], dim=1), *args[1:])

    def replace(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> Tensor:
        own, empty = output[:, :-length], output[:, -length:].chunk(3, dim=2)[0]
        k, v = (part.to(output.dtype).expand(len(output), -1, -1) for part in (keys, values))
        return torch.cat([own, torch.cat([empty, k, v], dim=2)], dim=1)

    def after(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> Tensor:
        return output[:, :-length]

    return [(attention, before, after), (attention.qkv, None, replace)]
