"""Checkpoints whose checksums are right and whose content is not: a sentence, never a write outside a tensor."""

from __future__ import annotations

import io
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fewer_images import every_nth
from rich.console import Console

from mist_ext.config import Config, TuningOptions
from mist_ext.data import digits
from mist_ext.runs import benchmark, checkpoint
from mist_ext.runs.interruption import Checkpointer, Interrupted
from mist_ext.tuners.lora import LoRA
from mist_ext.tuners.optimizer_state import load_state

WEIGHT = "blocks.0.mlp.fc1.weight"


@pytest.fixture(autouse=True)
def few_digits(every_nth_digit: Callable[[int], None]) -> None:
    every_nth_digit(8)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of MIST that was stopped in the second task's tuning."""
    out = tmp_path_factory.mktemp("forged") / "run"
    calls = iter(range(1000))
    original = Checkpointer.save_if_due

    def save_if_due(self: Checkpointer) -> None:
        if next(calls) > 4:
            seed_run = self.state()["state"]
            if seed_run["task"] == 1 and seed_run["tuner"]["optimizers"]:
                self._stop = signal.SIGINT
        original(self)

    options: dict[str, Any] = {"tuner": ["mist"], "method": ["simplecil"], "seeds": [1], "epochs": 2, "batch_size": 16}
    few = every_nth(8)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(digits, "digits", lambda: few)
        patched.setattr(Checkpointer, "save_if_due", save_if_due)
        with pytest.raises(Interrupted):
            benchmark.run(Config(**options, freeze_rate=0.01, out=str(out)), Console(file=io.StringIO()))
    return out


@pytest.fixture
def forge(interrupted: Path, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], object]], Path]:
    """Make a copy of that run, in whose checkpoint a function has changed something."""

    def forged(change: Callable[[dict[str, Any]], object]) -> Path:
        out = shutil.copytree(interrupted, tmp_path / "run")
        state = checkpoint.load_latest(out / "checkpoint", print)
        assert state is not None
        assert state["state"]["task"] == 1
        change(state)
        checkpoint.remove(out / "checkpoint")
        checkpoint.save(out / "checkpoint", state)
        return out

    return forged


def tuner(state: dict[str, Any]) -> dict[str, Any]:
    return state["state"]["tuner"]


def beyond(state: dict[str, Any]) -> None:
    """The selection of a tensor, with its shape, sixteen times as large as the model's."""
    selection = tuner(state)["selection"]
    selection["shapes"][selection["names"].index(WEIGHT)][0] *= 16
    selection["index"][WEIGHT] = selection["index"][WEIGHT] * 16


def renamed(state: dict[str, Any]) -> None:
    """The selection of a tensor that the model does not have."""
    selection = tuner(state)["selection"]
    selection["names"][selection["names"].index(WEIGHT)] = "x"
    selection["index"]["x"] = selection["index"].pop(WEIGHT)


CASES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "selection": (beyond, f"'{WEIGHT}' has shape .512, 128., but was selected as"),
    "selected_name": (renamed, "names 'x', which is no parameter"),
    "index": (lambda s: tuner(s)["selection"]["index"][WEIGHT].add_(10**9), "expected positions from 0"),
    "strikes": (lambda s: tuner(s)["strikes"].update({WEIGHT: torch.zeros(5, dtype=torch.uint8)}), "5 entries"),
    "strikes_dtype": (lambda s: tuner(s)["strikes"].update({WEIGHT: tuner(s)["strikes"][WEIGHT].long()}), "int64"),
    "frozen": (lambda s: tuner(s)["frozen"].update({WEIGHT: torch.zeros(5, dtype=torch.uint8)}), "packed bits"),
    "frozen_name": (lambda s: tuner(s)["frozen"].update({"x": torch.zeros(5, dtype=torch.uint8)}), "x"),
    "steps": (lambda s: tuner(s).update(steps=-1), "Expected `int` >= 0"),
    "position": (lambda s: tuner(s).update(position="12"), "Expected `array`"),
    "tuned": (lambda s: tuner(s)["tuned"].update(kept=[float("inf")]), "Expected `float` <= 1"),
    "tuner": (lambda s: s["state"].update(tuner=[]), "TypeError"),
    "backbone": (lambda s: s["state"]["backbone"].update({WEIGHT: torch.zeros(512 * 512)}), "262144 entries"),
    "backbone_less": (lambda s: s["state"]["backbone"].pop(WEIGHT), f"KeyError: '{WEIGHT}'"),
    "backbone_dtype": (lambda s: s["state"]["backbone"].update({WEIGHT: torch.zeros(65536).int()}), "int32"),
    "task": (lambda s: s["state"].update(task=9), "task is 9, expected 0 to 2"),
    "learner": (lambda s: s["state"]["learners"]["simplecil"].update(counts=3), "counts"),
    "learner_sums": (lambda s: s["state"]["learners"]["simplecil"].update(sums=torch.zeros(1)), "sums"),
    "random": (lambda s: s["state"].update(random=torch.zeros(3)), "RNG state"),
    "seed_run": (lambda s: s.update(seed_run=3), "seed run 3"),
    "runs": (lambda s: s["runs"][0][1][0]["tasks"][0].update(accuracy_seen=1e308), "Expected `float` <= 100"),
    "experiments": (lambda s: s["runs"].clear(), "of the experiments"),
    "version": (lambda s: s.pop("version"), "written by mist_ext None"),
    "weight_gradients": (lambda s: s.update(weight_gradients="auto"), "weight_gradients is 'auto', expected"),
    "surplus": (lambda s: s.update(later=1), "unknown field `later`"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_forged_checkpoint_is_refused_with_the_reason(case: str, forge: Callable, every_nth_digit: Callable) -> None:
    change, message = CASES[case]
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        benchmark.resume(forge(change), Console(file=io.StringIO()), figures=False)


def test_a_run_goes_on_with_the_weight_gradients_that_auto_was_on_another_device(forge: Callable) -> None:
    def on_a_gpu(state: dict[str, Any]) -> None:
        state["weight_gradients"] = tuner(state)["weight_gradients"] = "dense"

    out = forge(on_a_gpu)
    benchmark.resume(out, Console(file=io.StringIO()), figures=False)
    (results,) = out.glob("*/results.json")
    assert json.loads(results.read_text())["config"]["tuner"]["weight_gradients"] == "dense"


def test_a_state_of_torch_s_optimiser_with_buffers_of_another_shape_is_refused() -> None:
    weights = [torch.nn.Parameter(torch.zeros(size)) for size in (3, 4)]
    optimizers = [torch.optim.SGD([weight], lr=0.1, momentum=0.9) for weight in weights]
    for weight, optimizer in zip(weights, optimizers, strict=True):
        weight.sum().backward()
        optimizer.step()
    load_state(optimizers[0], optimizers[0].state_dict())
    with pytest.raises(ValueError, match="'momentum_buffer' has not the shape of its parameter"):
        load_state(optimizers[0], optimizers[1].state_dict())
    with pytest.raises(ValueError, match="another learning rate"):
        load_state(optimizers[0], torch.optim.SGD([weights[0]], lr=1e308).state_dict())


def test_a_rank_of_lora_above_what_its_layers_can_have_is_refused_by_name() -> None:
    from mist_ext import backbones

    with pytest.raises(ValueError, match=r"lora_rank is 1000000, but 'blocks\.0\..*' has 128 inputs.*above 128; give"):
        LoRA.check(backbones.create("vit_nano", "none"), TuningOptions(lora_rank=1_000_000))
