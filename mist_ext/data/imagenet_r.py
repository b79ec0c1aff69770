"""ImageNet-R: renditions of 200 ImageNet classes (Hendrycks et al., arXiv 2006.16241)."""

from __future__ import annotations

from pathlib import Path

from mist_ext.data.class_folders import split_layout
from mist_ext.data.published_data_set import PublishedDataSet
from mist_ext.data.source import Source
from mist_ext.data.split_lists import list_layout

DATA_SET = PublishedDataSet(
    name="imagenet_r",
    folders=("imagenet-r",),
    layouts=(
        split_layout("train", "test", "<wnid>"),
        split_layout("train", "val", "<wnid>"),
        list_layout("imagenet-r"),
    ),
    get="The split of the published results is in the archive that the README of github.com/LAMDA-CL/LAMDA-PILOT "
    "links; people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar has all images without a split.",
)


def imagenet_r(root: Path) -> Source:
    """Return 30,000 images of 200 classes, 10 tasks of 20."""
    return DATA_SET.source(root)
