"""The process of one point: ``python -m mist_ext.sweep.worker FOLDER`` runs what ``run.yaml`` there says.

It is started with a pipe as its standard input. When the sweep is gone, even killed, the pipe ends, and the run stops
as on SIGTERM: with its state saved. Nothing is left behind that would work on.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from pathlib import Path

from rich.console import Console

from mist_ext.runs import benchmark
from mist_ext.runs.interruption import Interrupted
from mist_ext.sweep.point_results import ERROR
from mist_ext.system import lock
from mist_ext.system.files import write_atomically


def main(folder: Path) -> int:
    """Begin or go on with the run; an error is left in the folder, and its first line says what it is."""
    threading.Thread(target=_stop_with_the_sweep, daemon=True).start()
    try:
        with lock.locked(folder, wait=True):  # where a sweep was killed, the run that it left still saves its state
            pass
        # A sweep ends in one table. `mist report` draws the figures of any point, which take longer than a small run.
        benchmark.resume(folder, Console(width=120), figures=False)
    except Interrupted as interruption:
        return 128 + interruption.signal
    except Exception as error:
        first = " ".join(f"{type(error).__name__}: {error}".split())
        write_atomically(folder / ERROR, f"{first}\n\n{traceback.format_exc()}")
        return 1
    return 0


def _stop_with_the_sweep() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
