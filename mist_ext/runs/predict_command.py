"""``mist predict``: names what is on images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mist_ext.runs import classifiers
from mist_ext.system.names import say, shown


def predict(
    run: str, images: Sequence[str], top: int, seed: int | None, console: Console, task: int | None = None
) -> None:
    """Print the best classes of each image, with their scores.

    Parameters
    ----------
    run : str
        Folder of an experiment, or of a run that has one only.
    images : sequence of str
        Paths.
    top : int
        How many classes are printed.
    seed : int, optional
        Whose classifier; by default the first saved.
    console : Console
    task : int, optional
        The last task that the classifier has learned; by default all.

    Raises
    ------
    ValueError
        If ``top`` is not positive, or the classifier cannot be loaded.
    FileNotFoundError
        If an image or the run is not there.
    """
    if top < 1:
        raise ValueError(f"top is {top}, expected at least 1 class")
    missing = [image for image in images if not Path(image).is_file()]
    if missing:
        raise FileNotFoundError(f"{missing[0]} is no file; give the paths of images")
    classifier = classifiers.load(run, seed, task)
    for image, best in zip(images, classifier.predict(images, top), strict=True):
        say(console, image, style="bold")
        table = Table("class", "score", box=None, padding=(0, 2, 0, 0))
        for name, score in best:
            table.add_row(Text(shown(name)), f"{score:.4f}")
        console.print(table)
