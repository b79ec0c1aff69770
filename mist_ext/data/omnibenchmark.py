"""OmniBenchmark: concepts of many visual realms (Zhang et al., arXiv 2207.07106), 300 of its classes."""

from __future__ import annotations

from pathlib import Path

from mist_ext.data.class_folders import split_layout
from mist_ext.data.published_data_set import PublishedDataSet
from mist_ext.data.source import Source

DATA_SET = PublishedDataSet(
    name="omnibenchmark",
    folders=("omnibenchmark",),
    layouts=(split_layout("train", "test"), split_layout("train", "val")),
    get="The split of the published results is in the archive that the README of github.com/LAMDA-CL/LAMDA-PILOT "
    "links.",
)


def omnibenchmark(root: Path) -> Source:
    """Return 95,682 images of 300 classes, 10 tasks of 30."""
    return DATA_SET.source(root)
