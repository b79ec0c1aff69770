"""bench/throughput.py: whole steps, all ways of a table at one precision; and the names of models in all benchmarks."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import others
import pytest
import throughput
import torch
from models import model_name

BENCH = Path(__file__).parents[2] / "bench"


def run(*options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCH / "throughput.py", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_all_ways_of_a_table_have_one_precision_and_ours_needs_the_least_memory(tmp_path: Path) -> None:
    path = tmp_path / "throughput.json"
    options = ["--device", "cpu", "--model", "vit_ti", "--image-size", "64", "--batch", "4", "--rounds", "1"]
    done = run(*options, "--no-compile", "--precision", "fp32", "bf16", "--json", path)
    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    for precision in ("fp32", "bf16"):
        rows = {row["way"]: row for row in result["rows"] if row["precision"] == precision}
        assert list(rows) == ["published", "full", "published masks", "mist_ext", "sampled", "forward+backward"]
        for row in rows.values():
            assert row["images_per_s"] == pytest.approx(4e3 / row["ms"])
            assert row["x_forward_backward"] == pytest.approx(row["ms"] / rows["forward+backward"]["ms"])
        gradients = 4 * result["parameters"]
        for way in ("mist_ext", "sampled"):
            assert rows[way]["peak_step_bytes"] < rows["forward+backward"]["peak_step_bytes"] - gradients / 3
    titles = [line for line in done.stdout.splitlines() if line.startswith("vit_ti, batches of 4")]
    assert [title.split(", ")[2] for title in titles] == ["fp32", "bf16"]
    assert done.stdout.count("| mist_ext ") == 2


def test_every_way_computes_at_the_precision_of_its_table() -> None:
    model = throughput.transformer("vit_ti", 32)
    selection = throughput.Selection.random(model.named_parameters(), 0.05, 1)
    images, labels = torch.rand(2, 3, 32, 32), torch.zeros(1, dtype=torch.int64)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        for way in throughput.WAYS.values():
            prepared, seen = way(model, selection, precision, compile_blocks=False), []
            prepared.model.blocks[0].attn.qkv.register_forward_hook(lambda *call, seen=seen: seen.append(call[2].dtype))
            prepared.loss(images, labels)
            assert seen == [dtype]


@pytest.mark.parametrize("cores", [1.5, 0.05, None])
def test_a_busy_machine_is_told_of(cores, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(others.Others, "__exit__", lambda self, *_: setattr(self, "cores", cores))
    given = argparse.Namespace(way=["forward+backward"], rounds=1, batch=2, no_compile=True)
    (row,) = throughput.measured(given, throughput.transformer("vit_ti", 32), "fp32")
    assert row["others_cores"] == cores
    assert ("meanwhile other programs used 1.5 cores" in capsys.readouterr().err) == (cores == 1.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch", "3"], "--batch is 3, expected an even number of at least 2"),
        (["--rounds", "0"], "--rounds is 0, expected 1 or more"),
        (["--model", "vit_tt"], "unknown model 'vit_tt'; did you mean 'vit_ti'"),
        (["--model", "resnet18"], "resnet18 has not the parts of a vision transformer such as vit_b"),
        (["--model", "resnet18", "--image-size", "32"], "resnet18 has not the parts of a vision transformer"),
        (
            ["--model", "vit_ti", "--image-size", "60"],
            "--image-size is 60, expected a multiple of vit_ti's",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(options, message, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["throughput.py", "--device", "cpu", *options])
    with pytest.raises(SystemExit) as refused:
        throughput.main()
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_names_of_models_are_checked_with_suggestions() -> None:
    for name in ("vit_b", "vit_base_patch16_224", "vit_base_patch16_224.augreg_in21k"):
        assert model_name(name) == name
    with pytest.raises(argparse.ArgumentTypeError, match="unknown model 'vit_base_patch16_24'; did you"):
        model_name("vit_base_patch16_24")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [["bench/roofline.py"], ["-m", "pytest", "bench", "-p", "no:cacheprovider"]], ids=str
)
def test_other_benchmarks_refuse_an_unknown_model_too(command) -> None:
    done = subprocess.run(
        [sys.executable, *command, "--model", "vit_bb"], cwd=BENCH.parent, capture_output=True, text=True, timeout=120
    )
    assert done.returncode != 0
    assert "unknown model 'vit_bb'; did you mean 'vit_b'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("spoilt", [False, True])
def test_ways_that_part_are_not_timed(spoilt) -> None:
    model = throughput.transformer("vit_ti", 32)
    selection = throughput.Selection.random(model.named_parameters(), 0.05, 1)
    ways = {name: throughput.WAYS[name](model, selection, "fp32", False) for name in ("mist_ext", "sampled")}
    for way in ways.values():
        way.step(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1]))
    if spoilt:
        with torch.no_grad():
            ways["sampled"].model.blocks[3].mlp.fc1.weight[5, 7] += 1
        with pytest.raises(RuntimeError, match=r"'blocks.3.mlp.fc1.weight' moved .* mist_ext and sampled part by 1"):
            throughput.verify(model, ways, "fp32")
    else:
        throughput.verify(model, ways, "fp32")
