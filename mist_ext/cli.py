"""The command ``mist``: run, report, info."""

from __future__ import annotations

import dataclasses
import re
import sys
import typing
from collections.abc import Sequence
from typing import Any, Literal, NoReturn

from jsonargparse import ArgumentParser

from mist_ext.suggest import unknown

INTERRUPTED = 130  # the shell's exit status after Ctrl-C


class Parser(ArgumentParser):
    """jsonargparse's parser, whose errors are one sentence and suggest the nearest options."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and leave with status 2."""
        _fail(_with_suggestion(message, _flags(self)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``mist``; returns the exit status."""
    parser = Parser(prog="mist", description="Mutual Information-guided Sparse Tuning: continual-learning benchmarks.")
    commands = parser.add_subcommands(dest="command", required=True)
    commands.add_subcommand("run", run_parser(), help="run a benchmark: data, backbone, tuners, methods, seeds")
    commands.add_subcommand("report", report_parser(), help="table and figures of finished or interrupted runs")
    commands.add_subcommand(
        "info", Parser(description="Versions, backend and devices."), help="versions, backend and devices"
    )
    given = _yaml_as_option(list(sys.argv[1:] if arguments is None else arguments))
    try:
        chosen = parser.parse_args(given)
        return COMMANDS[chosen.command](chosen[chosen.command])
    except (ValueError, OSError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        print("mist: interrupted; the results of all finished tasks are on disk", file=sys.stderr)
        return INTERRUPTED


def run_parser() -> ArgumentParser:
    """One flag for each field of `mist_ext.experiment.Config`; a YAML file holds the same names."""
    from mist_ext.experiment import Config

    parser = Parser(
        description="Run every combination of tuner and method for every seed. Options come from the YAML file "
        "given as first argument (mist run CONFIG.yaml), then from flags; both know the same names."
    )
    parser.add_argument("--config", action="config", help="YAML file with options; also as first argument")
    defaults = Config()
    types = typing.get_type_hints(Config)
    for field in sorted(dataclasses.fields(Config), key=lambda field: field.name not in Config.__annotations__):
        kind: Any = types[field.name]
        several: dict[str, Any] = {}
        if typing.get_origin(kind) is list:
            kind, several = typing.get_args(kind)[0], {"nargs": "+"}
        default = getattr(defaults, field.name)
        flag = "--" + field.name.replace("_", "-")
        if kind is bool:
            parser.add_argument(flag, action="store_true", help=field.metadata["help"])
        else:
            parser.add_argument(flag, type=kind, default=default, help=field.metadata["help"], **several)
    return parser


def report_parser() -> ArgumentParser:
    """Any number of run folders."""
    parser = Parser(description="Print the table of any number of runs, and write it, figures and a page as files.")
    parser.add_argument("folders", nargs="+", type=str, help="output folders of mist run, or single cells' folders")
    parser.add_argument(
        "--out",
        type=str | None,
        default=None,
        help="where the joint table, figure and report.html go; by default the only folder given",
    )
    parser.add_argument(
        "--format",
        type=Literal["text", "markdown", "csv", "latex"],
        default="text",
        help="how the table is printed; for other forms than text nothing else is printed, and files need --out",
    )
    return parser


def run_command(options: Any) -> int:
    """``mist run``."""
    from rich.console import Console

    from mist_ext import experiment

    values = options.as_dict()
    values.pop("config", None)
    console = Console()
    out = experiment.run(experiment.Config(**values), console)
    _print_report([str(out)], console)
    console.print(f"Results, tables and figures: {out}", highlight=False, soft_wrap=True)
    return 0


def report_command(options: Any) -> int:
    """``mist report``."""
    from rich.console import Console

    from mist_ext import report

    if options.format != "text":
        cells = report.read_cells(options.folders)
        sys.stdout.write(report.as_text(cells, options.format))
        if options.out is not None:
            report.write_report(cells, options.out)
        return 0
    console = Console()
    cells = _print_report(options.folders, console)
    out = options.out or (options.folders[0] if len(options.folders) == 1 else None)
    report.write_report(cells, out)
    if out is None:
        console.print("Give --out FOLDER for the joint table, figure and report.html as files.")
    else:
        console.print(f"Tables, figures and report.html: {out}", highlight=False, soft_wrap=True)
    return 0


def info_command(_options: Any) -> int:
    """``mist info``."""
    from rich.console import Console
    from rich.table import Table

    from mist_ext.info import facts

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in facts():
        table.add_row(name, value)
    Console().print(table)
    return 0


COMMANDS = {"run": run_command, "report": report_command, "info": info_command}


def _print_report(folders: list[str], console: Any) -> list[Any]:
    from mist_ext import report

    cells = report.read_cells(folders)
    console.print()
    console.print(report.table(cells))
    return cells


def _flags(parser: ArgumentParser) -> list[str]:
    """All flags of a parser and of its subcommands."""
    flags = []
    for action in parser._actions:
        flags += [name for name in action.option_strings if name.startswith("--")]
        for child in (action.choices or {}).values() if isinstance(action.choices, dict) else ():
            flags += _flags(child)
    return flags


def _yaml_as_option(arguments: list[str]) -> list[str]:
    """``mist run FILE ...`` as ``mist run --config FILE ...``."""
    if len(arguments) > 1 and arguments[0] == "run" and not arguments[1].startswith("-"):
        return ["run", "--config", *arguments[1:]]
    return arguments


def _with_suggestion(message: str, options: list[str]) -> str:
    """jsonargparse's message, with the nearest names where it is about an unknown option or command."""
    if found := re.search(r"[Uu]nrecognized arguments: (--[^\s=]+)", message):
        return str(unknown("option", found[1], options))
    if found := re.search(r"does not accept option '([^']+)'", message):
        return str(unknown("option", found[1], [name.removeprefix("--").replace("-", "_") for name in options]))
    if found := re.search(r"argument command: invalid choice: '([^']+)'", message):
        return str(unknown("command", found[1], COMMANDS))
    return message


def _fail(message: str) -> NoReturn:
    print(f"mist: {message}", file=sys.stderr)
    raise SystemExit(2)
