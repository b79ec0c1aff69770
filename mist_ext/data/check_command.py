"""``mist data check``: examines a data set on the disk and says what it found."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from mist_ext.data import check_test_fraction, download, inspection, load, root_folder
from mist_ext.data.source import Source
from mist_ext.registry import check_data
from mist_ext.system.cores import cores
from mist_ext.system.names import say
from mist_ext.system.progress import Progress


def check(
    name: str, root: str | None, test_fraction: float, fetch: bool, console: Console, remarks: Sequence[str] = ()
) -> int:
    """Print layout, counts, remarks and problems; ``remarks`` on the options come first.

    Returns
    -------
    int
        The exit status: 1 if there is a problem.

    Raises
    ------
    ValueError
        If there is no such data set, or ``test_fraction`` is out of range, before anything is fetched or read.
    """
    check_data(name)
    check_test_fraction(test_fraction)
    if fetch:
        download.fetch(name, root_folder(root), console)
    for text in remarks:
        _say(console, "remark", text)
    try:
        source = load(name, root, test_fraction)
    except (ValueError, OSError) as error:
        _say(console, "problem", str(error))
        return 1
    _say(console, "layout", source.layout)
    console.print(_table(source))
    images = len(source.train) + len(source.test)
    with Progress(console, total=1) as progress:
        progress.begin("reading")
        findings = inspection.examine(source, progress.track)
        progress.advance(f"{images:,} images on {cores()} cores")
    for kind, texts in (("remark", findings.remarks), ("problem", findings.problems)):
        for text in texts:
            _say(console, kind, text)
    if not findings.problems:
        _say(console, "result", "all images can be read, and nothing is wrong")
    return 1 if findings.problems else 0


def _say(console: Console, kind: str, text: str) -> None:
    say(console, f"{kind}: {text}")


def _table(source: Source) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("part", "classes", "images", "fewest in a class", "median", "most"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for part, images in (("training", source.train), ("test", source.test)):
        sizes = inspection.per_class(images, len(source.class_names))
        table.add_row(part, *(f"{number:,}" for number in (len(images.labels.unique()), len(images), *sizes)))
    return table
