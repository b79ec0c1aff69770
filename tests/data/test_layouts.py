"""Every published data set in every layout: found by itself, with the right images, labels and class order."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import miniatures
import pytest
from slow import slow

from mist_ext.data import load
from mist_ext.data.source import Source
from mist_ext.data.transforms import RandomCrops, ResizedCrops

COPIES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "cifar100": ("cifar100", miniatures.cifar100, "train, test and meta"),
    "cifar100 written by Python 3": ("cifar100", partial(miniatures.cifar100, python3=True), "train, test and meta"),
    "imagenet_r train, test": ("imagenet_r", miniatures.imagenet_r, "{train,test}/<wnid>/"),
    "imagenet_r train, val": ("imagenet_r", partial(miniatures.imagenet_r, test="val"), "{train,val}/<wnid>/"),
    "imagenet_r lists": ("imagenet_r", miniatures.imagenet_r_tree, "imagenet-r_train.txt"),
    "imagenet_r YAML": ("imagenet_r", partial(miniatures.imagenet_r_tree, style="yaml"), ".yaml"),
    "imagenet_r test list": ("imagenet_r", partial(miniatures.imagenet_r_tree, lists=["test"]), "imagenet-r_test.txt"),
    "imagenet_a": ("imagenet_a", miniatures.imagenet_a, "{train,test}/<wnid>/"),
    "objectnet": ("objectnet", partial(miniatures.numbered, folder="objectnet", classes=200), "{train,test}/<class>/"),
    "omnibenchmark": (
        "omnibenchmark",
        partial(miniatures.numbered, folder="omnibenchmark", classes=300),
        "{train,test}/<class>/",
    ),
    "vtab": ("vtab", partial(miniatures.numbered, folder="vtab", classes=50), "{train,test}/<class>/"),
    "cub200 cub": ("cub200", miniatures.cub200, "{train,test}/<class>/"),
    "cub200 cub_200": ("cub200", partial(miniatures.cub200, folder="cub_200", test="val"), "{train,val}/<class>/"),
    "cub200 official": ("cub200", miniatures.cub200_official, "train_test_split.txt"),
    "cars196": ("cars196", miniatures.cars196, "{train,val}/<class>/"),
    "cars196 cars": ("cars196", partial(miniatures.cars196, folder="cars", test="test"), "{train,test}/<class>/"),
    "cars196 official": ("cars196", miniatures.cars196_official, "cars_test_annos_withlabels.mat"),
    "cars196 nested": ("cars196", partial(miniatures.cars196_official, nested=True), "devkit/"),
}
OTHER_FOLDERS = {
    "objectnet",
    "omnibenchmark",
    "imagenet_r train, val",
    "cub200 cub_200",
    "cars196 cars",
    "cars196 nested",
}  # of the same kind
CLASSES = {"cifar100": 100, "imagenet_r": 200, "imagenet_a": 200, "cub200": 200, "cars196": 196}
CLASSES |= {"objectnet": 200, "omnibenchmark": 300, "vtab": 50}


@pytest.fixture(scope="module", params=[slow(name) if name in OTHER_FOLDERS else name for name in COPIES])
def copy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, str]:
    """A data set's name, where it is, and what its layout says."""
    name, write, words = COPIES[request.param]
    root = tmp_path_factory.mktemp("root")
    write(root)
    return name, root, words


def shown(source: Source) -> list[tuple[int, int]]:
    """Each image's label, and the class that its pixels show."""
    return [
        (int(part.labels[row]), miniatures.class_of(part.read(row)))
        for part in (source.train, source.test)
        for row in range(len(part))
    ]


def test_a_copy_is_found_with_all_its_images_and_labels(copy: tuple[str, Path, str]) -> None:
    name, root, words = copy
    source = load(name, root)
    classes = CLASSES[name]
    assert len(source.class_names) == classes
    assert source.class_names == tuple(sorted(source.class_names))
    for part, count in ((source.train, miniatures.COUNTS[0]), (source.test, miniatures.COUNTS[1])):
        assert part.labels.bincount().tolist() == [count] * classes
    assert all(label == there for label, there in shown(source))
    assert words in source.layout
    assert str(root) in source.layout
    assert source.tasks == (5 if name == "vtab" else 10)
    assert source.transform is (ResizedCrops if name == "cars196" else RandomCrops)
    assert any(source.mean) == (name == "cars196")


@pytest.mark.slow
def test_a_copy_is_found_from_its_own_folder_and_in_a_folder_of_its_name(
    copy: tuple[str, Path, str], tmp_path: Path
) -> None:
    name, root, words = copy
    (own,) = root.iterdir()
    from_above = load(name, root)
    from_inside = load(name, own)
    (tmp_path / own.name).mkdir()
    (tmp_path / own.name / own.name).symlink_to(own)
    nested = load(name, tmp_path)
    for source in (from_inside, nested):
        assert source.class_names == from_above.class_names
        assert source.train.labels.equal(from_above.train.labels)
        assert words in source.layout


def test_both_layouts_of_cub_are_told_apart_and_the_published_one_wins(tmp_path: Path) -> None:
    miniatures.cub200_official(tmp_path)
    assert "CUB_200_2011" in load("cub200", tmp_path).layout
    miniatures.cub200(tmp_path)
    layout = load("cub200", tmp_path).layout
    assert layout.startswith(f"{{train,test}}/<class>/ in {tmp_path / 'cub'}:")
    assert "not used: images/, images.txt, " in layout


def test_a_folder_is_found_however_its_name_is_spelt(tmp_path: Path) -> None:
    miniatures.imagenet_a(tmp_path)
    (tmp_path / "imagenet-a").rename(tmp_path / "ImageNet_A")
    assert len(load("imagenet_a", tmp_path).class_names) == 200
    with pytest.raises(FileNotFoundError):
        load("imagenet_r", tmp_path)


def test_vtab_is_found_in_the_folder_that_its_archive_unpacks_to(tmp_path: Path) -> None:
    miniatures.numbered(tmp_path, "vtab-cil/vtab", 50)
    for root in (tmp_path, tmp_path / "vtab-cil", tmp_path / "vtab-cil" / "vtab"):
        assert len(load("vtab", root).class_names) == 50


def test_hidden_files_and_folders_are_no_images_and_no_classes(tmp_path: Path) -> None:
    miniatures.class_folders(tmp_path, ["a", "b"], miniatures.two_parts("test"))
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / "a" / "._image_0.jpg").write_bytes(b"made by macOS")
    (tmp_path / "train" / "a" / "notes.txt").write_text("no image")
    source = load(f"folder:{tmp_path}")
    assert source.class_names == ("a", "b")
    assert source.train.labels.bincount().tolist() == [miniatures.COUNTS[0]] * 2


@pytest.mark.parametrize("name", CLASSES)
def test_a_missing_data_set_is_met_with_what_was_looked_for_and_where_to_get_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        load(name, tmp_path)
    message = str(missing.value)
    assert f"{name} is not below --data-root {tmp_path}" in message
    for write_name, _, words in COPIES.values():
        assert write_name != name or words in message
    assert "." in message.splitlines()[-1]  # an address
    with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
        load(name, tmp_path / "nowhere")


def test_a_tree_without_a_split_is_refused_with_what_to_do(tmp_path: Path) -> None:
    miniatures.imagenet_r_tree(tmp_path, lists=[])
    with pytest.raises(FileNotFoundError, match=r"one tree without a split.*put imagenet-r_train.txt"):
        load("imagenet_r", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n01443537/image_9.jpg\n", r"lists n01443537/image_9.jpg, which is not there \(1 of 1"),
        ("nothing\n", "names no images"),
        ("n01443537/image_4.jpg\n", r"n01443537/image_4.jpg is in .*train.txt and in .*test.txt"),
    ],
)
def test_a_list_that_does_not_fit_the_tree_is_refused(text: str, message: str, tmp_path: Path) -> None:
    miniatures.imagenet_r_tree(tmp_path)
    (tmp_path / "imagenet-r" / "imagenet-r_train.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        load("imagenet_r", tmp_path)


def test_annotations_without_labels_are_refused(tmp_path: Path) -> None:
    miniatures.cars196_official(tmp_path)
    (tmp_path / "stanford_cars" / "cars_test_annos_withlabels.mat").rename(
        tmp_path / "stanford_cars" / "devkit" / "cars_test_annos.mat"
    )
    with pytest.raises(FileNotFoundError, match=r"cars_test_annos_withlabels.mat is neither in"):
        load("cars196", tmp_path)


def test_a_damaged_list_or_annotation_is_named(tmp_path: Path) -> None:
    miniatures.cub200_official(tmp_path)
    labels = tmp_path / "CUB_200_2011" / "image_class_labels.txt"
    labels.write_text(labels.read_text()[:50])
    with pytest.raises(ValueError, match="another list lacks the entry"):
        load("cub200", tmp_path)
    shutil.rmtree(tmp_path / "CUB_200_2011")
    miniatures.cars196_official(tmp_path)
    annotations = tmp_path / "stanford_cars" / "devkit" / "cars_train_annos.mat"
    for damage in (b"not MATLAB" * 50, annotations.read_bytes()[:3000]):
        annotations.write_bytes(damage)
        with pytest.raises(ValueError, match=r"cars_train_annos.mat is no MATLAB file"):
            load("cars196", tmp_path)
