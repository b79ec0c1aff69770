"""Runs that accelerate and transformers save and go on with, where they are installed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from small_networks import assert_same, network, selected
from torch import Tensor, nn

from mist_ext.optim import InBackward, SampledGradients
from mist_ext.optim.kept_gradient import KeptGradient


def loss_of(model: nn.Module, step: int) -> Tensor:
    drawing = torch.Generator().manual_seed(step)
    device = next(model.parameters()).device
    return model(torch.randn(5, 12, generator=drawing).to(device)).square().mean()


def test_accelerate_saves_and_goes_on(kind, tmp_path: Path, same_bits) -> None:
    accelerate = pytest.importorskip("accelerate")

    def begun() -> tuple[Any, Any, Any]:
        accelerator = accelerate.Accelerator(cpu=True)
        model = network()
        optimizer = kind.sparse(model.named_parameters(), selected(model), lr=0.1, keep=0.5)
        return accelerator, *accelerator.prepare(model, optimizer)

    def go_on(accelerator: Any, model: nn.Module, optimizer: Any, steps: range) -> None:
        for step in steps:
            accelerator.backward(loss_of(model, step))
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    expected = begun()
    go_on(*expected, range(6))
    first = begun()
    go_on(*first, range(3))
    first[0].save_state(str(tmp_path / "state"))
    second = begun()
    for _ in range(2):
        second[0].load_state(str(tmp_path / "state"))
    go_on(*second, range(3, 6))
    assert_same(second[1], expected[1], same_bits)
    assert second[2].optimizer.steps == 6


def test_backward_updates_work_through_accelerate_s_wrapper(kind, same_bits) -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    models = [network(), network()]
    plain, wrapped = (kind.sparse(m.named_parameters(), selected(m), lr=0.1, keep=0.5) for m in models)
    wrapped = accelerator.prepare(wrapped)
    with InBackward(wrapped):
        for step in range(3):
            accelerator.backward(loss_of(models[1], step))
            with pytest.raises(RuntimeError, match="was used by an in-backward step"):
                accelerator.clip_grad_norm_(models[1].parameters(), 1.0)
            wrapped.step()
            loss_of(models[0], step).backward()
            plain.step()
            plain.zero_grad()
    assert_same(*models, same_bits)


def test_sampled_gradients_are_accumulated_and_clipped_through_accelerate_s_wrapper(kind) -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    models = [network(), network()]
    plain, wrapped = (kind.sparse(m.named_parameters(), selected(m), lr=0.1, keep=0.5) for m in models)
    model, wrapped = accelerator.prepare(models[1], wrapped)
    with SampledGradients(wrapped, model):
        for step in range(4):
            with accelerator.accumulate(model):
                accelerator.backward(loss_of(model, step))
                if accelerator.sync_gradients:
                    assert type(model[0].weight.grad) is KeptGradient
                    accelerator.clip_grad_norm_(model.parameters(), 1e6)
                wrapped.step()
                wrapped.zero_grad()
            (loss_of(models[0], step) / 2).backward()
            if step % 2:
                plain.step()
                plain.zero_grad()
    assert plain.steps == wrapped.optimizer.steps == 2
    for p, q in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-4)


class Regression(nn.Module):
    """What transformers' Trainer takes: a forward that returns a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.network(x) - labels).square().mean()}


def test_transformers_trainer_resumes_from_its_checkpoint(kind, tmp_path: Path, same_bits) -> None:
    transformers = pytest.importorskip("transformers")
    drawing = torch.Generator().manual_seed(0)
    rows = [{"x": torch.randn(12, generator=drawing), "labels": torch.randn(6, generator=drawing)} for _ in range(24)]

    def trainer(folder: str, steps: int) -> Any:
        model = Regression()
        optimizer = kind.sparse(model.parameters(), selected(model), lr=0.1, keep=0.5, model=model)
        settings = transformers.TrainingArguments(
            output_dir=str(tmp_path / folder), max_steps=steps, save_steps=3, per_device_train_batch_size=4,
            report_to="none", use_cpu=True, disable_tqdm=True, seed=1, lr_scheduler_type="constant",
        )  # fmt: skip
        constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        return transformers.Trainer(model, settings, train_dataset=rows, optimizers=(optimizer, constant))

    whole = trainer("whole", 6)
    whole.train()
    trainer("parts", 3).train()
    resumed = trainer("parts", 6)
    before = copy.deepcopy(resumed.model.state_dict())
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 6
    assert_same(resumed.model, whole.model, same_bits)
    assert not torch.equal(before["network.0.weight"], resumed.model.network[0].weight)
