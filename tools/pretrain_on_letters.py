"""Pre-trains ``vit_nano`` on rendered Latin letters and writes ``vit_nano.safetensors`` (fp16).

    python tools/pretrain_on_letters.py

Data: upper- and lower-case Latin letters in the fonts of ``LATIN_FONTS``, distorted by ``mist_ext.data.distort``, every
image drawn anew; no digits and no other script. Supervised cross-entropy. The accuracy is measured on renderings whose
distortions were drawn separately; it is stored in the file's metadata.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from mist_ext.backbones import EMBEDDED, create
from mist_ext.data.distort import DRAWS, distort, soften
from mist_ext.data.fonts import LATIN_FONTS
from mist_ext.data.letters import CLASSES, STRENGTH, render_letters


def batch(ink: Tensor, labels: Tensor, generator: torch.Generator, strength: float = STRENGTH) -> Tensor:
    """Images float32 ``[len(labels), 3, 32, 32]`` in [0, 1] of random renderings of ``labels``."""
    rendering = torch.randint(ink.shape[1], labels.shape, generator=generator)
    draws = torch.rand(len(labels), DRAWS, generator=generator)
    return distort(ink[labels, rendering], soften(draws, strength)).to(torch.float32) / 255


@torch.inference_mode()
def accuracy(model: nn.Module, ink: Tensor, generator: torch.Generator, per_class: int) -> float:
    """Percent of ``per_class`` new images of every class that are recognised."""
    model.eval()
    labels = torch.arange(len(CLASSES)).repeat_interleave(per_class)
    right = 0
    for start in range(0, len(labels), 500):
        part = labels[start : start + 500]
        right += int((model(batch(ink, part, generator)).argmax(dim=1) == part).sum())
    model.train()
    return 100 * right / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description="Pre-train vit_nano on rendered Latin letters.")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=EMBEDDED["vit_nano"].weights)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    drawn = torch.Generator().manual_seed(arguments.seed)
    held_out = 1_000_003 + arguments.seed
    ink = render_letters()
    backbone = create("vit_nano", weights="none")
    model = nn.Sequential(backbone, nn.Linear(128, len(CLASSES)))
    # Muon on the blocks' matrices: per step the loss falls much faster than with AdamW alone.
    matrices = [p for p in backbone.parameters() if p.ndim == 2]
    others = [p for p in backbone.parameters() if p.ndim != 2]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([*others, *model[1].parameters()], betas=(0.9, 0.98), weight_decay=0.0),
    ]
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(
            optimizer, arguments.lr, total_steps=arguments.steps, pct_start=0.1, cycle_momentum=False
        )
        for optimizer in optimizers
    ]
    started = time.monotonic()
    for step in range(1, arguments.steps + 1):
        labels = torch.randint(len(CLASSES), (arguments.batch,), generator=drawn)
        # At full strength from the start the loss stays at chance for hundreds of steps.
        images = batch(ink, labels, drawn, STRENGTH * min(1.0, 0.3 + 1.4 * step / arguments.steps))
        loss = F.cross_entropy(model(images), labels, label_smoothing=0.05)
        model.zero_grad()
        loss.backward()
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        if step % 200 == 0:
            seen = accuracy(model, ink, torch.Generator().manual_seed(held_out), per_class=20)
            seconds = time.monotonic() - started
            print(f"step {step}  loss {loss:.3f}  held-out {seen:.1f} %  {seconds:.0f} s", flush=True)

    half = {name: tensor.to(torch.float16) for name, tensor in backbone.state_dict().items()}
    backbone.load_state_dict(half)  # the accuracy is that of the weights as they are shipped
    reached = accuracy(model, ink, torch.Generator().manual_seed(held_out), per_class=200)
    metadata = {
        "architecture": EMBEDDED["vit_nano"].description,
        "data": f"rendered Latin letters, {len(CLASSES)} classes, {len(LATIN_FONTS)} fonts",
        "distortion_strength": str(STRENGTH),
        "held_out_accuracy": f"{reached:.2f}",
        "images_seen": str(arguments.steps * arguments.batch),
    }
    save_file(half, arguments.out, metadata=metadata)
    print(f"held-out accuracy {reached:.2f} %, written to {arguments.out}")


if __name__ == "__main__":
    main()
