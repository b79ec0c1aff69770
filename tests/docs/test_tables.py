"""Every table of measurements on a page is that of its file in bench/results."""

from __future__ import annotations

import pytest
from pages import (
    DELTAS,
    KERNELS,
    PROCESSES,
    README,
    exchanged,
    experiments,
    read,
    rows_of,
    spread,
    table_below,
)

from mist_ext.report.table import DASH


@pytest.mark.parametrize(
    ("data", "sweep"), [("digits", "embedded"), ("glyphs", "embedded"), ("renditions", "renditions")]
)
def test_the_tables_of_tuners_are_their_sweeps(data: str, sweep: str) -> None:
    shown = {(method, tuner): cells for method, tuner, *cells in table_below(f"**{data}**, ")[1:]}
    rows = [row for row in rows_of(sweep) if row["axes"]["data"] == data]
    assert len(rows) == len(shown) == {"embedded": 8, "renditions": 6}[sweep]
    for row in rows:
        measured = [row[name] for name in ("average_accuracy", "last_accuracy", "forgetting")]
        expected = [f"{spread['mean']:.2f} ± {spread['std']:.2f}" for spread in measured]
        gain, changed = row["gain_over_none"], row["changed_fraction"]
        expected += [f"{gain['mean']:+.2f} ± {gain['std']:.2f}", f"{100 * changed:.2f} %"] if gain else [DASH, DASH]
        assert shown[row["method"], row["axes"]["tuner"]] == expected


def test_the_table_of_the_readme_is_a_part_of_that() -> None:
    shown = table_below("**renditions**, ", README)[1:]
    assert shown == [cells for method, *cells in table_below("**renditions**, ")[1:] if method == "ranpac"]


def test_the_table_of_every_tuner_before_every_method_is_its_sweep() -> None:
    (_, *tuners), *lines = table_below("### Seven tuners before nine methods")
    shown = {(method, tuner): cell for method, *cells in lines for tuner, cell in zip(tuners, cells, strict=True)}
    measured = {
        (row["method"], row["axes"]["tuner"]): f"{row['last_accuracy']['mean']:.2f}" for row in rows_of("digits")
    }
    assert shown == measured


def test_the_table_of_what_tuning_does_to_the_backbone_is_its_file() -> None:
    shown = {tuner: cells for tuner, *cells in table_below("### What tuning does to the backbone")[1:]}
    for experiment in experiments("digits-diagnosis"):
        change = experiment["backbone_change"]
        last = experiment["last_accuracy"]
        assert shown.pop(experiment["tuner"]) == [
            spread(change["drift"], 4),
            spread(change["letters"]),
            spread(change["plasticity"]),
            f"{last['mean']:.2f} ± {last['std']:.2f}",
        ]
    assert not shown


def test_the_table_of_the_methods_that_train_is_its_file() -> None:
    shown = {method: cells for method, _, *cells in table_below("### The methods that train")[1:]}
    found = {experiment["method"]: experiment for experiment in experiments("glyphs-methods")}
    best = found["simplecil"]["last_accuracy"]["mean"]
    for method, experiment in found.items():
        average, last = experiment["average_accuracy"]["mean"], experiment["last_accuracy"]["mean"]
        below = f"{best - last:.2f}" if method != "simplecil" else ""
        assert shown.pop(method) == [f"{average:.2f}", f"{last:.2f}", below]
    assert not shown


def test_the_table_of_exchanges_is_its_files() -> None:
    ways = ("dense fp32", "dense bf16", "sparse fp32", "sparse bf16")
    for way, (_, *shown) in zip(ways, table_below("## What crosses the network", PROCESSES)[1:], strict=True):
        two, four = exchanged(2, way), exchanged(4, way)
        times = [f"{result['exchange_ms']:.1f} ms" for result in (two, four)]
        assert shown == [f"{two['bytes'] / 1e6:.2f}", *times]


MODELS = {"vit_ti": "ViT-Ti", "vit_s": "ViT-S", "vit_b": "ViT-B", "vit_l": "ViT-L", "vit_g": "ViT-g"}


def test_the_table_of_sampled_weight_gradients_is_its_file() -> None:
    shown = table_below("### What sampling is worth", KERNELS)[1:]
    assert shown == [
        [
            MODELS[row["model"]],
            f"{row['tokens']:,}",
            row["dtype"],
            f"{row['ms']:.2f}",
            f"{row['variants']['dense alone']:.1f}, {row['variants']['dense alone'] / row['ms']:.1f} x",
            f"{row['x_best_torch']:.1f} x, {row['best_torch']}",
        ]
        for row in read("weight-gradients-epyc-2-cores.json")["rows"]
    ]


def test_the_table_of_what_sampling_changes_is_its_sweep() -> None:
    rows = {
        (row["axes"]["data"], row["method"], row["axes"]["weight_gradients"]): row
        for row in rows_of("weight_gradients")
    }
    shown = table_below("### What sampling changes", KERNELS)[1:]
    assert {tuple(cells[:3]) for cells in shown} == rows.keys()
    for data, method, kind, *cells in shown:
        row = rows[data, method, kind]
        measured = [row[name] for name in ("average_accuracy", "last_accuracy", "forgetting")]
        assert cells == [f"{spread['mean']:.2f} ± {spread['std']:.2f}" for spread in measured]
    for data, method, images in (
        ("digits", "simplecil", []),
        ("digits", "ranpac", []),
        ("glyphs", "simplecil", [2]),
        ("glyphs", "ranpac", [1]),
    ):
        sampled, dense = (rows[data, method, kind]["by_seed"]["last_accuracy"] for kind in ("sampled", "dense"))
        tested = {"digits": 539, "glyphs": 2000}[data]
        apart = [round(abs(sampled[seed] - dense[seed]) / 100 * tested) for seed in sampled]
        assert [count for count in apart if count] == images


def test_the_table_of_whole_steps_is_its_file() -> None:
    rows = {row["way"]: row for row in read("steps-epyc-2-cores.json")["rows"]}
    shown = table_below("### A whole step", KERNELS)[1:]
    assert shown == [
        [
            f"`{name}`",
            f"{row['ms']:,.0f}",
            f"{row['ms'] / rows['sampled']['ms']:.2f} x",
            f"{row['peak_step_bytes'] / 1e6:,.0f}",
        ]
        for name, row in rows.items()
    ]


def test_the_tables_of_deltas_are_their_file() -> None:
    found = read("deltas/epyc-2-cores.json")
    whole = found["bytes"].pop("checkpoint")
    sizes = table_below("### How small", DELTAS)[1:]
    assert sizes == [
        [name, f"{size / 1e6:.2f}", f"{100 * size / whole:.2f} %"] for name, size in found["bytes"].items()
    ]
    times = table_below("### How fast", DELTAS)[1:]
    ours = found["ms"]["swap"]
    assert times == [[name, f"{ms:,.1f}", f"{ms / ours:.1f} x"] for name, ms in found["ms"].items()]
