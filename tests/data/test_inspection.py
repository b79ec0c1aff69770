"""`mist data check`: what it finds in a data set, how it says so, and its exit status."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import data_check
import forked
import miniatures
import pytest
import torch
from PIL import Image, PngImagePlugin
from rich.console import Console

from mist_ext.data import inspection, load, published_splits
from mist_ext.data.check_command import check
from mist_ext.data.image_sets import Images
from mist_ext.data.source import Source
from mist_ext.system.progress import Progress

NAMES = ["ant", "bee", "cat"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    miniatures.class_folders(tmp_path / "insects", NAMES, miniatures.two_parts("test"))
    return tmp_path / "insects"


def checked(name: str, root: Path | None = None, **options: Any) -> tuple[int, str]:
    """Exit status and output."""
    output = io.StringIO()
    status = check(name, str(root), 0.5, False, Console(file=output, width=200), **options)
    return status, output.getvalue()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def blank(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("<html>404</html>")


def spoilt_png(path: Path) -> None:
    buffer = io.BytesIO()
    Image.open(path).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def gone(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.jpg")


@pytest.mark.parametrize("spoil", [cut, blank, text, spoilt_png, gone])
def test_an_image_that_cannot_be_decoded_is_named(tree: Path, spoil: Callable[[Path], None]) -> None:
    spoilt = tree / "train" / "bee" / "image_1.jpg"
    spoil(spoilt)
    status, output = checked(f"folder:{tree}")
    assert status == 1
    assert f"problem: {spoilt} cannot be decoded" in output
    assert output.count("problem:") == 1


def test_unreadable_gives_the_rows_that_were_asked_for_in_order(tree: Path) -> None:
    source = load(f"folder:{tree}")
    for row in (7, 2, 5):
        cut(Path(source.train.where(row)))
    passed: list[inspection.Inspected] = []

    def track(inspected: Iterable[inspection.Inspected]) -> Iterable[inspection.Inspected]:
        for each in inspected:
            passed.append(each)
            yield each

    found = inspection.unreadable(source.train, [1, 7, 5, 3], track)
    assert [row for row, _ in found] == [5, 7]
    assert all(source.train.where(row) in message for row, message in found)
    assert sorted(each.row for each in passed) == [1, 3, 5, 7]


def test_every_image_is_examined_once_whatever_the_number_of_threads() -> None:
    images = Images(torch.randint(0, 256, (53, 3, 8, 8), dtype=torch.uint8), torch.zeros(53, dtype=torch.int64))
    one, three = (sorted(inspection.inspect(images, range(53), n), key=lambda each: each.row) for n in (1, 3))
    assert one == three
    assert [each.row for each in one] == list(range(53))
    assert len({each.fingerprint for each in one}) == 53


def test_an_image_in_both_parts_is_named_also_under_another_name_and_class(tree: Path) -> None:
    shutil.copy(tree / "train" / "ant" / "image_0.jpg", tree / "test" / "cat" / "copy.jpg")
    status, output = checked(f"folder:{tree}")
    assert status == 1
    assert "1 test images are also in the training part" in output
    assert (
        f"{tree / 'train' / 'ant' / 'image_0.jpg'} = {tree / 'test' / 'cat' / 'copy.jpg'} (classes ant and cat)"
        in output
    )


def test_an_image_that_was_saved_anew_without_loss_is_found(tree: Path) -> None:
    metadata = PngImagePlugin.PngInfo()
    metadata.add_text("comment", "other bytes, the same pixels")
    with Image.open(tree / "train" / "ant" / "image_0.jpg") as image:
        image.save(tree / "test" / "ant" / "copy.png", pnginfo=metadata)
    assert "copy.png" in checked(f"folder:{tree}")[1]


def test_images_that_agree_only_where_the_fingerprint_looks_are_told_apart() -> None:
    pixels = torch.zeros(2, 3, 128, 128, dtype=torch.uint8)
    other = pixels.clone()
    other[:, :, 0, 0] = 255
    labels = torch.zeros(2, dtype=torch.int64)
    images = [Images(each, labels) for each in (pixels, other)]
    assert inspection.fingerprint(images[0].read(0)) == inspection.fingerprint(images[1].read(0))
    source = Source("folder-made", ("a",), *images, tasks=1)
    assert inspection.examine(source, lambda each, what, count: each).problems == []


def test_a_sound_folder_has_no_problem(tree: Path) -> None:
    status, output = checked(f"folder:{tree}")
    assert status == 0, output
    assert "layout: {train,test}/<class>/ in" in output
    assert "all images can be read, and nothing is wrong" in output
    rows = {words[0]: words[1:] for line in output.splitlines() if (words := line.split())}
    assert rows["training"] == ["3", "9", "3", "3", "3"]
    assert rows["test"] == ["3", "6", "2", "2", "2"]


def test_what_cannot_be_loaded_is_a_problem(tree: Path, tmp_path: Path) -> None:
    shutil.rmtree(tree / "train" / "ant")
    status, output = checked(f"folder:{tree}")
    assert status == 1
    assert "problem: class 'ant' is in" in output
    status, output = checked("cub200", tmp_path)
    assert status == 1
    assert "problem: cub200 is not below" in output
    assert "LAMDA-PILOT" in output


def counted(name: str, train: int, test: int, classes: int | None = None, twice: int = 0) -> Source:
    """A source of different one-coloured images with these counts; the first ``twice`` are in both parts."""
    classes = classes or published_splits.CLASSES[name]
    number = torch.arange(train + test)
    number[train : train + twice] = number[:twice]
    pixels = torch.stack([number >> shift & 255 for shift in (0, 8, 16)], 1).to(torch.uint8)[:, :, None, None]
    parts = (
        Images(each.expand(-1, 3, 2, 2), torch.arange(len(each)) % classes) for each in (pixels[:train], pixels[train:])
    )
    return Source(name, tuple(map(str, range(classes))), *parts, tasks=10)


def examined(source: Source) -> inspection.Findings:
    return inspection.examine(source, lambda each, what, count: each)


@pytest.mark.parametrize(
    ("name", "split"),
    [(name, each) for name, known in published_splits.SPLITS.items() if name != "cifar100" for each in known],
)
def test_published_counts_are_recognised(name: str, split: published_splits.Split) -> None:
    findings = examined(counted(name, split.train, split.test))
    assert findings.problems == []
    assert split.words in findings.remarks[0]


def test_both_splits_of_cub_are_told_apart() -> None:
    official, resampled = (published_splits.in_words("cub200", *counts) for counts in ((5994, 5794), (9430, 2358)))
    assert "official split" in official
    assert "not comparable" in official
    assert "resampled split" in resampled


def test_swapped_cars_are_noticed() -> None:
    (problem,) = examined(counted("cars196", 8041, 8144)).problems
    assert "swapped: 8,041 and 8,144 images, published are 8,144 and 8,041" in problem


def test_other_counts_and_classes_are_a_problem() -> None:
    problems = examined(counted("imagenet_a", 60, 20, classes=20)).problems
    assert problems[0] == "20 classes, expected 200"
    assert "60 training and 20 test images, expected 5,981 and 1,519" in problems[1]


def test_classes_are_counted_where_no_number_of_images_is_known() -> None:
    assert examined(counted("vtab", 60, 20, classes=20)).problems == ["20 classes, expected 50"]
    assert examined(counted("vtab", 60, 20, classes=50)).problems == []


def test_a_few_images_in_both_parts_of_a_published_split_are_a_remark_many_are_a_problem() -> None:
    few = examined(counted("imagenet_a", 5981, 1519, twice=5))
    assert few.problems == []
    assert "The counts are as published, yet 5 test images are also in the training part" in few.remarks[1]
    assert "20 test images" in examined(counted("imagenet_a", 5981, 1519, twice=20)).problems[0]


def test_the_reading_shows_its_progress(tree: Path) -> None:
    source = load(f"folder:{tree}")
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    with Progress(console, total=1) as progress:
        progress.begin("reading")
        inspection.examine(source, progress.track)
        progress._bars.refresh()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "test images" in shown
    assert "6/6" in shown
    assert "left" in shown


def command(*arguments: str, **environment: str) -> tuple[int, str, str]:
    done = forked.run("-m", "mist_ext", "data", "check", *arguments, env={**os.environ, **environment})
    return done.returncode, done.stdout, done.stderr


def test_the_command_says_what_it_found(tmp_path: Path) -> None:
    miniatures.cub200_official(tmp_path)
    cut(next((tmp_path / "CUB_200_2011" / "images").glob("*/*.jpg")))
    status, output, errors = command("cub200", MIST_DATA=str(tmp_path))
    assert status == 1, errors
    assert f"train_test_split.txt, classes.txt in {tmp_path}" in output
    assert "cannot be decoded" in output
    assert "expected 9,430 and 2,358" in output
    status, output, errors = command("cub20")
    assert (status, output) == (2, "")
    assert "did you mean 'cub200'" in errors


@pytest.mark.slow
def test_the_benchmark_compares_the_check_with_pillow(capsys: pytest.CaptureFixture[str]) -> None:
    clock, busy = data_check.measure(images=20, rounds=2, threads=1)
    assert "20 files" in capsys.readouterr().out
    for seconds in (clock, busy):
        assert [len(seconds[name]) for name in (data_check.PROCESSES, data_check.THREADS, data_check.CHECK)] == [
            2,
            2,
            2,
        ]
    assert data_check.ratio([1.0, 2.0, 9.0], [2.0, 2.0, 3.0]) == 1
