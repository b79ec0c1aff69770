"""Every folder of a tree is read once, whatever links lead to it; what is not read is named and counted."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import miniatures
import pytest
import torch
from rich.console import Console

from mist_ext import data
from mist_ext.data import load
from mist_ext.data.check_command import check
from mist_ext.data.image_sets import ImageFiles

NAMES = ["ant", "bee", "cat"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    miniatures.class_folders(tmp_path / "insects", NAMES, miniatures.two_parts("test"))
    return tmp_path / "insects"


def checked(folder: Path) -> tuple[int, str]:
    """Exit status and output."""
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    status = check(f"folder:{folder}", None, 0.5, False, Console(file=output, width=200))
    output.seek(0)
    return status, output.read()


def images(folder: Path) -> list[tuple[str, int]]:
    source = load(f"folder:{folder}", test_fraction=0.4)
    return [
        (os.path.relpath(part.where(row), folder), int(part.labels[row]))
        for part in (source.train, source.test)
        for row in range(len(part))
    ]


def picture(path: Path, row: int = 99, **options: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    miniatures.picture(row, row).save(path, **options)


@pytest.mark.parametrize("target", [".", "..", "../..", "../bee", "../../test/cat", "../../test"])
def test_a_link_to_what_is_read_anyway_adds_no_image_and_is_a_problem(tree: Path, target: str) -> None:
    before = images(tree)
    (tree / "train" / "ant" / "more").symlink_to(target)
    assert images(tree) == before
    status, output = checked(tree)
    assert status == 1
    assert "problem: not read: 1 links to folders that are read already" in output
    assert str(tree / "train" / "ant" / "more") in output


def test_a_link_to_a_folder_above_the_data_set_is_not_followed(tree: Path) -> None:
    picture(tree.parent / "elsewhere" / "private.png")
    before = images(tree)
    (tree / "train" / "ant" / "up").symlink_to(tree.parent)
    (tree / "train" / "ant" / "root").symlink_to("/")
    assert images(tree) == before


@pytest.mark.parametrize("name", ["aaa", "zzz"])
@pytest.mark.parametrize("target", ["ant", "../test/ant", ".", "../.."])
def test_a_class_that_is_a_link_to_what_is_read_anyway_is_refused(tree: Path, name: str, target: str) -> None:
    (tree / "train" / name).symlink_to(target)
    with pytest.raises(ValueError, match=f"class folder {tree / 'train' / name} is .* which is read already"):
        load(f"folder:{tree}")
    status, output = checked(tree)
    assert (status, "problem: class folder" in output) == (1, True)


def test_parts_that_are_the_same_folder_are_refused(tmp_path: Path) -> None:
    miniatures.class_folders(tmp_path, NAMES, {"train": 3})
    (tmp_path / "test").symlink_to("train")
    with pytest.raises(ValueError, match=r"test and .*train are the same folder"):
        load(f"folder:{tmp_path}")


def test_links_to_folders_elsewhere_are_followed_once(tmp_path: Path) -> None:
    miniatures.class_folders(tmp_path / "pool", ["ant", "bee"], {"": 5})
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "x").symlink_to(tmp_path / "pool" / "ant")
    (folder / "y").mkdir()
    (folder / "y" / "deep").symlink_to(tmp_path / "pool" / "bee")
    (folder / "y" / "deeper").symlink_to(tmp_path / "pool" / "bee")
    source = load(f"folder:{folder}", test_fraction=0.4)
    assert source.train.labels.bincount().tolist() == [3, 3]
    assert source.test.labels.bincount().tolist() == [2, 2]
    assert len(source.problems) == 1  # deeper


def test_order_is_that_of_sorted_folders_and_names(tree: Path) -> None:
    for name in ("b/1.png", "b/0.png", "a/9.png", "b-/2.png", "Z.png"):
        picture(tree / "train" / "ant" / name)
    source = load(f"folder:{tree}")
    found = [Path(source.train.where(row)) for row in range(len(source.train)) if source.train.labels[row] == 0]
    expected = [
        Path(inside, name) for inside, _, names in sorted(os.walk(tree / "train" / "ant")) for name in sorted(names)
    ]
    assert found == expected


def test_deep_folders_and_many_links_are_read_in_no_time(tmp_path: Path) -> None:
    miniatures.class_folders(tmp_path, ["ant"], {"": 4})
    inside = tmp_path / "ant"
    for _ in range(600):
        (inside / "loop").symlink_to(tmp_path / "ant")
        inside = inside / "d"
        inside.mkdir()
    picture(inside / "last.png")
    assert len(images(tmp_path)) == 5


def test_what_is_not_read_is_counted_by_kind(tree: Path) -> None:
    for place, name in (
        ("train/ant", "a.heic"),
        ("train/bee", "b.HEIC"),
        ("test/cat", "c.svg"),
        ("train", "notes.txt"),
    ):
        (tree / place / name).write_bytes(b"x")
    (tree / "train" / "ant" / ".DS_Store").write_bytes(b"x")
    (tree / "train" / "ant" / ".thumbs").mkdir()
    picture(tree / "train" / "ant" / ".thumbs" / "hidden.png")
    picture(tree / "train" / "astray.png")
    picture(tree / "cover.JPG")
    picture(tree / "val" / "ant.png")
    picture(tree / "train" / "cat" / "sub" / "counts.png")
    source = load(f"folder:{tree}")
    remarks, problems = "\n".join(source.remarks), "\n".join(source.problems)
    assert "not read: 2 hidden files and folders" in remarks
    assert "not read: 1 files whose suffix is no image's (.txt)" in remarks
    assert f"not read: 1 folders beside those of training and test ({tree / 'val'})" in remarks
    assert f"1 folders within class folders, whose images count for the class ({tree / 'train/cat/sub'})" in remarks
    assert "not read: 3 images of formats that are not decoded here; convert them (.heic 2, .svg)" in problems
    assert (
        f"not read: 2 images that are in no class folder ({tree / 'train/astray.png'}, {tree / 'cover.JPG'})"
        in problems
    )
    assert len(source.train) == 10
    status, output = checked(tree)
    assert status == 1
    for text in (*source.problems, *source.remarks):
        assert text in output


def test_a_class_that_is_empty_says_what_it_holds_instead(tree: Path) -> None:
    for image in (tree / "train" / "ant").iterdir():
        image.rename(image.with_suffix(".heic"))
    with pytest.raises(ValueError, match=r"class 'ant' is empty: .*has no images \(not read: 3 .*\.heic 3\)\); add"):
        load(f"folder:{tree}")


def test_a_stray_image_in_train_does_not_make_it_a_class(tree: Path) -> None:
    picture(tree / "train" / "cover.png")
    assert load(f"folder:{tree}").class_names == tuple(NAMES)


def test_a_folder_that_cannot_be_listed_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = os.scandir

    def refused(folder: Any) -> Any:
        if str(folder).endswith("bee"):
            raise PermissionError(13, "Permission denied", str(folder))
        return listing(folder)

    monkeypatch.setattr(os, "scandir", refused)
    status, output = checked(tree)
    assert status == 1
    assert f"problem: {tree / 'train' / 'bee'} cannot be read (Permission denied); make it readable" in output


def test_fifos_devices_and_lost_links_are_named_as_images(tree: Path) -> None:
    os.mkfifo(tree / "train" / "ant" / "pipe.png")
    (tree / "train" / "ant" / "zero.png").symlink_to("/dev/zero")
    (tree / "train" / "ant" / "itself.png").symlink_to("itself.png")
    status, output = checked(tree)
    assert status == 1
    for name, reason in (("pipe", "no regular file"), ("zero", "no regular file"), ("itself", "symbolic links")):
        assert f"{tree / 'train' / 'ant' / name}.png cannot be decoded" in output
        assert reason in output


def test_names_that_are_no_utf8_or_hold_escapes_are_shown_escaped(tree: Path) -> None:
    wild = tree / os.fsdecode(b"train/ant/\xff\x1b[31m.png")
    wild.write_bytes(b"no image")
    picture(tree / os.fsdecode(b"train/ant/\xfe.png"))
    status, output = checked(tree)
    assert status == 1
    assert r"\udcff\x1b[31m.png cannot be decoded" in output
    assert "\x1b" not in output


def test_classes_whose_accents_are_spelt_in_two_ways_are_refused(tree: Path) -> None:
    for name in ("caf\u00e9", "cafe\u0301"):
        picture(tree / "train" / name / "a.png")
    with pytest.raises(ValueError, match="would be one class on some systems"):
        load(f"folder:{tree}")


def test_one_image_in_two_classes_or_parts_is_a_problem_and_twice_in_a_class_a_remark(tree: Path) -> None:
    (tree / "train" / "bee" / "link.jpg").symlink_to(tree / "train" / "ant" / "image_0.jpg")
    (tree / "test" / "bee" / "link.jpg").symlink_to(tree / "train" / "cat" / "image_0.jpg")
    os.link(tree / "train" / "cat" / "image_1.jpg", tree / "train" / "cat" / "again.jpg")
    status, output = checked(tree)
    assert status == 1
    assert "problem: 1 images are in another class of the same part too" in output
    assert "(classes ant and bee)" in output
    assert "problem: 1 test images are also in the training part" in output
    assert "remark: 1 images are copies of others in their class" in output


def test_a_thousand_copies_are_compared_in_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    miniatures.class_folders(tmp_path, ["ant", "bee"], {"train": 1, "test": 1})
    for part in ("train", "test"):
        for name in ("ant", "bee"):
            for row in range(150):
                os.link(tmp_path / "train" / "ant" / "image_0.jpg", tmp_path / part / name / f"{row}.jpg")
    reads = 0
    plain = data.decode.decode

    def counted(path: str, as_shown: bool) -> Any:
        nonlocal reads
        reads += 1
        return plain(path, as_shown)

    monkeypatch.setattr("mist_ext.data.image_sets.decode", counted)
    status, output = checked(tmp_path)
    assert status == 1
    assert reads <= 2 * 604
    assert len(output.splitlines()) < 150
    assert "and 250 more" in output


def test_one_long_path_does_not_make_all_others_long(tmp_path: Path) -> None:
    paths = [tmp_path / f"{row}.png" for row in range(20_000)]
    files = ImageFiles([*paths, tmp_path / "/".join(["d" * 200] * 15) / "\u00e9\udcff.png"], torch.zeros(20_001))
    assert files.where(19_999) == str(paths[-1])
    assert files.where(20_000).endswith("/\u00e9\udcff.png")
    assert len(pickle.dumps(files)) < 200 * 20_000
    assert files.subset(torch.tensor([3, 20_000])).where(1) == files.where(20_000)
    assert files.subset(torch.arange(20_001) > 19_998).where(0) == files.where(19_999)
