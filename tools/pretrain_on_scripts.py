"""Pre-trains ``vit_nano.scripts`` on rendered characters of many scripts and writes its weights (fp16).

    apt-get install fonts-noto-core fonts-noto-extra
    python tools/pretrain_on_scripts.py --state STATE.pt --log LOG.jsonl

Data: the characters of ``characters.py``, distorted by ``mist_ext.data.distort``, every image drawn anew. Supervised
cross-entropy. Every draw is keyed by its step, and the state is saved every ``--save-every`` steps, so the same command
goes on after an interruption, and the weights do not depend on it. The log has the loss, and the accuracy on
renderings whose distortions were drawn separately.

Muon for the blocks' matrices, AdamW for the rest. Of a ViT 192 wide the loss was 4.24 after 160 steps of 256 images,
with AdamW for everything 5.32 (learning rate 2e-3 both, chance 7.55).
"""

from __future__ import annotations

import argparse
import io
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from characters import choose, render_classes
from safetensors.torch import save_file
from timm.optim import muon
from torch import Tensor, nn

from mist_ext.backbones import EMBEDDED
from mist_ext.data.distort import DRAWS, distort, soften
from mist_ext.seeding import draw_seed
from mist_ext.system.files import write_atomically

BACKBONE = EMBEDDED["vit_nano.scripts"]
STRENGTH = 0.75  # of the characters' distortion

# In bfloat16, which many CPUs emulate, orthogonalising takes longer than all the rest of a step.
muon.zeropower_via_newtonschulz = partial(muon.zeropower_via_newtonschulz, dtype=torch.float32)


def images_of(bitmaps: Tensor, labels: Tensor, seed: int, strength: float = STRENGTH) -> Tensor:
    """Return images float32 ``[n, 3, 32, 32]`` in [0, 1] of random typefaces of the labels, keyed by the seed."""
    drawing = torch.Generator().manual_seed(seed)
    typeface = torch.randint(bitmaps.shape[1], labels.shape, generator=drawing)
    draws = torch.rand(len(labels), DRAWS, generator=drawing)
    ink = bitmaps[labels, typeface].float() / 255
    return distort(ink, soften(draws, strength)).float() / 255


@torch.inference_mode()
def accuracy(model: nn.Module, bitmaps: Tensor, seed: int, per_class: int) -> float:
    """Return the percentage of new images that are recognised, ``per_class`` of every class."""
    model.eval()
    labels = torch.arange(len(bitmaps)).repeat(per_class)
    right = 0
    for number, part in enumerate(labels.split(512)):
        images = images_of(bitmaps, part, draw_seed(seed, "held out", number))
        right += int((model(images).argmax(dim=1) == part).sum())
    model.train()
    return 100 * right / len(labels)


class Training:
    """The model, its optimiser and its schedule, as one state that is saved and goes on."""

    def __init__(self, classes: int, steps: int, lr: float, seed: int) -> None:
        torch.manual_seed(seed)
        self.backbone = BACKBONE.create()
        self.model = nn.Sequential(self.backbone, nn.Linear(BACKBONE.width, classes))
        blocks = [p for name, p in self.backbone.named_parameters() if name.startswith("blocks.") and p.ndim == 2]
        inside = {id(p) for p in blocks}
        others = [p for p in self.model.parameters() if id(p) not in inside]
        self.optimizer = muon.Muon(
            [
                {"params": blocks, "use_muon": True, "weight_decay": 0.05},
                {"params": [p for p in others if p.ndim >= 2], "use_fallback": True, "weight_decay": 0.05},
                {"params": [p for p in others if p.ndim < 2], "use_fallback": True, "weight_decay": 0.0},
            ],
            lr,
            nesterov=True,
            betas=(0.9, 0.95),  # of AdamW, which the others fall back to
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, lr, total_steps=steps, pct_start=0.05, cycle_momentum=False
        )
        self.steps_done = 0

    def step(self, images: Tensor, labels: Tensor) -> float:
        """Take one step; return its loss."""
        loss = F.cross_entropy(self.model(images), labels, label_smoothing=0.05)
        self.model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.steps_done += 1
        return loss.item()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training goes on from."""
        return {
            "steps_done": self.steps_done,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same number of classes and steps."""
        if state["schedule"]["total_steps"] != self.schedule.total_steps:
            raise SystemExit(
                f"the state is of a training of {state['schedule']['total_steps']} steps, not of "
                f"{self.schedule.total_steps}: give --steps as before, or another --state"
            )
        self.steps_done = state["steps_done"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Pre-train vit_nano.scripts on rendered characters of many scripts.")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="of torch; all cores if left out")
    parser.add_argument("--state", type=Path, required=True, help="where training is saved, and goes on from")
    parser.add_argument("--log", type=Path, required=True, help="JSON lines are added to it")
    parser.add_argument("--save-every", type=int, default=100, help="steps")
    parser.add_argument("--out", type=Path, default=BACKBONE.weights)
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)

    bitmaps = render_classes(choose())
    training = Training(len(bitmaps), options.steps, options.lr, options.seed)
    if options.state.is_file():
        training.load_state_dict(torch.load(options.state, weights_only=True))
        print(f"going on after step {training.steps_done}", flush=True)
    total, losses, since = len(bitmaps), [], time.monotonic()
    while training.steps_done < options.steps:
        seed = draw_seed(options.seed, "pre-training", training.steps_done)
        labels = torch.randint(total, (options.batch,), generator=torch.Generator().manual_seed(seed))
        # At full strength from the start the loss stays at chance for hundreds of steps.
        strength = STRENGTH * min(1.0, 0.2 + 4 * training.steps_done / options.steps)
        losses.append(training.step(images_of(bitmaps, labels, seed, strength), labels))
        if training.steps_done % options.save_every == 0 or training.steps_done == options.steps:
            rate = len(losses) * options.batch / (time.monotonic() - since)
            seen = accuracy(training.model, bitmaps, options.seed, per_class=1)
            line = {"step": training.steps_done, "loss": sum(losses) / len(losses), "held_out_accuracy": seen}
            hours = (options.steps - training.steps_done) * options.batch / rate / 3600
            print(f"{line}  {rate:.0f} images/s  {hours:.1f} h left", flush=True)
            content = io.BytesIO()
            torch.save(training.state_dict(), content)
            write_atomically(options.state, content.getvalue())
            with options.log.open("a") as log:
                log.write(json.dumps(line) + "\n")
            losses, since = [], time.monotonic()

    half = {name: tensor.to(torch.float16) for name, tensor in training.backbone.state_dict().items()}
    training.backbone.load_state_dict(half)  # the accuracy is that of the weights as they are shipped
    reached = accuracy(training.model, bitmaps, options.seed, per_class=5)
    metadata = {
        "architecture": BACKBONE.description,
        "data": f"rendered characters of many scripts, {total} classes, Noto typefaces",
        "distortion_strength": str(STRENGTH),
        "held_out_accuracy": f"{reached:.2f}",
        "images_seen": str(options.steps * options.batch),
    }
    save_file(half, options.out, metadata=metadata)
    print(f"held-out accuracy {reached:.2f} %, written to {options.out}")


if __name__ == "__main__":
    main()
