"""The command ``mist delta``: its arguments, and what answers them."""

from __future__ import annotations

import os
from argparse import Namespace
from typing import Any, Literal, get_args

from mist_ext.config.typed import typed

METHODS = Literal["task_arithmetic", "linear", "ties", "dare_linear", "dare_ties", "compose"]
FORMS = Literal["state_dict", "shira", "indices"]
DENSE = Literal["store", "refuse"]
_DELTAS = "files of deltas; or the folder of an experiment of mist run --deltas, for those of all its tasks in order"
_BASE = "checkpoint (.safetensors, .pth, .pt, .bin), or the name of a backbone for its pre-trained weights"


def add(commands: Any, formats: str) -> None:
    """Add the commands' parsers to the subparsers of ``mist delta``; ``formats`` are those of tables."""
    show = commands.add_parser("show", help="where deltas change a model, how much, and how far they overlap")
    show.description = (
        "Print what each delta changes: entries, share and norm, by layer and kind of parameter; and of each two the "
        "overlap of their entries and the agreement of their signs."
    )
    _deltas(show)
    show.add_argument("--figure", metavar="FILE", help="draw it, as .png or .svg")
    show.add_argument("--format", default="text", metavar=formats, help="how the tables are printed (default: text)")
    _overwrite(show)
    diff = commands.add_parser("diff", help="the delta from one checkpoint to another")
    diff.description = "Write the delta from one checkpoint to another: every entry whose bits differ."
    diff.add_argument("base", metavar="BASE", help=_BASE)
    diff.add_argument("tuned", metavar="TUNED", help="the same after tuning: of the same names, shapes and dtypes")
    diff.add_argument("out", metavar="OUT", help="file for the delta, .safetensors or .delta")
    diff.add_argument(
        "--dense",
        default="store",
        metavar=_choices(DENSE),
        help="what becomes of a tensor of which so much changed that all of it takes less room (default: store)",
    )
    diff.add_argument(
        "--forward-only",
        action="store_true",
        help="leave out the values before: half the size, and it can neither be undone nor merged",
    )
    _overwrite(diff)
    apply = commands.add_parser("apply", help="a checkpoint with deltas applied")
    apply.description = "Write BASE with deltas applied, one after the other. Values that are not BASE's are refused."
    apply.add_argument("base", metavar="BASE", help=_BASE)
    _deltas(apply)
    _out(apply, "file for the checkpoint, .safetensors")
    _backbone(apply)
    undo = commands.add_parser("undo", help="a checkpoint with deltas undone")
    undo.description = "Write TUNED with deltas undone, the last one first: bit for bit what was before them."
    undo.add_argument("tuned", metavar="TUNED", help="checkpoint that has the deltas")
    _deltas(undo)
    _out(undo, "file for the checkpoint, .safetensors")
    _merge(commands.add_parser("merge", help="several tasks' deltas in one"))
    verify = commands.add_parser("verify", help="whether deltas are whole, a chain, and of which base")
    verify.description = (
        "Say of each delta whether it begins where the one before it ends, and, with --base, whether each leads from "
        "the whole model of its digest to the next. Exit status 1 if one does not."
    )
    _deltas(verify)
    verify.add_argument("--base", metavar="BASE", help=_BASE)
    _backbone(verify)
    export = commands.add_parser("export", help="deltas for other programs")
    export.description = (
        "Write a chain of deltas as a plain state dict (base and deltas), as an adapter of peft's SHiRA, or as indices "
        "and values, as trainers send changed weights to inference engines."
    )
    _deltas(export)
    export.add_argument("--form", required=True, metavar=_choices(FORMS), help="what is written")
    export.add_argument("--base", metavar="BASE", help=f"of a state_dict: {_BASE}")
    _out(export, "file, .safetensors; of shira a folder")
    _backbone(export)


def _merge(parser: Any) -> None:
    parser.description = (
        "Merge the deltas of tasks that were learned from one base, or with --chain those that a run leaves. Leaving a "
        "task out is merging the others."
    )
    _deltas(parser)
    _out(parser, "file for the merged delta, .safetensors or .delta")
    parser.add_argument(
        "--method",
        default="task_arithmetic",
        metavar=_choices(METHODS),
        help="how; compose joins a chain to one delta, bit for bit (default: task_arithmetic)",
    )
    parser.add_argument("--weight", nargs="+", metavar="X", help="one for each merged delta; by default 1")
    parser.add_argument(
        "--density",
        metavar="X",
        help="share of a task's changed entries that ties, dare_linear and dare_ties keep; by default 0.5",
    )
    parser.add_argument("--lambda", dest="lambda_", metavar="X", help="scales the merged change; by default 1")
    parser.add_argument("--seed", metavar="N", help="of the entries that dare_linear and dare_ties drop; by default 0")
    parser.add_argument(
        "--chain",
        action="store_true",
        help="each delta begins where the one before it ends: move all of them to the first one's base, then merge",
    )
    parser.add_argument(
        "--leave-out", nargs="+", default=[], metavar="N", help="numbers of deltas that are not merged, from 1"
    )
    parser.add_argument(
        "--evaluate",
        metavar="EXPERIMENT",
        help="folder of an experiment of mist run: test the merged backbone on each of its tasks, by its method",
    )


def _deltas(parser: Any) -> None:
    parser.add_argument("deltas", nargs="+", metavar="DELTA", help=_DELTAS)
    parser.add_argument(
        "--seed-of-run", metavar="N", help="whose deltas of a folder, where it has those of several seeds"
    )


def _out(parser: Any, what: str) -> None:
    parser.add_argument("--out", required=True, metavar="OUT", help=what)
    _overwrite(parser)


def _overwrite(parser: Any) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace an output that is there")


def _backbone(parser: Any) -> None:
    parser.add_argument(
        "--backbone",
        metavar="NAME",
        help="read BASE as mist run --backbone NAME --weights BASE does: in the model's dtype, without a classifier",
    )


def _choices(kind: Any) -> str:
    return f"{{{','.join(get_args(kind))}}}"


def run(options: Namespace) -> int:
    """Do what the options name; return the exit status."""
    from rich.console import Console

    return ACTIONS[options.action](options, Console())


def _show(options: Namespace, console: Any) -> int:
    from mist_ext.cli.parsers import FORMATS
    from mist_ext.delta_commands.show import show

    form = typed(options.format, FORMATS, "format is")
    show(options.deltas, form, options.figure, console, seed=_seed(options), overwrite=options.overwrite)
    return 0


def _diff(options: Namespace, console: Any) -> int:
    from mist_ext.delta_commands.changing import diff

    dense = typed(options.dense, DENSE, "dense is")
    more: dict[str, Any] = {"forward_only": options.forward_only, "overwrite": options.overwrite}
    diff(options.base, options.tuned, options.out, console, dense=dense, **more)
    return 0


def _apply(options: Namespace, console: Any) -> int:
    from mist_ext.delta_commands.changing import apply

    more: dict[str, Any] = {"backbone": options.backbone, "overwrite": options.overwrite}
    apply(options.base, options.deltas, options.out, console, seed=_seed(options), **more)
    return 0


def _undo(options: Namespace, console: Any) -> int:
    from mist_ext.delta_commands.changing import undo

    undo(options.tuned, options.deltas, options.out, console, seed=_seed(options), overwrite=options.overwrite)
    return 0


def _merge_command(options: Namespace, console: Any) -> int:
    from mist_ext.delta_commands.merge import merge

    merge(
        options.deltas,
        options.out,
        console,
        method=typed(options.method, METHODS, "method is"),
        weights=typed(options.weight, list[float] | None, "weight is"),
        density=typed(options.density, float | None, "density is"),
        lambda_=typed(options.lambda_, float | None, "lambda is"),
        seed=typed(options.seed, int | None, "seed is"),
        chain=options.chain,
        leave_out=typed(options.leave_out, list[int], "leave_out is"),
        seed_of_run=_seed(options),
        evaluate=options.evaluate,
        overwrite=options.overwrite,
    )
    return 0


def _verify(options: Namespace, console: Any) -> int:
    from mist_ext.delta_commands.verify import verify

    return verify(options.deltas, options.base, console, backbone=options.backbone, seed=_seed(options))


def _export(options: Namespace, console: Any) -> int:
    from mist_ext.delta_commands.export import export

    form = typed(options.form, FORMS, "form is")
    more: dict[str, Any] = {"backbone": options.backbone, "overwrite": options.overwrite}
    export(options.deltas, options.out, form, options.base, console, seed=_seed(options), **more)
    return 0


def _seed(options: Namespace) -> int | None:
    seed: int | None = typed(options.seed_of_run, int | None, "seed_of_run is")
    if seed is not None and not any(map(os.path.isdir, (*options.deltas, getattr(options, "evaluate", None) or ""))):
        raise ValueError(f"seed_of_run is {seed}, but no folder is given; it chooses among the deltas of one")
    return seed


ACTIONS = {
    "show": _show,
    "diff": _diff,
    "apply": _apply,
    "undo": _undo,
    "merge": _merge_command,
    "verify": _verify,
    "export": _export,
}
