"""What the benchmark of exchanges counts, and what the model makes of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import scaling
from forked import Forked
from processes import environment, free_port

BENCH = Path(scaling.__file__).parent
H200 = scaling.Network(450e9, 50e9, 2e-6, 10e-6)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Of two processes with a small model."""
    file = tmp_path_factory.mktemp("bench") / "gloo.json"
    small = ["--model", "vit_tiny_patch16_224", "--image-size", "32", "--batch", "4", "--rounds", "1"]
    command, port = [BENCH / "distributed.py", *small, "--device", "cpu", "--json", file], free_port()
    ranks = [Forked(*command, env=os.environ | environment(rank, 2, port)) for rank in range(2)]
    said = [rank.communicate(timeout=300) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    assert "| sparse fp32 in backward |" in said[0][0]
    return json.loads(file.read_text())


@pytest.mark.slow
def test_a_sparse_exchange_is_half_a_percent_of_a_dense_one(result: dict) -> None:
    sizes = {row["way"]: row["bytes"] for row in result["rows"]}
    assert sizes["dense fp32"] == 4 * result["parameters"]
    assert sizes["dense bf16"] == 2 * result["parameters"]
    other = result["parameters"] - result["matrix_parameters"]  # of which a tenth is kept, of matrices half a percent
    assert sizes["sparse fp32"] == pytest.approx(4 * (0.005 * result["matrix_parameters"] + 0.1 * other), rel=0.03)
    assert sizes["sparse bf16"] * 2 == sizes["sparse fp32"] == sizes["sparse fp32 in backward"]


@pytest.mark.slow
def test_every_way_was_timed(result: dict) -> None:
    assert {row["way"] for row in result["rows"] if row["step_ms"] > 0} == {row["way"] for row in result["rows"]}
    assert all(row["exchange_ms"] > 0 for row in result["rows"] if row["way"] != "alone")


def test_the_model_of_an_exchange_within_one_node_is_bytes_over_bandwidth() -> None:
    assert H200.seconds(450e9, 8) == pytest.approx(2 * 7 / 8 + 28e-6)
    assert H200.seconds(450e9, 16) == pytest.approx(2 * 7 / 8 + 450e9 / 8 / 50e9 + 28e-6 + 20e-6)


@pytest.mark.slow
def test_the_model_shows_the_exchange_alone_where_a_cpu_was_measured(result: dict) -> None:
    on_cpu = scaling.curves(result, H200)
    assert on_cpu["dense fp32"][0] == pytest.approx(1e3 * H200.seconds(4 * result["parameters"], 8))
    rows = {row["way"]: row | {"hidden": 0.5} for row in result["rows"]}
    on_gpu = scaling.curves(result | {"backend": "nccl", "rows": list(rows.values())}, H200)
    for name, times in on_gpu.items():
        assert times == pytest.approx([rows["alone"]["step_ms"] + 0.5 * exchange for exchange in on_cpu[name]])


@pytest.mark.slow
def test_the_figure_is_a_picture_and_the_table_has_a_line_for_each_size(result: dict) -> None:
    assert scaling.figure(result, H200).startswith(b"\x89PNG")
    assert len(scaling.table(result, H200).splitlines()) == 2 + len(scaling.SIZES)
