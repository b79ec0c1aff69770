"""The benchmark suite: roofline.py measures and writes what it promises, and figure and table are made from that."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import SMALL
from table import BEGIN, END, README, placed

BENCH = Path(__file__).parents[2] / "bench"
OPS = [
    *("accumulate_", "select", "drop_apply_sgd_", "SparseSGD.step", "drop_apply_adamw_", "SparseAdamW.step", "mask_"),
    "sampled_weight_grad_",
]
PROMISED = {
    "op", "model", "dtype", "device", "threads", "ms", "bytes", "gb_per_s", "share_of_stream", "x_eager",
    "flops", "tokens", "x_best_torch", "best_torch", "parameters", "tensors", "peak_extra_bytes", "variants",
}  # fmt: skip


def bench(*command: str | Path) -> subprocess.CompletedProcess[str]:
    script, *options = map(str, command)
    return subprocess.run(
        [sys.executable, BENCH / script, *options],
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The results of one round on ViT-Ti, the tables that were printed, and what was said meanwhile."""
    path = tmp_path_factory.mktemp("bench") / "result.json"
    options = ["--model", "vit_ti", "--threads", "1", "--rounds", "1", "--json", path]
    done = bench("roofline.py", *options, "--without", "compiled chain")  # which takes longest, in g++
    assert done.returncode == 0, done.stderr
    return path, done.stdout, done.stderr


@pytest.fixture
def rows(measured: tuple[Path, str, str]) -> dict[str, dict[str, Any]]:
    return {row["op"]: row for row in json.loads(measured[0].read_text())["rows"]}


@pytest.mark.slow
def test_roofline_has_a_row_for_each_op_with_all_that_it_promises(rows: dict[str, dict[str, Any]]) -> None:
    assert sorted(rows) == sorted([*OPS, "overhead"])
    for op in OPS:
        row = rows[op]
        assert row.keys() >= PROMISED
        assert row["parameters"] == 5_524_416  # vit_tiny_patch16_224 without its classifier
        assert row["ms"] == row["variants"][op] > 0
        assert row["gb_per_s"] == pytest.approx(row["bytes"] / row["ms"] / 1e6, rel=1e-2)
        assert row["x_eager"] == pytest.approx(row["variants"]["published"] / row["ms"], rel=1e-2, abs=1e-2)
        assert row["x_best_torch"] == pytest.approx(row["variants"][row["best_torch"]] / row["ms"], rel=1e-2, abs=1e-2)
    assert rows["overhead"]["tensors"] == 152


@pytest.mark.slow
def test_bytes_are_those_that_must_move(rows: dict[str, dict[str, Any]]) -> None:
    parameters = rows["accumulate_"]["parameters"]
    assert rows["accumulate_"]["bytes"] == 12 * parameters
    assert 4 * parameters < rows["mask_"]["bytes"] < 5 * parameters
    # Half a percent of the entries is kept; each is in a line of its own, or nearly, three times: 64 B instead of 4.
    assert 3 * 64 * 0.005 * parameters < rows["drop_apply_sgd_"]["bytes"] < 2 * 3 * 64 * 0.005 * parameters
    assert rows["drop_apply_adamw_"]["bytes"] > rows["drop_apply_sgd_"]["bytes"]


@pytest.mark.slow
def test_the_fastest_that_does_the_same_work_is_named(rows: dict[str, dict[str, Any]]) -> None:
    for op in OPS:
        row = rows[op]
        rivals = row["variants"].keys() - {*OPS, "a.add_(b)"}
        same = {name: row["variants"][name] for name in rivals if "alone" not in name}
        assert row["best_torch"] == min(same, key=same.__getitem__)
    assert "dense fused SGD alone" in rows["drop_apply_sgd_"]["variants"]


@pytest.mark.slow
def test_what_is_left_out_is_said(measured: tuple[Path, str, str], rows: dict[str, dict[str, Any]]) -> None:
    assert rows["accumulate_"]["skipped"] == {"compiled chain": "left out by choice"}
    assert "compiled chain is left out" in measured[2]


@pytest.mark.slow
def test_the_output_is_a_table_of_all_rows(measured: tuple[Path, str, str], rows: dict[str, dict[str, Any]]) -> None:
    lines = measured[1].splitlines()
    assert "vit_ti · 5.5 M parameters · fp32 · 1 threads" in lines
    drawn = {
        experiments[1]: experiments
        for line in lines
        if len(experiments := [experiment.strip() for experiment in line.split("|")]) == 10
    }
    assert {*OPS, "overhead"} < drawn.keys()
    for op in OPS:
        assert drawn[op][2] == f"{rows[op]['ms']:.3g}" or rows[op]["ms"] >= 100
        assert drawn[op][7] == rows[op]["best_torch"]
    assert len({len(line) for line in lines if line.startswith("|")}) == 2  # of either table, aligned


@pytest.mark.slow
def test_rows_are_added_to_a_file_of_the_same_machine_only(measured: tuple[Path, str, str], tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    result = json.loads(measured[0].read_text())
    path.write_text(json.dumps(result))
    options = ["--model", "vit_ti", "--threads", "1", "--rounds", "1", "--op", "overhead", "--json", path, "--add"]
    assert bench("roofline.py", *options).returncode == 0
    assert len(json.loads(path.read_text())["rows"]) == len(result["rows"])
    result["machine"]["cpu"] = "another"
    path.write_text(json.dumps(result))
    refused = bench("roofline.py", *options)
    assert refused.returncode == 1
    assert "measured with another cpu" in refused.stderr
    assert json.loads(path.read_text()) == result


def test_a_rival_that_computes_something_else_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from contests import SGD, Accumulate
    from contests.accumulate import Foreach
    from contests.indexed import IndexedSGD
    from problem import Problem

    problem = Problem(SMALL, torch.float32, torch.device("cpu"))
    Accumulate.verify_rival("foreach addcmul", problem)
    SGD.verify_rival("index_put", problem)
    monkeypatch.setattr(Foreach, "__call__", lambda self: None)
    monkeypatch.setattr(IndexedSGD, "update", lambda self, kept, grad, value: value.sub_(grad, alpha=self.problem.lr))
    with pytest.raises(AssertionError, match="accumulate_: foreach addcmul differs"):
        Accumulate.verify_rival("foreach addcmul", problem)
    with pytest.raises(AssertionError, match="drop_apply_sgd_: index_put differs"):
        SGD.verify_rival("index_put", problem)


def test_memory_of_a_call_is_what_it_takes_at_its_peak() -> None:
    import torch
    from memory import peak_extra_bytes

    from mist_ext.system import peak_memory

    if not peak_memory.resettable():
        pytest.skip("the system does not let the peak be reset")
    cpu, size = torch.device("cpu"), 32 * 2**20
    assert peak_extra_bytes(lambda: None, cpu) < size / 16
    assert peak_extra_bytes(lambda: torch.ones(size // 4) + 1, cpu) == pytest.approx(2 * size, rel=0.1)


@pytest.mark.slow
def test_a_figure_is_drawn(measured: tuple[Path, str, str], tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    done = bench("plot.py", measured[0], "--out", path)
    assert done.returncode == 0, done.stderr
    assert path.read_bytes().startswith(b"\x89PNG")
    nothing = bench("plot.py", measured[0], "--out", path, "--threads", "77")
    assert nothing.returncode == 1
    assert "there is no row of any of accumulate_" in nothing.stderr


@pytest.mark.slow
def test_the_table_is_written_and_checked(
    measured: tuple[Path, str, str], rows: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    options = [measured[0], "--model", "vit_ti", "--readme", readme]
    stale = bench("table.py", *options, "--check")
    assert stale.returncode == 1
    assert "run this with --write" in stale.stderr
    assert bench("table.py", *options, "--write").returncode == 0
    assert bench("table.py", *options, "--check").returncode == 0
    text = readme.read_text()
    assert text.startswith(f"before\n{BEGIN}\n`vit_tiny_patch16_224`, 5.5 M fp32 parameters")
    assert f", numpy {np.__version__}.\n" in text  # whose partition is a rival
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert sum(line.startswith("| ") for line in text.splitlines()) == len(OPS) + 1
    every = bench("table.py", measured[0], "--all")
    assert every.stdout == text.partition(f"{BEGIN}\n")[2].partition(END)[0]
    unmeasured = bench("table.py", *options[:1], "--model", "vit_b")
    assert "vit_b fp32 was not measured; there are vit_ti fp32" in unmeasured.stderr


@pytest.mark.parametrize("readme", ["no mark", f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"])
def test_a_readme_without_its_marks_is_refused(readme: str) -> None:
    with pytest.raises(ValueError, match="bench:begin"):
        placed(readme, "table")


def test_the_readme_has_the_table_of_the_committed_results() -> None:
    done = bench("table.py", "--check", "--readme", README)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_input_pipeline_is_put_beside_the_backbone() -> None:
    options = ["--images", "12", "--batch", "4", "--rounds", "1", "--workers", "1", "--device", "cpu"]
    done = bench("input.py", *options, "--backbone", "vit_tiny_patch16_224")
    assert done.returncode == 0, done.stderr
    rates = dict(re.findall(r"^(.{18}) +([0-9.]+) images/s$", done.stdout, re.MULTILINE))
    named = ("decode", "training views", "evaluation views", "evaluation, kept", "second view", "tuning", "features")
    assert tuple(name.strip() for name in rates) == named
    assert all(float(rate) > 0 for rate in rates.values())
    times = float(rates["training views".ljust(18)]) / float(rates["tuning".ljust(18)])
    said = re.search(r"^training views come ([0-9.]+) x as fast as tuning takes them$", done.stdout, re.MULTILINE)
    assert said is not None
    assert float(said[1]) == pytest.approx(times, rel=0.05, abs=0.1)
