"""Writes the README's table of kernels from the results of roofline.py, between two marks.

    python bench/table.py bench/results/my-machine.json          # prints it
    python bench/table.py --all bench/results/my-machine.json    # a table for every model and dtype in it
    python bench/table.py --write                                # puts that of RESULT into README.md
    python bench/table.py --check                                # fails if README.md has another

So no figure there is typed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from models import DTYPES, MODELS
from results_file import Row, chosen, most_threads, read

from mist_ext.system.files import write_atomically

README = Path(__file__).parents[1] / "README.md"
RESULT = Path(__file__).parent / "results" / "epyc-2-cores.json"  # of the machine that the README speaks of
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
SAID = {
    "accumulate_": "score a batch: `accumulate_`",
    "select": "select 5 %: `select`",
    "drop_apply_sgd_": "drop 90 % and apply: `drop_apply_sgd_`",
    "SparseSGD.step": "the whole `SparseSGD.step()`",
    "drop_apply_adamw_": "drop 90 % and apply: `drop_apply_adamw_`",
    "SparseAdamW.step": "the whole `SparseAdamW.step()`",
    "mask_": "mask for a dense optimiser: `mask_`",
    "sampled_weight_grad_": "weight gradients at kept entries: `sampled_weight_grad_`",
}


def block(machine: dict[str, Any], rows: list[Row], model: str, dtype: str) -> str:
    """The README's lines: what was measured where, a row an op, and a sentence on a step's costs besides kernels.

    Raises
    ------
    ValueError
        If the model was not measured in that dtype.
    """
    threads = most_threads(rows)
    own = {row["op"]: row for row in chosen(rows, dtype, threads) if row["model"] == model}
    if not own:
        measured = sorted({f"{row['model']} {row['dtype']}" for row in rows if row["parameters"]})
        raise ValueError(f"{model} {dtype} was not measured; there are {', '.join(measured)}")
    one = {row["op"]: row for row in chosen(rows, dtype, 1) if row["model"] == model} if threads != 1 else {}
    where = machine["gpu"] or f"{machine['cpu']}, {threads} threads, {machine['instruction_set']}"
    size = f"{next(iter(own.values()))['parameters'] / 1e6:.1f} M {dtype} parameters"
    versions = ", ".join(f"{name} {machine[name].split('+')[0]}" for name in ("torch", "numpy") if name in machine)
    lines = [f"`{MODELS.get(model, model)}`, {size}; {where}, {versions}.", ""]
    lines += _table([op for op in SAID if op in own], own, one)
    costs = next((row for row in rows if row["op"] == "overhead" and row["threads"] == threads), None)
    if costs is not None:
        ms = costs["variants"]
        lines += ["", f"Besides kernels, a step over {costs['tensors']} tensors costs {ms['SparseSGD']:.2f} ms with "
                  f"`SparseSGD` and {ms['SparseAdamW']:.2f} ms with `SparseAdamW`."]  # fmt: skip
    return "\n".join(lines)


def _table(ops: list[str], own: dict[str, Row], one: dict[str, Row]) -> list[str]:
    headings = [
        "",
        "ms",
        *(["1 thread"] if one else []),
        "of `a.add_(b)`",
        "published",
        "best of PyTorch or NumPy",
        "memory",
    ]
    lines = [f"| {' | '.join(headings)} |", f"|---|{'---:|' * (len(headings) - 1)}"]
    for op in ops:
        row = own[op]
        cells = [SAID[op], f"**{_ms(row['ms'])}**", *([_ms(one[op]["ms"]) if op in one else ""] if one else [])]
        cells += [f"{row['share_of_stream']:.0%}", _slower(row, "published", row["x_eager"])]
        best = row["best_torch"]
        cells += [_slower(row, best, row["x_best_torch"], f" {best}"), _memory(row["peak_extra_bytes"])]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _slower(row: Row, variant: str | None, times: float | None, name: str = "") -> str:
    """A rival's time and how many times as long as ours that is."""
    if variant is None or times is None:
        return "-"  # not measured
    return f"{_ms(row['variants'][variant])}{name}, {times:.{0 if times >= 100 else 1}f} x"


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _memory(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e6:.1f} MB"


def placed(readme: str, lines: str) -> str:
    """The README with these lines between its marks.

    Raises
    ------
    ValueError
        If the README does not have each mark once, in order.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"it needs the line {BEGIN} once, and {END} once below it, where the table belongs")
    return f"{before}{BEGIN}\n{lines}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, nargs="?", default=RESULT, help="a file that roofline.py has written")
    parser.add_argument("--model", default="vit_b")
    parser.add_argument("--dtype", default="fp32", choices=DTYPES)
    parser.add_argument("--readme", type=Path, default=README, help="the file with the marks")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--all", action="store_true", help="print the table of every model and dtype, one after another")
    what.add_argument("--write", action="store_true", help="put the table into the README")
    what.add_argument("--check", action="store_true", help="exit with 1 if the README has another table")
    given = parser.parse_args()
    machine, rows = read(given.result)
    if given.all:
        kernels = [row for row in rows if row["parameters"] and row["op"] != "select"]  # which knows one dtype alone
        measured = dict.fromkeys((row["model"], row["dtype"]) for row in kernels)
        print("\n\n".join(block(machine, rows, model, dtype) for model, dtype in measured))
        return
    try:
        lines = block(machine, rows, given.model, given.dtype)
    except ValueError as error:
        raise SystemExit(f"{given.result}: {error}") from error
    if not given.write and not given.check:
        print(lines)
        return
    before = given.readme.read_text(encoding="utf-8")
    try:
        after = placed(before, lines)
    except ValueError as error:
        raise SystemExit(f"{given.readme}: {error}") from error
    if given.write:
        write_atomically(given.readme, after)
    elif after != before:
        raise SystemExit(f"{given.readme} is not what {given.result} says; run this with --write")


if __name__ == "__main__":
    main()
