"""The embedded data are the same in another process, with other hashes of strings and another number of threads."""

from __future__ import annotations

import json
import subprocess
import sys

import torch
from data_digests import digests


def test_another_process_with_another_thread_count_gets_the_same_images() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        here = digests()
    finally:
        torch.set_num_threads(before)
    script = sys.modules[digests.__module__].__file__
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == here
