"""What the tests of runs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from miniatures import class_folders
from processes import together
from small_runs import run


@pytest.fixture(autouse=True)
def few_digits(every_nth_digit: Callable[[int], None], shallow: None) -> None:
    """Few images and no figures, so that a run takes seconds: 120 to train on, in batches of 16 and 12."""
    every_nth_digit(12)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of images that another process can load: four classes, 12 and 4 images of each."""
    class_folders(tmp_path / "photographs", ["ant", "bee", "cat", "dog"], {"train": 12, "test": 4})
    return tmp_path / "photographs"


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a run of one process with given options; each is run once."""
    done: dict[str, Path] = {}

    def folder_of(**options) -> Path:
        key = repr(sorted(options.items()))
        if key not in done:
            done[key] = tmp_path_factory.mktemp("alone") / "run"
            run(done[key], **options)
        return done[key]

    return folder_of


@pytest.fixture(scope="session")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a run whose backbone is spread over some processes, with given options; each is run once."""
    done: dict[str, Path] = {}

    def folder_of(size: int, **options) -> Path:
        key = repr((size, sorted(options.items())))
        if key not in done:
            done[key] = tmp_path_factory.mktemp("spread") / "run"
            together(size, lambda _: run(done[key], shard=True, **options))
        return done[key]

    return folder_of
