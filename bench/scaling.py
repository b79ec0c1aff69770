"""How long a step takes on 8 to 1,024 GPUs: a model, from measured parts and stated bandwidths.

    python bench/scaling.py bench/results/gloo-2.json --out bench/results/scaling.png

The bytes are those that distributed.py has counted. The time is that of an all-reduce in three parts, as NCCL does it
on nodes of 8 GPUs: a reduce-scatter within the node, an all-reduce of each GPU's eighth between the nodes, an
all-gather within the node. With S bytes, n nodes, B the bandwidth of a GPU in one direction and L the latency of a
hop::

    within   2 (7/8) S / B_node + 2 * 7 L_node
    between  2 (n-1)/n (S/8) / B_net + 2 ceil(log2 n) L_net

A step is what it takes alone and the part of the exchange that is not hidden behind backward, both as distributed.py
has measured them on a GPU. Where it has measured on a CPU, the exchange alone is shown, whole.

Nothing here was measured on that many GPUs. The defaults are the hardware's data sheets: NVLink 4 has 450 GB/s a GPU in
each direction, a 400 Gb/s network adapter a GPU 50 GB/s; latencies of 2 and 10 microseconds a hop are assumptions.
"""

from __future__ import annotations

import argparse
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plot import apart
from progress import markdown

from mist_ext.system.files import write_atomically

NODE = 8  # GPUs
SIZES = [NODE * 2**power for power in range(8)]
# Okabe and Ito (2008), as in the other figures: ours is blue, what it is compared with grey and vermilion.
CURVES = {
    "dense fp32": ("#7F7F7F", "-"),
    "dense bf16": ("#D55E00", "-"),
    "sparse fp32": ("#0072B2", "-"),
    "sparse bf16": ("#0072B2", "--"),
}


@dataclass(frozen=True)
class Network:
    """Bandwidths in bytes a second, latencies in seconds."""

    node_bandwidth: float
    net_bandwidth: float
    node_latency: float
    net_latency: float

    def seconds(self, size: float, gpus: int) -> float:
        """The time of an all-reduce of so many bytes.

        Parameters
        ----------
        size : float
            Bytes that every GPU holds.
        gpus : int
            A multiple of 8.
        """
        nodes = gpus // NODE
        within = 2 * (NODE - 1) / NODE * size / self.node_bandwidth + 2 * (NODE - 1) * self.node_latency
        between = 2 * (nodes - 1) / nodes * size / NODE / self.net_bandwidth
        return within + between + 2 * math.ceil(math.log2(nodes)) * self.net_latency


def curves(result: dict[str, Any], network: Network) -> dict[str, list[float]]:
    """Milliseconds of each way for every number of GPUs."""
    rows = {row["way"]: row for row in result["rows"]}
    alone = rows["alone"]["step_ms"] if whole_steps(result) else 0.0
    drawn = {}
    for name in CURVES:
        if name in rows:
            shown = 1 - (rows[name]["hidden"] or 0) if whole_steps(result) else 1.0
            drawn[name] = [alone + shown * 1e3 * network.seconds(rows[name]["bytes"], gpus) for gpus in SIZES]
    return drawn


def whole_steps(result: dict[str, Any]) -> bool:
    """Whether the time of a step was measured where such exchanges happen."""
    return result["backend"] == "nccl" and any(row["way"] == "alone" for row in result["rows"])


def table(result: dict[str, Any], network: Network) -> str:
    """One line for each number of GPUs, in milliseconds."""
    drawn = curves(result, network)
    lines = [[str(gpus), *(f"{times[i]:.3f}" for times in drawn.values())] for i, gpus in enumerate(SIZES)]
    return markdown(["GPUs", *(f"{name}, ms" for name in drawn)], lines)


def figure(result: dict[str, Any], network: Network) -> bytes:
    """The curves as a PNG, both axes logarithmic."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(6.4, 3.9), dpi=150, layout="constrained")
    axes = picture.add_subplot()
    drawn = curves(result, network)
    if not drawn:
        raise SystemExit(f"the result has none of the ways {', '.join(CURVES)}")
    ends = [times[-1] for times in drawn.values()]
    decades = math.log10(max(max(times) for times in drawn.values()) / min(min(times) for times in drawn.values()))
    for (name, times), height in zip(drawn.items(), apart(ends, 0.055 * decades), strict=True):
        color, line = CURVES[name]
        axes.plot(SIZES, times, line, color=color, linewidth=2, marker="o", markersize=4)
        bold = "bold" if name.startswith("sparse") else "normal"
        axes.annotate(
            name, (SIZES[-1], height), (9, 0), textcoords="offset points", va="center", color=color, fontsize=9,
            fontweight=bold, annotation_clip=False,
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(SIZES, [f"{size:,}" for size in SIZES])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda ms, _: f"{ms:g} ms")
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=3, labelsize=9)
    axes.set_xlabel("GPUs, 8 a node", fontsize=9)
    model = result["model"].split("_patch")[0].replace("_", " ").replace("vit", "ViT")
    what = "One step" if whole_steps(result) else "Exchange of one step"
    axes.set_title(f"{what}, {model}: a model", loc="left", fontweight="bold", fontsize=11)
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.12)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, help="a file that distributed.py has written")
    parser.add_argument("--out", type=Path, help="the PNG to write")
    parser.add_argument("--node-bandwidth", type=float, default=450.0, help="GB/s a GPU and direction, within a node")
    parser.add_argument("--net-bandwidth", type=float, default=50.0, help="GB/s a GPU and direction, between nodes")
    parser.add_argument("--node-latency", type=float, default=2.0, help="microseconds a hop within a node")
    parser.add_argument("--net-latency", type=float, default=10.0, help="microseconds a hop between nodes")
    given = parser.parse_args()
    try:
        result = json.loads(given.result.read_text(encoding="utf-8"))
        rows = result["rows"]
        assert all("bytes" in row for row in rows)
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise SystemExit(f"{given.result} is no result of bench/distributed.py --json: {error!r}") from error
    speeds = (given.node_bandwidth * 1e9, given.net_bandwidth * 1e9)
    network = Network(*speeds, given.node_latency * 1e-6, given.net_latency * 1e-6)
    print(table(result, network))
    if given.out is not None:
        write_atomically(given.out, figure(result, network))


if __name__ == "__main__":
    main()
