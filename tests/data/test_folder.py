"""folder:PATH takes any tree of class folders, and names what is wrong with one."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import miniatures
import pytest
from rich.console import Console

from mist_ext.config import Config
from mist_ext.data import load
from mist_ext.data.check_command import check

NAMES = ["ant", "bee", "Cat"]  # in sorted order capitals come first


def test_a_split_tree_is_read_in_sorted_order(tmp_path: Path) -> None:
    root = tmp_path / "Insects and cats"
    miniatures.class_folders(root, sorted(NAMES), miniatures.two_parts("val"), suffix="PNG")
    source = load(f"folder:{root}")
    assert source.name == "folder-Insects and cats"
    assert source.class_names == ("Cat", "ant", "bee")
    for part, count in ((source.train, miniatures.COUNTS[0]), (source.test, miniatures.COUNTS[1])):
        assert part.labels.tolist() == sorted(list(range(3)) * count)
        assert [miniatures.class_of(part.read(row)) for row in range(len(part))] == part.labels.tolist()
    assert source.tasks == 3
    assert f"{{train,val}}/<class>/ in {root}" in source.layout


def test_test_comes_before_val(tmp_path: Path) -> None:
    miniatures.class_folders(tmp_path, NAMES, {"train": 2, "val": 1, "test": 4})
    assert len(load(f"folder:{tmp_path}").test) == 12


@pytest.mark.parametrize("fraction", [0.2, 0.5])
def test_of_one_tree_a_fixed_share_of_every_class_is_held_out(tmp_path: Path, fraction: float) -> None:
    miniatures.class_folders(tmp_path, NAMES, {"": 10})
    source, again = (load(f"folder:{tmp_path}", test_fraction=fraction) for _ in range(2))
    assert source.test.labels.bincount().tolist() == [10 * fraction] * 3
    train, test, tested_again = (
        [part.where(row) for row in range(len(part))] for part in (source.train, source.test, again.test)
    )
    assert sorted([*train, *test]) == sorted(map(str, tmp_path.glob("*/*.jpg")))
    assert test == tested_again
    first = [str(path) for name in NAMES for path in sorted((tmp_path / name).iterdir())[: int(10 * fraction)]]
    assert sorted(test) != sorted(first)  # drawn, not the first ones
    assert "--test-fraction" in source.layout


def test_a_fraction_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    miniatures.class_folders(tmp_path, NAMES, {"": 2})
    for fraction in (0.1, 0.9):
        with pytest.raises(ValueError, match=f"class 'Cat' in .* has 2 images, of which a test fraction of {fraction}"):
            load(f"folder:{tmp_path}", test_fraction=fraction)


def test_a_class_of_one_image_is_named_before_larger_ones(tmp_path: Path) -> None:
    for label, name in enumerate(NAMES):
        miniatures.class_folders(tmp_path, [name], {"": 2 - label % 2})
    with pytest.raises(ValueError, match=r"class 'bee' in .* has 1 image, .* as of 2 more classes; add .* or remove"):
        load(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (("Train", "Test"), r"has the class folders 'Test', 'Train', .* call the parts train and test \(or val\)"),
        (("training", "validation"), r"has the class folders 'training', 'validation', .* call the parts train"),
        (("images",), "has one class folder, 'images', .*; give .*images$"),
        (("test",), "has one class folder, 'test', .*; give .*test$"),
    ],
)
def test_parts_are_not_taken_for_classes(tmp_path: Path, parts: tuple[str, ...], told: str) -> None:
    miniatures.class_folders(tmp_path, NAMES, dict.fromkeys(parts, 5))
    (tmp_path / parts[0] / ".DS_Store").touch()
    with pytest.raises(ValueError, match=told):
        load(f"folder:{tmp_path}")


def test_a_class_may_hold_folders_alone(tmp_path: Path) -> None:
    miniatures.class_folders(tmp_path, NAMES, {"insect": 5, "test": 5})
    assert load(f"folder:{tmp_path}").class_names == ("insect", "test")
    (tmp_path / "insect").rename(tmp_path / "Train")
    (tmp_path / "Train" / "ant" / "image_0.jpg").rename(tmp_path / "Train" / "0.jpg")
    assert load(f"folder:{tmp_path}").class_names == ("Train", "test")


@pytest.mark.parametrize("fraction", [-0.2, 0.0, 1.0, 1.5, float("nan")])
@pytest.mark.parametrize("parts", [{"": 10}, {"train": 2, "test": 1}], ids=["one_tree", "split_tree"])
def test_a_fraction_out_of_range_is_refused_also_where_no_image_is_held_out(
    tmp_path: Path, parts: dict[str, int], fraction: float
) -> None:
    miniatures.class_folders(tmp_path, NAMES, parts)
    name, message = f"folder:{tmp_path}", f"test_fraction is {fraction}, expected a share between 0 and 1"
    with pytest.raises(ValueError, match=message):
        load(name, test_fraction=fraction)
    with pytest.raises(ValueError, match=message):
        check(name, None, fraction, False, Console(file=io.StringIO()))
    with pytest.raises(ValueError, match=f"test_fraction is {fraction}, expected "):
        Config(data=name, test_fraction=fraction).check()


def test_a_path_that_is_no_folder_is_met_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"away is no folder; looked for class folders in .*train and .*test"):
        load(f"folder:{tmp_path / 'away'}")
    miniatures.class_folders(tmp_path, NAMES, {"train": 1})
    with pytest.raises(FileNotFoundError, match="has train/ but neither test/ nor val/"):
        load(f"folder:{tmp_path}")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    miniatures.class_folders(tmp_path, NAMES, miniatures.two_parts("test"))
    return tmp_path


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_class_in_one_part_only_is_named(tree: Path, part: str) -> None:
    shutil.rmtree(tree / part / "bee")
    other = {"train": "test", "test": "train"}[part]
    with pytest.raises(ValueError, match=f"class 'bee' is in {tree / other} but not in {tree / part}"):
        load(f"folder:{tree}")


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_empty_class_is_named(tree: Path, part: str) -> None:
    for image in (tree / part / "ant").iterdir():
        image.rename(image.with_suffix(".txt"))
    with pytest.raises(ValueError, match=f"class 'ant' is empty: {tree / part / 'ant'} has no images"):
        load(f"folder:{tree}")


def test_class_folders_that_differ_in_case_only_are_named(tree: Path) -> None:
    shutil.copytree(tree / "train" / "ant", tree / "train" / "Ant")
    if (tree / "train" / "ant").samefile(tree / "train" / "Ant"):
        pytest.skip("this file system has one folder for both names")
    with pytest.raises(ValueError, match=f"classes 'Ant' and 'ant' in {tree / 'train'} differ in case only"):
        load(f"folder:{tree}")
    shutil.rmtree(tree / "train" / "ant")
    with pytest.raises(ValueError, match=r"classes 'Ant' and 'ant' in .*train and .*test differ in case only"):
        load(f"folder:{tree}")


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path} has no class folders"):
        load(f"folder:{tmp_path}")
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    with pytest.raises(ValueError, match=f"{tmp_path / 'train'} has no class folders"):
        load(f"folder:{tmp_path}")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    miniatures.class_folders(tmp_path, ["bus", "car", "train"], {"": 5})
    source = load(f"folder:{tmp_path}", test_fraction=0.4)
    assert source.class_names == ("bus", "car", "train")
    assert (len(source.train), len(source.test)) == (9, 6)
