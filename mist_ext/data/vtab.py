"""VTAB (Zhai et al., arXiv 1910.04867): 50 classes of five of its data sets."""

from __future__ import annotations

from pathlib import Path

from mist_ext.data.class_folders import split_layout
from mist_ext.data.published_data_set import PublishedDataSet
from mist_ext.data.source import Source

DATA_SET = PublishedDataSet(
    name="vtab",
    folders=("vtab", "vtab-cil"),
    layouts=(split_layout("train", "test"), split_layout("train", "val")),
    get="The split of the published results is in the archive that the README of github.com/LAMDA-CL/LAMDA-PILOT "
    "links.",
    tasks=5,
)


def vtab(root: Path) -> Source:
    """Return the images of 50 classes, 5 tasks of 10."""
    return DATA_SET.source(root)
