"""ObjectNet: household objects in odd places and poses (Barbu et al., NeurIPS 2019), 200 of its classes."""

from __future__ import annotations

from pathlib import Path

from mist_ext.data.class_folders import split_layout
from mist_ext.data.published_data_set import PublishedDataSet
from mist_ext.data.source import Source

DATA_SET = PublishedDataSet(
    name="objectnet",
    folders=("objectnet",),
    layouts=(split_layout("train", "test"), split_layout("train", "val")),
    get="The split of the published results is in the archive that the README of github.com/LAMDA-CL/LAMDA-PILOT "
    "links.",
)


def objectnet(root: Path) -> Source:
    """Return the images of 200 classes, 10 tasks of 20."""
    return DATA_SET.source(root)
