"""Every number on a page is that of a file in bench/results, or stands in ``DEFINED``; another one fails.

Tables of measurements are compared in ``test_tables.py``.
"""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT, exchanged, experiments, read, rows_below, rows_of


def flat(text: str) -> str:
    return " ".join(text.split())


def claims() -> dict[str, list[str]]:
    """What the prose says of measurements, as their files have it."""
    matrices = read("embedded/glyphs-simplecil-matrices.json")

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    def new(tuner: str) -> float:  # accuracy on a task's classes right after it
        return mean([mean([row[-1] for row in matrix]) for matrix in matrices[tuner].values()])

    def first(tuner: str) -> float:  # of the first task, at the end
        return mean([matrix[-1][0] for matrix in matrices[tuner].values()])

    trials = [trial for trial in read("settings.json")["tuners"] if trial["data"] == "glyphs"]
    (frozen,) = (trial["last_accuracy"][0] for trial in trials if trial["tuner"] == "none")
    below = [frozen - trial["last_accuracy"][0] for trial in trials if trial["tuner"] == "mist"]

    others = {e["method"]: e["last_accuracy"]["mean"] for e in experiments("glyphs-other-methods")}
    aper = [value for method, value in others.items() if method.startswith("aper_")]
    ranpac = ", ".join(f"{others[f'ranpac_{kind}']:.2f}" for kind in ("adapter", "ssf", "vpt_deep"))

    def gain(sweep: str, method: str = "simplecil", **axes: Any) -> tuple[float, float]:
        (row,) = (r for r in rows_of(sweep) if r["method"] == method and axes.items() <= r["axes"].items())
        return row["gain_over_none"]["mean"], row["gain_over_none"]["std"]

    def signed(value: tuple[float, float]) -> str:
        return f"({value[0]:+.2f} ± {value[1]:.2f})"

    half, everything = (-gain("drop_rate", "ranpac", tuner="mist", keep=keep)[0] for keep in (0.5, 1.0))
    best = max((0.01, 0.05, 0.1, 0.5, 1.0), key=lambda keep: gain("drop_rate", tuner="mist", keep=keep)[0])
    assert best == 0.1
    digits = read("digits/sweep.json")

    timed = {(row["op"], row["model"], row["dtype"], row["threads"]): row for row in read("epyc-2-cores.json")["rows"]}
    select = {model: timed["select", f"vit_{model}", "fp32", 2]["x_best_torch"] for model in ("ti", "s", "b", "l")}
    score = [row["x_best_torch"] for key, row in timed.items() if key[0] == "accumulate_" and key[2] == "fp32"]

    sparse, dense = exchanged(2, "sparse fp32"), exchanged(2, "dense fp32")
    half_sparse = exchanged(2, "sparse bf16")
    gains, earlier, again = (
        {
            (row["method"], row["axes"]["tuner"]): f"{row['gain_over_none']['mean']:.2f}"
            for row in read(f"renditions/{name}.json")["rows"]
            if row["gain_over_none"]
        }
        for name in ("sweep", "forty_images", "again")
    )
    assert all(row["p"] < 0.01 for row in read("renditions/again.json")["rows"] if row["gain_over_none"])
    apart_again = {
        (row["method"], row["axes"]["tuner"]): f"{row['gain_over_none']['std']:.2f}"
        for row in read("renditions/again.json")["rows"]
        if row["gain_over_none"]
    }
    ended = {
        (row["method"], row["axes"]["tuner"]): row["by_seed"]["last_accuracy"]
        for name in ("sweep", "budget")
        for row in read(f"renditions/{name}.json")["rows"]
    }
    budget = []
    for method in ("simplecil", "ranpac"):
        mist, *others_of_budget = (ended[method, tuner] for tuner in ("mist", "random", "magnitude", "none"))
        apart = [[mist[seed] - other[seed] for seed in mist] for other in others_of_budget]
        above = [f"{statistics.mean(each):+.2f} ± {statistics.stdev(each):.2f}" for each in apart[:2]]
        over_none = [statistics.mean(apart[2]) - statistics.mean(each) for each in ([0.0], *apart[:2])]
        budget.append(f"| {method} | {' | '.join([f'{gain:+.2f}' for gain in over_none] + above)} |")
    peaks = {
        row["way"]: f"{row['peak_step_bytes'] / 1e6:,.0f} and {row['peak_tensor_bytes'] / 1e6:,.0f} MB"
        for row in read("step-peaks-epyc-2-cores.json")["rows"]
    }
    steps = {row["way"]: row["ms"] for row in read("steps-epyc-2-cores.json")["rows"]}
    runs = read("weight_gradients/seconds.json")["runs"]

    def seconds(data: str, what: str) -> str:
        of_kinds = (
            [run[what] for run in runs if (run["data"], run["weight_gradients"]) == (data, kind)]
            for kind in ("sampled", "dense")
        )
        return "{:.1f} instead of {:.1f}".format(*map(statistics.median, of_kinds))

    swap = read("deltas/epyc-2-cores.json")
    lines, moved = swap["traffic"]["lines"] / 1e6, swap["traffic"]["moved by a swap"] / 1e6
    return {
        "deltas": [
            f"{lines:.0f} of the model's {swap['bytes']['checkpoint'] / 1e6:.0f} MB",
            f"these are {moved:.0f} MB",
            f"cannot take much less than {swap['bound_ms']:.1f} ms; it takes {swap['ms']['swap']:.1f} ms",
        ],
        "README": [
            f"takes {steps['full'] / steps['sampled']:.2f} times as long by full tuning as with `SampledGradients`",
            f"gains {gains['ranpac', 'mist']} points before RanPAC and {gains['simplecil', 'mist']} before SimpleCIL, "
            f"full tuning {gains['ranpac', 'full']} and {gains['simplecil', 'full']}.",
        ],
        "benchmarks": [
            f"new classes reach {new('none'):.1f} % frozen, {new('mist'):.1f} % with MIST, "
            f"{new('full'):.1f} % with full tuning",
            f"the first task ends at {first('none'):.1f}, {first('mist'):.1f} and {first('full'):.1f} %",
            f"between {max(below):.1f} and {min(below):.1f} points below the frozen backbone's {frozen:.1f} % there",
            f"`aper_*` end at {min(aper):.2f} to {max(aper):.2f}, `slca` at {others['slca']:.2f}, `fecam` at "
            f"{others['fecam']:.2f}, `ranpac` at {others['ranpac']:.2f}, `ranpac_adapter`, `ranpac_ssf`, "
            f"`ranpac_vpt_deep` at {ranpac}.",
            f"SimpleCIL {signed(gain('selection_rate', tuner='mist', rate=0.01))}",
            f"half of the weights {signed(gain('selection_rate', tuner='random', rate=0.5))}",
            f"a tenth is best for SimpleCIL {signed(gain('drop_rate', tuner='mist', keep=0.1))}",
            f"costs RanPAC {half:.0f} and {everything:.0f} points",
            f"{digits['experiments']} experiments from {digits['runs']} runs",
            f"MIST gained {earlier['simplecil', 'mist']} and {earlier['ranpac', 'mist']} points there, full tuning "
            f"{earlier['simplecil', 'full']} and {earlier['ranpac', 'full']}",
            f"MIST gains {again['simplecil', 'mist']} ± {apart_again['simplecil', 'mist']} points before SimpleCIL and "
            f"{again['ranpac', 'mist']} ± {apart_again['ranpac', 'mist']} before RanPAC, full tuning "
            f"{again['simplecil', 'full']} ± {apart_again['simplecil', 'full']} and {again['ranpac', 'full']} ± "
            f"{apart_again['ranpac', 'full']}, all with p < 0.01",
            *budget,
        ],
        "kernels": [
            f"tuning took {seconds('digits', 'tune')} s on `digits` and {seconds('renditions', 'tune')} s in the main",
            f"from start to exit the runs took {seconds('digits', 'run')} and {seconds('renditions', 'run')} s",
            f"are {peaks['sampled']} with `sampled`, {peaks['mist_ext']} with `mist_ext`",
            f"it has {min(score):.1f} to {max(score):.1f} of its speed",
            f"`select` is {select['ti']:.1f} (ViT-Ti), {select['s']:.1f} (S), {select['b']:.1f} (B) and "
            f"{select['l']:.1f} (L) times faster, on one {timed['select', 'vit_b', 'fp32', 1]['x_best_torch']:.1f} (B)",
        ],
        "processes": [
            f"that is {sparse['bytes'] / 1e6:.1f} MB a step instead of {dense['bytes'] / 1e6:.0f} "
            f"(`--wire bf16`: {half_sparse['bytes'] / 1e6:.1f})"
        ],
    }


@pytest.mark.parametrize("page", claims())
def test_what_the_prose_says_of_measurements_is_what_their_files_say(page: str) -> None:
    text = flat((ROOT / ("README.md" if page == "README" else f"docs/{page}.md")).read_text(encoding="utf-8"))
    for claim in claims()[page]:
        assert claim in text


# Numbers that are no results: what a thing is, what was chosen or is aimed at.
DEFINED = [
    r"arXiv \d+\.\d+|\[\d{4}\.\d{5}",  # papers
    r"## \d\.|(?<= )[1-3]\. (?=[ta\*])",  # sections and lists
    r"\d+ tasks of \d+|2, 3 and 4 processes|\d+ (seeds|images|processes|classes)|Rank 0",
    r"\d+ (non-Latin characters|Hebrew, Georgian|Thai and Armenian)",  # tests/data
    r"1,894 letters of over 80 scripts",  # tests/tools
    r"20 letters of|30 other letters|9 epochs in batches of 64 \(full tuning: 10\)|5 % of the weights by",  # one_factor
    r"number from 0,|exit status is 1|pull requests? \d+( and \d+)?",
    r"its first 3 seeds",
    r"5 % (selected, 10 % of it kept|\(RanPAC\))|MIST keeps, 0\.5 %|0\.5 % \(SimpleCIL\)|\| 100 %",  # the ablations
    r"top 5 %|drops 90 %|0\.5 % of the weights|dynamics and 5 %|chosen for (5 %|0\.1)|rate of 5 %|here 10 % do",
    r"from 0 to 1\.|(exits|exit) with 1|\(1: nothing moved\)|from 1 as",
    r"16-bit|16 bits|\| (8|16) \||(is|the) 8 bytes|0\.4 bytes|takes 4\b|4 bytes more",  # test_state_bytes.py
    r"1,797 handwritten|539 test|Letters|1\.2 (M|million) parameters|phase 1|ViT-B/16",
    r"Python 3\.10 or newer, torch 2\.11|since 2\.0|8\.0, 9\.0, 10\.0 and 12\.0",  # versions and architectures
    r"within 9 minutes|800 bytes apart|20,000 calls|draws 20 times|agree to 1e-6",  # limits that tests assert
    r"EPYC, 2 threads,( avx512,)? torch 2\.14\.1|1,576 tokens|5 % of each matrix",  # how bench/results were measured
    r"multiples of 64|64 products|within 1e-6 of float64",  # csrc/token_sums.h, test_sampled_weight_grad.py
    r"1\.2 x faster than the best|that 80 GB score",  # what a GPU is to reach, as the next
    r"90 % of the rate|\d+(\.\d+)? x +(the|published|its|index|forward|and|time)",  # what a GPU is to reach
    r"NVLink 450 GB/s, network 50 GB/s|8 to 1,024 GPUs",  # what bench/scaling.py assumes
]


@pytest.mark.parametrize("path", ["README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))])
def test_no_number_of_a_page_is_unchecked(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"<!-- bench:begin -->.*<!-- bench:end -->", "", text, flags=re.DOTALL)  # bench/table.py --check
    for heading in (
        "**digits**",
        "**glyphs**",
        "**renditions**",
        "### What the shift",
        "### What tuning",
        "### The methods that",
        "### Seven",
        "## One factor",
        "### How many steps",
        "## What crosses",
        "### What sampling is",
        "### What sampling changes",
        "### A whole step",
        "### How small",
        "### How fast",
    ):
        if heading in text:  # tables that a test above compares
            text = text.replace("\n".join(rows_below(heading, text)), "")
    text = flat(text)
    for claim in claims().get(Path(path).stem, []):
        text = text.replace(claim, "")
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", "", text)
    for known in DEFINED:
        text = re.sub(known, "", text)
    left = re.findall(r".{0,40}(?<![\w-])\d[\d.,]*.{0,25}", text)
    assert not left, f"check these against bench/results, or say in DEFINED what they are: {left}"
