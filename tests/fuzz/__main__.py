"""Reads damaged files: each is to end in an error that names it, or well, in bounded time and memory.

    python tests/fuzz COUNT [KIND ...]      so many cases of each kind, all kinds by default
    python tests/fuzz KIND NUMBER           one case, with its traceback

A case is a function of its kind and number. A crash or a hang ends the process, and says in which case it was.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from types import FrameType

sys.path.append(str(Path(__file__).parents[1] / "support"))  # for what writes files

from kinds import KINDS, make

from mist_ext.system import peak_memory

SECONDS, BYTES = 20, 2**28  # that a case may take, beside what the process has
MARK = "case"


def case(kind: str, number: int, folder: Path, whole: bytes) -> str | None:
    """Read a damaged file; what is wrong with how that ended, if anything."""
    one = KINDS[kind]
    file = folder / one.file
    file.write_bytes(one.damage(random.Random(f"{kind} {number}"), whole))
    one.fit(folder)
    peak_memory.give_back()
    peak_memory.reset(None)
    before = peak_memory.since_reset(None)
    faulthandler.dump_traceback_later(2 * SECONDS, exit=True)
    signal.alarm(SECONDS)
    wrong = None
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            one.read(folder)
    except (ValueError, OSError) as error:
        names = (str(folder), file.name, "the checkpoint")
        if not any(name in str(error) for name in names) or "\n" in str(error):
            wrong = "".join(traceback.format_exception(error))
    except BaseException as error:
        wrong = "".join(traceback.format_exception(error))
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
    taken = peak_memory.since_reset(None) - before
    if wrong is None and taken > BYTES:
        wrong = f"took {taken / 2**20:.0f} MiB"
    return wrong


def slow(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"took more than {SECONDS} seconds")


def main() -> int:
    faulthandler.enable()
    signal.signal(signal.SIGALRM, slow)
    first, *rest = sys.argv[1:]
    cases = [(first, int(rest[0]))] if first in KINDS else []
    if not cases:
        cases = [(kind, number) for kind in rest or KINDS for number in range(0, int(first), KINDS[kind].every)]
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder, made = Path(temporary, "folder"), ""
        for kind, number in cases:
            if kind != made:
                began = time.perf_counter()
                make(folder, kind)
                whole, made = (folder / KINDS[kind].file).read_bytes(), kind
                KINDS[kind].read(folder)  # a whole one is read, and what that imports is there
                used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (used + 8 * BYTES, resource.RLIM_INFINITY))
            print(MARK, kind, number, file=sys.stderr, flush=True)
            if wrong := case(kind, number, folder, whole):
                failed += 1
                print(f"{kind} {number}: {wrong}", flush=True)
            if number == max(n for k, n in cases if k == kind):
                print(f"{kind}: {time.perf_counter() - began:.1f} s", flush=True)
    print(f"{len(cases)} cases, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
