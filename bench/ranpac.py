"""RanPAC's learning of a task beside the 18 dense solves of the published code.

    python bench/ranpac.py --json ranpac.json                   # M = 10,000, tasks of 600, 2,400 and 5,000 rows
    python bench/ranpac.py --width 300 --rows 100 --solves 18   # small, every solve timed

The published code solves ``(G + lambda I) W = Q`` of size M in float32 by `torch.linalg.solve`, 17 times to choose
lambda and once for the weights. All of them take the same time, so `--solves` of them are timed and multiplied; the
published projections, Gram matrices and predictions are left out. Against that stands the whole of `RanPAC.learn`.

Before anything is timed, lambda and the weights are compared with a float64 solution of the published rule: at the
given width its weights by one dense solve, and the errors of lambda and its two neighbours by three, with
`--verify-all` those of all 17. Ours and the solves take turns, and medians are compared. "off by" is the relative
distance of the weights; "busy cores" are those that other programs kept meanwhile, which should be near 0.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import machine
import memory
import torch
from others import Others
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from mist_ext.methods.ranpac import RIDGES, RanPAC
from mist_ext.system.progress import Progress

SOLVES = len(RIDGES) + 1  # one for each lambda, and one for the weights
TOLERANCE = 1e-4  # of the weights, relative
SEED = 1993
SPREAD = 3  # of rows around their class centre: so wide that a ridge is needed, and the choice means something


def task(rows: int, features: int, classes: range, number: int) -> tuple[Tensor, Tensor]:
    """Rows around the centres of their classes."""
    drawing = torch.Generator().manual_seed(SEED + number)
    centres = torch.randn(len(classes), features, generator=drawing)
    labels = torch.arange(rows) % len(classes)
    return centres[labels] + SPREAD * torch.randn(rows, features, generator=drawing), labels + classes.start


def verify(method: RanPAC, given: tuple[Tensor, Tensor], every: bool) -> float:
    """Relative distance of the weights of the last task learned from the published rule's in float64.

    Raises
    ------
    SystemExit
        If they are further apart than `TOLERANCE`, or another lambda has a smaller error.
    """
    features, labels = given
    order = torch.randperm(len(features), generator=method._generator(1, method.tasks - 1))
    hidden = (features[order].double() @ method.projection.cpu().double()).relu_()
    targets = functional.one_hot(labels[order], method.weights.shape[1]).double()
    fitted = int(len(hidden) * method.fit_fraction)
    position = RIDGES.index(method.ridge)
    candidates = RIDGES if every else RIDGES[max(position - 1, 0) : position + 2]
    errors = published_errors(hidden, targets, fitted, candidates)
    if candidates[int(torch.tensor(errors).argmin())] != method.ridge:
        raise SystemExit(f"lambda is {method.ridge:g}, but the published rule has the errors {errors} of {candidates}")
    weights = dense_solve(method.gram, method.cross, method.ridge)
    distance = float((method.weights - weights).norm() / weights.norm())
    if not distance <= TOLERANCE:
        raise SystemExit(f"the weights are {distance:.1e} from a float64 solve, expected at most {TOLERANCE}")
    return distance


def published_errors(hidden: Tensor, targets: Tensor, fitted: int, ridges: Sequence[float]) -> list[float]:
    """The squared error on the rows that are held out, by one dense solve of size M for each lambda."""
    gram, cross = hidden[:fitted].T @ hidden[:fitted], hidden[:fitted].T @ targets[:fitted]
    return [
        float(functional.mse_loss(hidden[fitted:] @ dense_solve(gram, cross, ridge), targets[fitted:]))
        for ridge in ridges
    ]


def dense_solve(gram: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """As the published code solves."""
    shifted = gram.clone()
    shifted.diagonal().add_(ridge)
    return torch.linalg.solve(shifted, cross)


def measured(rows: int, given: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Verifies, then times, tasks of so many rows."""
    device = torch.device(given.device)
    method = RanPAC(width=given.width, seed=SEED)

    def learn(number: int) -> Callable[[], None]:
        classes = range(given.classes * number, given.classes * (number + 1))
        features, labels = task(rows, given.features, classes, number)
        features, labels = features.to(device), labels.to(device)
        return lambda: method.learn(features, labels)

    progress.begin(f"{rows} rows: verifying")
    peak = memory.peak_extra_bytes(learn(0), device)
    second = range(given.classes, 2 * given.classes)
    learn(1)()
    distance = verify(method, task(rows, given.features, second, 1), given.verify_all)
    progress.advance(f"{rows} rows verified")
    gram, cross = method.gram.float(), method.cross.float()

    def timed(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    ours, solve = [], []
    load = os.getloadavg()
    with Others() as others:
        for turn in range(max(given.solves, given.turns)):
            progress.begin(f"{rows} rows: turn {turn + 1}")
            if turn < given.solves:
                solve.append(timed(lambda: dense_solve(gram, cross, method.ridge)))
            if turn < given.turns:
                ours.append(timed(learn(turn + 2)))
    progress.advance(f"{rows} rows timed")
    published = SOLVES * statistics.median(solve)
    return {
        "rows": rows,
        "ridge": method.ridge,
        "weights_distance": distance,
        "learn_s": statistics.median(ours),
        "solve_s": statistics.median(solve),
        "solves_s": published,
        "times": published / statistics.median(ours),
        "stated_bytes": method.memory(rows, given.features, given.classes * (given.turns + 2)),
        "peak_bytes": peak,
        "load_average": load,
        "others_cores": others.cores,
    }


def table(result: dict[str, Any]) -> Table:
    """One line a number of rows."""
    where = result["machine"]["gpu"] or f"{result['machine']['cpu']}, {result['machine']['threads']} threads"
    shown = Table(
        "rows", "lambda", "off by", "learn s", f"{SOLVES} solves s", "ratio", "GB stated", "taken", "busy cores",
        title=f"M = {result['width']:,}, d = {result['features']}, {where}",
        caption=f"{result['solves']} of the {SOLVES} float32 solves timed, their median times {SOLVES}"
        if result["solves"] < SOLVES
        else f"all {SOLVES} float32 solves timed",
    )  # fmt: skip
    for row in result["rows"]:
        shown.add_row(
            f"{row['rows']:,}",
            f"{row['ridge']:g}",
            f"{row['weights_distance']:.0e}",
            f"{row['learn_s']:.2f}",
            f"{row['solves_s']:.2f}",
            f"{row['times']:.1f} x",
            f"{row['stated_bytes'] / 1e9:.2f}",
            "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e9:.2f}",
            "" if row["others_cores"] is None else f"{row['others_cores']:.2f}",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=10_000, help="M, the number of random features")
    parser.add_argument("--rows", type=int, nargs="+", default=[600, 2400, 5000], help="rows of a task")
    parser.add_argument("--features", type=int, default=768, help="d, the width of the backbone's features")
    parser.add_argument("--classes", type=int, default=20, help="classes of a task")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--solves", type=int, default=2, help=f"how many of the {SOLVES} solves are timed")
    parser.add_argument("--turns", type=int, default=2, help="how often RanPAC.learn is timed")
    parser.add_argument("--verify-all", action="store_true", help="verify lambda against all 17 float64 solves")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    given = parser.parse_args()
    for name in ("width", "features", "classes", "threads", "solves", "turns"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} is {getattr(given, name)}, expected at least 1")
    if min(given.rows) < 2:
        parser.error(f"--rows has {min(given.rows)}, expected at least 2: one is fitted, one held out")
    torch.set_num_threads(given.threads)
    console = Console()
    with Progress(console, 2 * len(given.rows)) as progress:
        rows = [measured(count, given, progress) for count in given.rows]
    result = {
        "machine": machine.facts(torch.device(given.device)) | {"threads": torch.get_num_threads()},
        "width": given.width,
        "features": given.features,
        "solves": given.solves,
        "rows": rows,
    }
    console.print(table(result))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
