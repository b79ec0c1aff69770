"""The command ``mist``: run, sweep, predict, report, data, info."""

from __future__ import annotations

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from mist_ext.cli import parsers
from mist_ext.config.typed import typed
from mist_ext.system.names import printable_lines, say, shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``mist``; returns the exit status."""
    given = _yaml_as_option(list(sys.argv[1:] if arguments is None else arguments))
    try:
        options = parsers.make().parse_args(given)
        return COMMANDS[options.command](options)
    except (ValueError, OSError, MemoryError) as error:
        if getattr(error, "on_every_rank", False):
            _fail_together(_sentence(error))
        _fail(_sentence(error))
    except ImportError as error:  # of a library that is damaged, or for which there is no memory
        _fail(f"{error.name or 'a library'} cannot be imported: {error}")
    except RuntimeError as error:
        from mist_ext.system import shortage

        told = shortage.told(error)
        if told is None:
            raise
        _fail(_sentence(told))
    except KeyboardInterrupt as interruption:
        folder = getattr(interruption, "folder", None)
        how = RESUMING.get(given[0]) or (f"; go on with mist run --resume {folder}" if folder else "")
        if not _rank():
            _tell(f"interrupted{how}")
        return 128 + getattr(interruption, "signal", signal.SIGINT)


def run_command(options: Namespace) -> int:
    """``mist run``."""
    from rich.console import Console

    from mist_ext import report
    from mist_ext.config import Config, presets, to_yaml
    from mist_ext.config.option import option_value, read_options
    from mist_ext.distributed import launch, ranks
    from mist_ext.runs import benchmark

    values: dict[str, Any] = {}
    for file in options.config:
        values |= read_options(file, Config)
    flags = parsers.given_options(options)
    values |= flags
    if options.resume is not None:
        if Path(values.get("out") or options.resume) != Path(options.resume) or values.get("overwrite"):
            raise ValueError(f"--resume {options.resume} goes on in that folder; leave --out and --overwrite out")
        values.pop("out", None)
    preset = option_value(Config, "preset", values.get("preset"), "preset is")
    if preset is not None and options.resume is None:
        values = presets.preset(preset, values)
    if options.print_config:
        sys.stdout.write(to_yaml(Config(**values)))
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
    """``mist sweep``."""
    from rich.console import Console
    from rich.text import Text

    from mist_ext.sweep import sweep
    from mist_ext.sweep.table import LEGEND
    from mist_ext.sweep.terminal import SweepTables

    out = options.out or str(Path("runs") / Path(options.grid).stem)
    if _of_several() and "RANK" in os.environ:
        raise ValueError(
            "mist sweep starts processes of its own, one for each run, and cannot be started by torchrun; start it as "
            "it is, or torchrun a single mist run"
        )
    console = Console()
    made = sweep(options.grid, out, typed(options.jobs, int | None, "jobs is"), options.resume, console)
    console.print()
    console.print(SweepTables(made))
    for note in made.notes():
        say(console, note, "yellow" if note.startswith("failed") else "")
    console.print(Text(LEGEND, style="dim"))
    say(console, f"Table and figure: {out}")
    return 1 if made.failures else 0


def predict_command(options: Namespace) -> int:
    """``mist predict``."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mist_ext.runs import classifiers

    top, seed = typed(options.top, int, "top is"), typed(options.seed, int | None, "seed is")
    if top < 1:
        raise ValueError(f"top is {top}, expected at least 1 class")
    missing = [image for image in options.images if not Path(image).is_file()]
    if missing:
        raise FileNotFoundError(f"{missing[0]} is no file; give the paths of images")
    classifier = classifiers.load(options.run, seed)
    console = Console()
    for image, best in zip(options.images, classifier.predict(options.images, top), strict=True):
        say(console, image, style="bold")
        table = Table("class", "score", box=None, padding=(0, 2, 0, 0))
        for name, score in best:
            table.add_row(Text(shown(name)), f"{score:.4f}")
        console.print(table)
    return 0


def report_command(options: Namespace) -> int:
    """``mist report``."""
    from rich.console import Console

    from mist_ext import report

    form = typed(options.format, parsers.FORMATS, "format is")
    experiments = report.read_experiments(options.folders, _tell)
    if not experiments:
        return 1
    if form != "text":
        sys.stdout.write(report.as_text(experiments, form))
        if options.out is not None:
            report.write_report(experiments, options.out, not options.no_figures, _tell)
        return 0
    console = Console()
    _print_report(experiments, console)
    out = options.out or (options.folders[0] if len(options.folders) == 1 else None)
    report.write_report(experiments, out, not options.no_figures, _tell)
    if out is None:
        say(console, "Give --out FOLDER for the joint table, figure and report.html as files.")
    else:
        say(console, f"Tables, figures and report.html: {out}")
    return 0


def data_command(options: Namespace) -> int:
    """``mist data check``."""
    from rich.console import Console

    from mist_ext.config import Config
    from mist_ext.data import check_command

    given = Config(**parsers.given_options(options))
    return check_command.check(options.source, given.data_root, given.test_fraction, given.download, Console())


def info_command(_options: Namespace) -> int:
    """``mist info``."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mist_ext.cli.info import facts

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in facts():
        table.add_row(name, Text(printable_lines(value)))
    Console().print(table)
    return 0


COMMANDS = {
    "run": run_command,
    "sweep": sweep_command,
    "predict": predict_command,
    "report": report_command,
    "data": data_command,
    "info": info_command,
}


# What an interrupted command says about going on.
RESUMING = {"sweep": "; go on with the same command and --resume"}


def _print_report(experiments: Sequence[Any], console: Any) -> None:
    from mist_ext import report

    console.print()
    console.print(report.table(experiments))


def _yaml_as_option(arguments: list[str]) -> list[str]:
    """``mist run FILE ...`` as ``mist run --config FILE ...``."""
    if len(arguments) > 1 and arguments[0] == "run" and not arguments[1].startswith("-"):
        return ["run", "--config", *arguments[1:]]
    return arguments


def _rank() -> int:
    """Which process of a torchrun this is; 0 where there is one."""
    return int(os.environ.get("RANK", "0")) if _of_several() else 0


def _of_several() -> bool:
    return os.environ.get("WORLD_SIZE", "1") != "1" and os.environ.get("RANK", "0").isdecimal()


def _sentence(error: Exception) -> str:
    """What is wrong, without the number that an operating system has for it."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    out_of_memory = "memory ran out; lower --batch-size, --image-memory or --workers, or take a smaller backbone"
    return str(error) or out_of_memory  # which a MemoryError leaves unsaid


def _tell(message: str) -> None:
    """Print what is wrong."""
    print(f"mist: {printable_lines(message)}", file=sys.stderr)


def _fail(message: str) -> NoReturn:
    _tell(f"rank {_rank()}: {message}" if _of_several() and not message.startswith("rank ") else message)
    raise SystemExit(2)


def _fail_together(message: str) -> NoReturn:
    """Of what happens on every rank of a torchrun, one tells."""
    if not _rank():
        _tell(message)
    raise SystemExit(2)
