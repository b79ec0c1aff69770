"""How close the kernels come to the memory's limit, and how far plain PyTorch is from them.

    python bench/roofline.py --model vit_ti vit_b --dtype fp32 bf16 --threads 1 2 --json bench/results/my-machine.json

Every op is verified against the oracle, bit for bit, on the very tensors that are timed; every rival is verified to
do the same on small ones. Then all take turns, each call from cold caches, and medians are compared. Columns:

ms          one call over all of the model's tensors
GB/s        the bytes that any implementation must move, over the time (`moved` in bench/contests/)
of add_     that rate over the rate of ``a.add_(b)`` in the same run, which counts 12 bytes an entry
published   the published method's op-by-op chain, and how many times as long it takes
best torch  the fastest of all others that do this op's work with PyTorch or NumPy
memory      what a call takes beyond the tensors that it is given

Selecting works on float32 scores whatever the model's dtype, so it is measured once for each model.
`sampled_weight_grad_` works on the linear layers of one block, with operands of --tokens tokens; its products and sums
are counted too (`flops` in the JSON).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import machine
import torch
from contests import CONTESTS, Contest
from measuring import ROW, measure, reason, rows
from memory import available, give_back
from models import DTYPES, MODELS, layout, model_name
from others import warn
from overhead import TENSORS, overhead
from problem import Problem
from progress import Progress, markdown, say
from timing import Stopwatch

from mist_ext.system.files import write_atomically

OPS = [contest.op for contest in CONTESTS] + ["overhead"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = torch.get_num_threads()
    parser.add_argument(
        "--model",
        nargs="+",
        type=model_name,
        default=["vit_ti", "vit_s", "vit_b", "vit_l"],
        help=f"{', '.join(MODELS)}, or any timm model",
    )
    parser.add_argument("--dtype", nargs="+", default=["fp32"], choices=DTYPES, help="of parameters and gradients")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--threads", nargs="+", type=int, default=sorted({1, every}), help="CPU threads; 1 and all by default"
    )
    parser.add_argument("--op", nargs="+", default=OPS, choices=OPS, help="which ops; all by default")
    parser.add_argument("--tokens", type=int, default=Problem.tokens, help="of the linear layers' operands")
    parser.add_argument("--rounds", type=int, default=9, help="calls of each; slow ones are called fewer times")
    parser.add_argument("--without", nargs="+", default=[], metavar="RIVAL", help="rivals to leave out, by name")
    parser.add_argument("--json", type=Path, help="where the results are written after every contest")
    parser.add_argument(
        "--add", action="store_true", help="keep what --json holds of this machine, add or replace rows"
    )
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error(f"--rounds is {given.rounds}, expected 1 or more")
    if given.tokens < 1:
        parser.error(f"--tokens is {given.tokens}, expected 1 or more")
    if min(given.threads) < 1:
        parser.error(f"--threads holds {min(given.threads)}, expected 1 or more")
    if given.add and not given.json:
        parser.error("--add needs --json, the file to add to")
    return given


class Roofline:
    """All that was asked for, with the results so far."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.device = torch.device(given.device)
        self.threads = given.threads if self.device.type == "cpu" else [None]
        self.contests = [contest for contest in CONTESTS if contest.op in given.op]
        self.result: dict[str, Any] = {"machine": machine.facts(self.device), "rows": self._before()}
        self.new: list[dict[str, Any]] = []
        once = sum(not contest.dtypes for contest in self.contests)
        each = once + (len(self.contests) - once) * len(given.dtype)
        total = (len(given.model) * each + ("overhead" in given.op)) * len(self.threads)
        self.progress = Progress(total)

    def _before(self) -> list[dict[str, Any]]:
        given = self.given
        if not given.add or not given.json.exists():
            return []
        before = json.loads(given.json.read_text())
        if before["machine"] != (now := machine.facts(self.device)):
            odd = sorted(name for name in now if before["machine"].get(name) != now[name])
            raise SystemExit(f"{given.json} was measured with another {', '.join(odd)}; measure into another file")
        return before["rows"]

    def run(self) -> None:
        """Measure everything; what is finished is in the file."""
        stopwatch = Stopwatch(self.device)
        if "overhead" in self.given.op:
            for threads in self.threads:
                self._overhead(threads)
        for model in self.given.model:
            for place, dtype in enumerate(self.given.dtype):
                contests = [contest for contest in self.contests if contest.dtypes or place == 0]
                self._model(model, dtype, contests, stopwatch)

    def _model(self, model: str, dtype: str, contests: Iterable[type[Contest]], stopwatch: Stopwatch) -> None:
        problem = Problem(layout(model), DTYPES[dtype], self.device, tokens=self.given.tokens)
        needed = problem.parameters * 12  # parameters, gradients and the oracle's copy, in float32
        if needed > available(self.device):
            free = available(self.device) / 1e9
            say(f"{model} {dtype}: left out, it needs {needed / 1e9:.0f} GB of memory and {free:.0f} GB are free")
            return
        for kind in contests:
            if not kind.scores:
                assert problem.index  # made from the scores, which are not needed any more
                problem.forget("score")
            self._contest(kind(problem), model, dtype if kind.dtypes else "fp32", stopwatch)
            problem.forget("dense_mask", "dense_grad", "operands", "pair", "score")
        del problem
        give_back()

    def _contest(self, contest: Contest, model: str, dtype: str, stopwatch: Stopwatch) -> None:
        what = f"{contest.op} {model} {dtype}"
        self.progress.begin(f"{what}, verifying")
        self._use(max(self.threads, key=lambda threads: threads or 0))
        contest.verify()
        without = self._verified(contest)
        for threads in self.threads:
            self._use(threads)
            self.progress.begin(what if threads is None else f"{what}, {threads} threads")
            measured = measure(contest, stopwatch, self.given.rounds, without)
            warn(measured.others_cores)
            self._keep(rows(contest, measured, model, dtype, threads))

    def _verified(self, contest: Contest) -> dict[str, str]:
        """The rivals that do not take part, and why; raises where one computes something else than ours."""
        without = {name: "left out by choice" for name in contest.rivals if name in self.given.without}
        for name, rival in contest.rivals.items():
            if name in without or not rival.same_work:
                continue
            try:
                contest.verify_rival(name, contest.problem)
            except RuntimeError as error:
                without[name] = reason(error)
        for name, why in without.items():
            say(f"{contest.op}: {name} is left out: {why}")
        return without

    def _overhead(self, threads: int | None) -> None:
        self._use(threads)
        self.progress.begin(f"overhead, {threads} threads")
        ms = overhead(self.device)
        shared = dict.fromkeys(ROW)
        own = {"op": "overhead", "model": f"{TENSORS} tiny tensors", "dtype": "fp32", "device": self.device.type}
        fastest = min((name for name in ms if "SGD" in name and "torch" in name), key=ms.__getitem__)
        own |= {"threads": threads, "ms": ms["SparseSGD"], "best_torch": fastest, "tensors": TENSORS}
        own |= {"x_best_torch": ms[fastest] / ms["SparseSGD"], "variants": ms}
        self._keep([shared | own])

    def _use(self, threads: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)

    def _keep(self, new: list[dict[str, Any]]) -> None:
        """Take in new rows in the place of old ones, and write all of them."""
        names = [key(row) for row in new]
        self.result["rows"] = [row for row in self.result["rows"] if key(row) not in names] + new
        self.new += new
        if self.given.json:
            write_atomically(self.given.json, json.dumps(self.result, indent=1) + "\n")
        self.progress.advance(f"{new[0]['ms']:.3g} ms")


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What tells a row from others."""
    return *(row[name] for name in ("op", "model", "dtype", "device", "threads")), row.get("tokens")


def tables(result: list[dict[str, Any]]) -> Iterator[str]:
    """The rows as text: a table for each model, dtype and number of threads."""
    headings = ["op", "ms", "GB/s", "of add_", "published", "best torch", "which is", "memory"]

    def shared(row: dict[str, Any]) -> tuple[str, ...]:
        size = f"{row['parameters'] / 1e6:.1f} M parameters" if row["parameters"] else "overhead"
        return row["model"], size, row["dtype"], f"{row['threads']} threads" if row["threads"] else row["device"]

    for title in dict.fromkeys(map(shared, result)):
        drawn = [
            [
                row["op"],
                text(row["ms"], "{:.3g}" if row["ms"] < 100 else "{:.0f}"),
                text(row["gb_per_s"], "{:.1f}"),
                text(row["share_of_stream"], "{:.0%}"),
                text(row["x_eager"], "{:.1f} x"),
                text(row["x_best_torch"], "{:.1f} x"),
                row["best_torch"] or "",
                text(row["peak_extra_bytes"], "{:.1f} MB", 1e-6),
            ]
            for row in result
            if shared(row) == title
        ]
        yield f"{' · '.join(title)}\n\n{markdown(headings, drawn, ['which is'])}\n"


def text(value: float | None, form: str, unit: float = 1) -> str:
    return "" if value is None else form.format(value * unit)


def main() -> None:
    given = arguments()
    if given.json and not given.json.parent.is_dir():
        raise SystemExit(f"cannot write {given.json}: {given.json.parent} is no folder; create it first")
    roofline = Roofline(given)
    try:
        roofline.run()
    finally:
        for table in tables(roofline.new):
            print(table)


if __name__ == "__main__":
    main()
