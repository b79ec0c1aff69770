"""What the tests of runs share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import run

from mist_ext import data, experiment
from mist_ext.data import digits


@pytest.fixture(autouse=True)
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sixth image of the digits source, so that a run takes seconds: 240 to train on, in batches of 32 and 24."""
    source = data.load("digits")
    train, test = (part.subset(torch.arange(0, len(part), 6)) for part in (source.train, source.test))
    monkeypatch.setattr(digits, "digits", lambda: replace(source, train=train, test=test))


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without the figures at its end, which take longer than the rest of it."""
    monkeypatch.setattr(experiment, "write_reports", lambda folder: None)


@pytest.fixture(scope="module")
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
