"""What each command of ``mist`` takes. Only names are read here; `mist_ext.config.option` gives values their types."""

from __future__ import annotations

import dataclasses
from typing import Literal

from mist_ext.cli import delta, flags
from mist_ext.cli.argument_parser import Parser
from mist_ext.config.option import GROUPS, kinds

FORMATS = Literal["text", "markdown", "csv", "latex"]
# The options of a run that other commands have, too.
ABOVE_GRID = ("data_root",)
CHECKED = ("data_root", "test_fraction", "download")


def make() -> Parser:
    """Make the parser of all commands."""
    parser = Parser(prog="mist", description="Mutual Information-guided Sparse Tuning: continual-learning benchmarks.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _run(commands.add_parser("run", help="run a benchmark: data, backbone, tuners, methods, seeds"))
    _sweep(commands.add_parser("sweep", help="run every point of a grid of options, and compare them"))
    _predict(commands.add_parser("predict", help="name what is on images, with a trained classifier"))
    _cost(commands.add_parser("cost", help="what a batch costs each tuner and method on this machine, without data"))
    _report(commands.add_parser("report", help="table and figures of finished or interrupted runs"))
    _compare(commands.add_parser("compare", help="a run of MIST task by task beside the authors' own run log"))
    data = commands.add_parser("data", help="examine a data set on the disk")
    actions = data.add_subparsers(dest="action", required=True, metavar="COMMAND")
    _check(actions.add_parser("check", help="layout, counts, unreadable images, images in both parts"))
    deltas = commands.add_parser("delta", help="what tasks changed in a model: show, apply, undo, merge, export")
    delta.add(deltas.add_subparsers(dest="action", required=True, metavar="COMMAND"), flags.choices(FORMATS))
    commands.add_parser("info", help="versions, backend and devices")
    return parser


def _run(parser: Parser) -> None:
    """Add one flag for each field of `mist_ext.config.Config`, in its group; a YAML file holds the same names."""
    from mist_ext.config import Config, TuningOptions

    parser.usage = "mist run [CONFIG.yaml] [--OPTION VALUE ...]"
    parser.description = (
        "Run every combination of tuner and method for every seed. Options come from the YAML file given as first "
        "argument, then from flags; both know the same names. The defaults below are those of a run that names data; "
        "without, those of the preset embedded/renditions lie above them: --print-config shows them."
    )
    for name, explanation in GROUPS.items():
        group = parser.add_argument_group(name, explanation)
        if name == "run":
            group.add_argument("--config", action="append", default=[], metavar="FILE", help="YAML file with options")
            group.add_argument(
                "--print-config", "--print_config", action="store_true", help="print all options as YAML and do nothing"
            )
            group.add_argument(
                "--resume",
                metavar="FOLDER",
                help="output folder of an interrupted run to go on with; other options as they were, or left out",
            )
        members = [field for field in dataclasses.fields(Config) if field.metadata["about"].group == name]
        own = kinds(TuningOptions)
        for field in sorted(members, key=lambda field: (field.name != name, field.name in own)):  # the tuner, then how
            flags.add_option(group, field)


def _sweep(parser: Parser) -> None:
    """Take a grid, and where and how it is run."""
    from mist_ext.config import Config

    parser.description = (
        "Run every point of a grid in a process of its own, and join them in one table: mean and std over seeds, gains "
        "over the tuner none with a paired t-test, and a figure where one number was swept. The grid is YAML: below "
        "`fixed` any options of mist run with their value, below `axes` any with a list of values. Exit status 1 if a "
        "point failed."
    )
    parser.add_argument("grid", metavar="GRID.yaml", help="YAML file with fixed and axes")
    parser.add_argument(
        "--out", metavar="FOLDER", help="output folder; by default below runs/, named after the grid and the part"
    )
    parser.add_argument(
        "--jobs",
        metavar="N",
        help="runs at a time, which share the cores; by default one for each core, or one where they use a GPU",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="skip what is finished in the output folder, go on with what was interrupted, repeat what failed",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="print the runs, what they share, and how long and with how much memory they would run, estimated from a "
        "few timed steps of each kind; run and write nothing",
    )
    parser.add_argument(
        "--part",
        metavar="K/N",
        help="every N-th run from the K-th on, such as 2/8 on the second of eight machines; mist report joins the "
        "folders of all parts",
    )
    for field in dataclasses.fields(Config):
        if field.name in ABOVE_GRID:
            flags.add_option(parser, field)


def _cost(parser: Parser) -> None:
    """Take the options of `mist run` that matter, and how and where it is measured."""
    from mist_ext.config import Config, costly

    parser.description = (
        "Measure, on noise, what a batch costs each tuner and method: entries selected, kept and changed in a step, "
        "FLOPs forward and backward by torch's own counter, milliseconds and peak memory. Every method gets the same "
        "--batch-size, unless --method-options give it another. What cannot work with the backbone says why."
    )
    for field in dataclasses.fields(Config):
        if field.name in costly.NAMES:
            flags.add_option(parser, field, costly.defaults().get(field.name))
    parser.add_argument(
        "--image-size", metavar="N", help="height and width of the images; by default what the backbone was made for"
    )
    parser.add_argument("--repeats", default=5, metavar="N", help="timed batches of each phase (default: 5)")
    parser.add_argument(
        "--out", dest="file", metavar="FILE", help="file for the table: .md, .tex, .csv, or .json with everything"
    )


def _predict(parser: Parser) -> None:
    """Take a run and any number of images."""
    parser.description = "Name what is on images: the best classes and their scores."
    parser.add_argument("run", metavar="RUN", help="folder of an experiment, or of a run that has one only")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="paths of images")
    parser.add_argument("--top", default=5, metavar="N", help="how many classes are shown for each image (default: 5)")
    parser.add_argument("--seed", metavar="N", help="whose classifier; by default the first saved")
    parser.add_argument("--task", metavar="N", help="of a run with --deltas: the last task it knows; by default all")


def _report(parser: Parser) -> None:
    """Take any number of run folders, or of one sweep's."""
    parser.description = (
        "Print the table of any number of runs, and write it, figures and a page as files. A folder without results is "
        "named and left out; exit status 1 if none has any. The folders of a sweep's parts make the table of the sweep."
    )
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="FOLDER",
        help="output folders of mist run, or single experiments' folders; or those of mist sweep",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="where the joint table, figure and report.html go; by default the only folder given",
    )
    parser.add_argument(
        "--format",
        default="text",
        metavar=flags.choices(FORMATS),
        help="how the table is printed; for other forms than text nothing else is printed, and files need --out "
        "(default: text)",
    )
    parser.add_argument(
        "--no-figures", action="store_true", help="write the tables and the page alone; figures take longest"
    )


def _compare(parser: Parser) -> None:
    """Take a run, and how far it may be from the log."""
    parser.description = (
        "Print accuracies and mean losses of a run of --preset mist/imagenet_r or mist/imagenet_r-simplecil, task by "
        "task, beside those of the run logs that MIST's authors published. Exit status 1 if a task differs by more "
        "than the tolerance, and by more than two standard deviations where there are several seeds."
    )
    parser.add_argument("run", metavar="RUN", help="output folder of mist run, or an experiment's folder")
    parser.add_argument(
        "--tolerance", default=2.0, metavar="POINTS", help="how far accuracies may be apart, in points (default: 2)"
    )
    parser.add_argument(
        "--loss-tolerance", default=0.2, metavar="LOSS", help="how far the mean loss may be apart (default: 0.2)"
    )


def _check(parser: Parser) -> None:
    """Take a data source, and those options of `mist run` that say where it is."""
    from mist_ext.config import Config

    parser.description = (
        "Say which layout of a data set is there, compare its counts with the published ones, read every image, and "
        "look for images in both parts. Exit status 1 if something is wrong."
    )
    parser.add_argument(
        "source", metavar="DATA", help="digits, cifar100, cub200, ..., or folder:PATH; as --data of mist run"
    )
    for field in dataclasses.fields(Config):
        if field.name in CHECKED:
            flags.add_option(parser, field)
