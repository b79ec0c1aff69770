"""ImageNet-A: natural images of 200 ImageNet classes that fool a ResNet-50 (Hendrycks et al., arXiv 1907.07174)."""

from __future__ import annotations

from pathlib import Path

from mist_ext.data.class_folders import split_layout
from mist_ext.data.published_data_set import PublishedDataSet
from mist_ext.data.source import Source

DATA_SET = PublishedDataSet(
    name="imagenet_a",
    folders=("imagenet-a",),
    layouts=(split_layout("train", "test", "<wnid>"), split_layout("train", "val", "<wnid>")),
    get="The split of the published results is in the archive that the README of github.com/LAMDA-CL/LAMDA-PILOT "
    "links; people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar has all images without a split.",
)


def imagenet_a(root: Path) -> Source:
    """Return 7,500 images of 200 classes, 10 tasks of 20."""
    return DATA_SET.source(root)
