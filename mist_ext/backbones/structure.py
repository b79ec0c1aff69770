"""A backbone's blocks, and what is switched in them: training mode, compilation, checkpointing."""

from __future__ import annotations

from torch import nn


def train_mode(backbone: nn.Module) -> None:
    """Set training mode, in which normalisations with running statistics use these and leave them as they are.

    Tuning moves a small part of the parameters; statistics of the last small batches would replace those of
    the pre-training, which every feature depends on.
    """
    backbone.train()
    for module in backbone.modules():
        if getattr(module, "running_mean", None) is not None:
            module.eval()


def blocks(backbone: nn.Module) -> list[nn.Module]:
    """Return the backbone's blocks, first to last.

    They are what its lists named ``blocks`` hold, one list or one for each stage; where there is none, what the
    lists in ``stages`` hold.

    Raises
    ------
    ValueError
        For a model that has neither.
    """
    found: list[nn.Module] = []
    inside: str | None = None
    for path, module in backbone.named_modules():
        if inside is not None and path.startswith(inside):
            continue  # a block may have blocks of its own
        if path.rpartition(".")[2] == "blocks" and isinstance(module, nn.Sequential | nn.ModuleList):
            found += module
            inside = path + "."
    stages = getattr(backbone, "stages", None)
    if not found and isinstance(stages, nn.Sequential | nn.ModuleList):
        found = [block for stage in stages if isinstance(stage, nn.Sequential | nn.ModuleList) for block in stage]
    if not found:
        raise ValueError(f"{name_of(backbone)} has no list of blocks, as timm's vision transformers have")
    return found


def check_options(backbone: nn.Module, compile: bool, checkpointing: bool) -> None:
    """Raise ValueError if an option does not work with a backbone, which stays as it is.

    Parameters
    ----------
    backbone : Module
    compile, checkpointing : bool
        Whether `compile_blocks` and `set_checkpointing` are wanted.
    """
    if compile:
        try:
            blocks(backbone)
        except ValueError as error:
            raise ValueError(f"compile works block by block, but {error}; leave compile out") from error
    if checkpointing:
        set_checkpointing(backbone)
        backbone.set_grad_checkpointing(False)  # type: ignore[operator]


def compile_blocks(backbone: nn.Module) -> None:
    """Compile each block in place by `torch.compile`: a whole compiled graph would hold all gradients at once."""
    for block in blocks(backbone):
        block.compile()


def set_checkpointing(backbone: nn.Module) -> None:
    """Compute each block's activations anew in backward; ValueError for a model that cannot."""
    try:
        backbone.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError) as error:  # timm's models assert
        raise ValueError(f"{name_of(backbone)} does not support checkpointing; leave checkpointing out") from error


def name_of(backbone: nn.Module) -> str:
    """Return a backbone's name for messages."""
    settings = getattr(backbone, "pretrained_cfg", None) or {}
    known = settings.get("architecture")
    return f"backbone {known!r} ({type(backbone).__name__})" if known else type(backbone).__name__
