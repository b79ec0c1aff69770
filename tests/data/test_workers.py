"""Worker processes that decode images: real ones, and real signals."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from mist_ext.data.batches import Batches
from mist_ext.data.image_sets import Images
from mist_ext.data.source import Source
from mist_ext.data.stream import Stream, views_of

# On Linux workers are forked, and what a test replaces is replaced in them too.
pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="this system has no signal masks")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_a_worker_has_its_handlers_does_not_end_it(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Images(torch.arange(60, dtype=torch.uint8).reshape(5, 3, 2, 2), torch.tensor([0, 1, 0, 1, 0]))
    source = Source("made", ("a", "b"), part, part, 1)
    (task,) = Stream(source, 2, 0, views_of(source, 2, workers=2))

    def struck(_threads: int) -> None:  # torch's worker calls it after it has set its own handlers, before ours
        os.kill(os.getpid(), number)
        time.sleep(0.1)
        (tmp_path / str(os.getpid())).touch()

    monkeypatch.setattr(torch, "set_num_threads", struck)
    labels = torch.cat([labels for _, labels in Batches(task.train, 2, None)])
    assert labels.tolist() == task.train.labels.tolist()
    assert len(list(tmp_path.iterdir())) == 2
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGINT, signal.SIGTERM}
