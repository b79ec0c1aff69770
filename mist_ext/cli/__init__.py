"""The command ``mist``: run, sweep, predict, cost, report, compare, data, delta, info."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mist_ext.cli import delta, ending, parsers
from mist_ext.cli.flags import given_options
from mist_ext.config.typed import typed
from mist_ext.system.names import say


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command ``mist``; return its exit status."""
    given = _yaml_as_option(list(sys.argv[1:] if arguments is None else arguments))
    try:
        options = parsers.make().parse_args(given)
        return COMMANDS[options.command](options)
    except (ValueError, OSError, MemoryError) as error:
        if getattr(error, "on_every_rank", False):
            ending.fail_together(ending.sentence(error))
        ending.fail(ending.sentence(error))
    except ImportError as error:  # of a library that is damaged, or for which there is no memory
        ending.fail(f"{error.name or 'a library'} cannot be imported: {error}")
    except RuntimeError as error:
        from mist_ext.system import shortage

        told = shortage.told(error)
        if told is None:
            raise
        ending.fail(ending.sentence(told))
    except KeyboardInterrupt as interruption:
        folder = getattr(interruption, "folder", None)
        began = None if "--plan" in given else RESUMING.get(given[0])
        how = began or (f"; go on with mist run --resume {folder}" if folder else "")
        if not ending.rank():
            ending.tell(f"interrupted{how}")
        return 128 + getattr(interruption, "signal", signal.SIGINT)


def run_command(options: Namespace) -> int:
    """Begin a run, or go on with one, and print its table."""
    from rich.console import Console

    from mist_ext import report
    from mist_ext.config import Config, presets, to_yaml
    from mist_ext.config.option import option_value, read_options
    from mist_ext.distributed import launch, ranks
    from mist_ext.runs import benchmark, run_folder

    values: dict[str, Any] = {}
    for file in options.config:
        values |= read_options(file, Config)
    flags = given_options(options)
    values |= flags
    if options.resume is not None:
        if Path(values.get("out") or options.resume) != Path(options.resume) or values.get("overwrite"):
            raise ValueError(f"--resume {options.resume} goes on in that folder; leave --out and --overwrite out")
        values.pop("out", None)
    if "preset" in values:
        values["preset"] = option_value(Config, "preset", values["preset"], "preset is")
    if options.resume is None:
        values = presets.above_preset(values)
    if options.print_config:
        begun = None if options.resume is None else run_folder.read_config(Path(options.resume))
        config = Config(**values) if begun is None else dataclasses.replace(begun, **values)
        config.check()
        sys.stdout.write(to_yaml(config))
        return 0
    console = Console()
    with launch.processes():
        if options.resume is None:
            out = benchmark.run(Config(**values), console, flags)
        else:
            out = benchmark.resume(options.resume, console, **values)
        if ranks.is_first():
            _print_report(report.read_experiments([out]), console)
            say(console, f"Results, tables and figures: {out}")
    return 0


def sweep_command(options: Namespace) -> int:
    """Run every point of a grid, and print its table; return 1 if a point failed."""
    from rich.console import Console

    from mist_ext.report.renderers.terminal import Terminal
    from mist_ext.sweep import Part, sweep

    if ending.of_several() and "RANK" in os.environ:
        raise ValueError(
            "mist sweep starts processes of its own, one for each run, and cannot be started by torchrun; start it as "
            "it is, or torchrun a single mist run"
        )
    part = None if options.part is None else Part.parse(options.part)
    suffix = "" if part is None else f"-part-{part.number}-of-{part.of}"
    out = options.out or str(Path("runs") / (Path(options.grid).stem + suffix))
    jobs, console = typed(options.jobs, int | None, "jobs is"), Console()
    if options.plan:
        from mist_ext.sweep.plan import plan

        tables = plan(options.grid, out, jobs, options.resume, console, part, options.data_root)
        console.print()
        console.print(Terminal(tables))
        return 0
    made = sweep(options.grid, out, jobs, options.resume, console, part, options.data_root)
    console.print()
    console.print(Terminal(made.tables))
    say(console, f"Table and figure: {out}")
    return 1 if made.failures else 0


def predict_command(options: Namespace) -> int:
    """Print what is on images."""
    from rich.console import Console

    from mist_ext.runs import predict_command as command

    top, seed = typed(options.top, int, "top is"), typed(options.seed, int | None, "seed is")
    command.predict(options.run, options.images, top, seed, Console(), typed(options.task, int | None, "task is"))
    return 0


def cost_command(options: Namespace) -> int:
    """Measure what a batch costs each tuner and method."""
    from rich.console import Console

    from mist_ext.config import Config, costly
    from mist_ext.cost.cost_command import cost

    size, repeats = typed(options.image_size, int | None, "image_size is"), typed(options.repeats, int, "repeats is")
    given = given_options(options)
    cost(Config(**(costly.defaults() | given)), size, repeats, options.file, Console(), given)
    return 0


def report_command(options: Namespace) -> int:
    """Print the table of runs, or of a sweep's parts, and write it as files; return 1 if there are no results."""
    from rich.console import Console

    from mist_ext import report
    from mist_ext.report.renderers.terminal import Terminal

    form = typed(options.format, parsers.FORMATS, "format is")
    if report.of_sweep(options.folders):
        from mist_ext.sweep import joining, writing

        table = joining.join(options.folders)
        tables = table.tables
        write: Callable[..., Any] = partial(writing.write_with_page, table)
    else:
        experiments = report.read_experiments(options.folders, ending.tell)
        if not experiments:
            return 1
        tables, write = report.tables(experiments), partial(report.write_report, experiments, tell=ending.tell)
    if form != "text":
        sys.stdout.write(report.FORMS[form](tables))
        if options.out is not None:
            write(options.out, not options.no_figures)
        elif options.no_figures:
            ending.tell(f"no_figures changes nothing: with --format {form} files need --out")
        return 0
    console = Console()
    console.print()
    console.print(Terminal(tables))
    out = options.out or (options.folders[0] if len(options.folders) == 1 else None)
    write(out, not options.no_figures)
    if out is None:
        say(console, "Give --out FOLDER for the joint table, figure and report.html as files.")
    else:
        say(console, f"{'Tables' if options.no_figures else 'Tables, figures'} and report.html: {out}")
    return 0


def compare_command(options: Namespace) -> int:
    """Print a run beside the authors' logs; return 1 if they differ."""
    from rich.console import Console

    from mist_ext import report
    from mist_ext.report.log_comparison import compare_with_logs
    from mist_ext.report.renderers.terminal import Terminal

    tolerances = {name: typed(getattr(options, name), float, f"{name} is") for name in ("tolerance", "loss_tolerance")}
    for name, value in tolerances.items():
        if not value >= 0:
            raise ValueError(f"{name} is {value:g}, expected a number of 0 or more")
    tables, agree = compare_with_logs(report.read_experiments([options.run]), **tolerances)
    Console().print(Terminal(tables))
    return 0 if agree else 1


def data_command(options: Namespace) -> int:
    """Examine a data set; return 1 if something is wrong."""
    from rich.console import Console

    from mist_ext.config import Config
    from mist_ext.config.unused import unused
    from mist_ext.data import check_command

    flags = given_options(options)
    given = Config(data=options.source, **flags)
    where = (given.data, given.data_root, given.test_fraction, given.download)
    return check_command.check(*where, Console(), list(unused(given, flags).values()))


def info_command(_options: Namespace) -> int:
    """Print versions, backend and devices."""
    from rich.console import Console

    from mist_ext.cli.info import table

    Console().print(table())
    return 0


COMMANDS = {
    "run": run_command,
    "sweep": sweep_command,
    "predict": predict_command,
    "cost": cost_command,
    "report": report_command,
    "compare": compare_command,
    "data": data_command,
    "delta": delta.run,
    "info": info_command,
}


# What an interrupted command says about going on.
RESUMING = {"sweep": "; go on with the same command and --resume"}


def _print_report(experiments: Sequence[Any], console: Any) -> None:
    from mist_ext import report

    console.print()
    console.print(report.table(experiments))


def _yaml_as_option(arguments: list[str]) -> list[str]:
    """Write ``mist run FILE ...`` as ``mist run --config FILE ...``."""
    if len(arguments) > 1 and arguments[0] == "run" and not arguments[1].startswith("-"):
        return ["run", "--config", *arguments[1:]]
    return arguments
