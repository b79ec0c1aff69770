"""Class orders that are given: by name, by number, in a file, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from mist_ext.config import Config, presets
from mist_ext.data import class_order
from mist_ext.report import read_experiments
from mist_ext.runs import benchmark

NAMES = ("ant", "bee", "cat", "dog")


@pytest.mark.parametrize("order", [["dog", "ant", "cat", "bee"], ["3", "0", "2", "1"], ["03", "0", "2", "1"]])
def test_classes_are_given_by_name_or_by_number(order: list[str]) -> None:
    assert class_order.given(order, NAMES) == [3, 0, 2, 1]


def test_a_name_that_looks_like_a_number_is_a_name() -> None:
    assert class_order.given(["7", "8", "0"], ("0", "7", "8")) == [1, 2, 0]


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (["dog", "ant", "cta", "bee"], "unknown class in class_order 'cta'; did you mean 'cat'?"),
        (["dog", "ant", "dog", "bee"], "class_order has 'dog' more than once, expected each of 4 classes once"),
        (["dog", "ant"], "class_order lacks 'bee', 'cat', expected each of 4 classes once"),
        (["3", "0", "2", "4"], "unknown class in class_order '4'"),
        (["3", "0", "2", "bee"], "unknown class in class_order '3'"),
        (["3", "0", "-2", "1"], "unknown class in class_order"),
    ],
)
def test_what_is_no_order_of_the_classes_is_named(order: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        class_order.given(order, NAMES)


def test_a_run_takes_a_file_and_keeps_its_content(mist_run: Callable[..., Path], tmp_path: Path) -> None:
    order = [3, 1, 4, 5, 9, 2, 6, 8, 7, 0]
    file = tmp_path / "order.txt"
    file.write_text("".join(f"{number}\n\n" for number in order))
    out = mist_run(class_order=[str(file)], first_task_classes=4, classes_per_task=3)
    (experiment,) = read_experiments([out])
    assert [list(classes) for classes in experiment.runs[0].classes] == [order[:4], order[4:7], order[7:]]
    file.unlink()  # nothing depends on it any more
    written = yaml.safe_load((out / experiment.name / "config.yaml").read_text())
    assert written["class_order"] == list(map(str, order))
    assert Config(**written).class_order == list(map(str, order))


@pytest.fixture
def mist_run(tmp_path: Path) -> Callable[..., Path]:
    def run(**options: object) -> Path:
        from rich.console import Console

        given = {"tuner": ["none"], "method": ["simplecil"], "seeds": [1], "out": str(tmp_path / "out")}
        return benchmark.run(Config(**given, **options), Console(quiet=True))

    return run


@pytest.mark.parametrize(("content", "count"), [("", 0), ("ant\n", 1)])
def test_a_file_without_classes_is_refused(content: str, count: int, tmp_path: Path) -> None:
    file = tmp_path / "order.txt"
    file.write_text(content)
    with pytest.raises(ValueError, match=f"order.txt names {count} classes, expected all, one on each line"):
        Config(class_order=[str(file)])


def test_yaml_may_have_numbers_and_null() -> None:
    assert Config(class_order=[9, 8, "7"]).class_order == ["9", "8", "7"]
    assert Config(class_order=None).class_order == []


def test_a_file_of_another_editor_is_read(tmp_path: Path) -> None:
    file = tmp_path / "order.txt"
    file.write_bytes("\ufeff1\r\n0\r\n".encode())
    assert Config(class_order=[str(file)]).class_order == ["1", "0"]


def test_no_file_is_no_order() -> None:
    with pytest.raises(ValueError, match="class_order is '', expected a file with all classes"):
        Config(class_order=[""])


def test_an_order_takes_the_place_of_a_preset_s_seed() -> None:
    given = presets.preset("mist/imagenet_r", {"class_order": ["1", "0"]})
    assert given["class_order_seed"] is None
    Config(**given).check()


def test_thousands_of_classes_are_ordered_at_once() -> None:
    names = [f"class {number}" for number in range(50_000)]  # in a time that grows with their square: minutes
    assert class_order.given(names[::-1], names) == list(range(50_000))[::-1]


def test_two_rules_for_the_order_contradict_each_other() -> None:
    with pytest.raises(ValueError, match=r"class_order and class_order_seed \(1993\) both fix the order"):
        Config(class_order=["1", "0"], class_order_seed=1993).check()
