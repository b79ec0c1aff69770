"""Calls every op with right and wrong arguments drawn by chance, and says which call repeats what went wrong.

    python tests/fuzz_ops [--calls N] [--seed S] [--first N]

A right call must give the bits of a NumPy oracle that shares no code with the package (oracle.py), with the kernels and
with the plain-PyTorch fallback; a wrong one (spoiling.py) must raise an error of one sentence and leave every byte as
it was. No byte around a tensor may change. The calls are made in a process of their own, so that its end is noticed: a
crash is a fault like any other. Call n of a seed is the same whatever other calls are made.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import oracle
import torch
from arrays import Array, Call, memory, placed, read, surroundings, tensors
from drawing import draw
from spoiling import spoil

from mist_ext.kernels import compiled, ops

HERE = str(Path(__file__).parent)


def fault(op: str, call: Call, arguments: Call, wrong: str | None) -> str | None:
    """Make one call, and say what is not as it should be."""
    given = tensors(arguments)
    before = [memory(t) for t in given]
    around = [surroundings(t) for t in given]
    try:
        result = getattr(ops, op.partition(",")[0])(**arguments)
    except (RuntimeError, ValueError) as error:
        if wrong is None:
            return f"raised {error}"
        if not str(error).strip():
            return "raised an error without a word"
        same = all(np.array_equal(old, memory(t)) for old, t in zip(before, given, strict=True))
        return None if same else f"changed something, and raised {error}"
    if wrong is not None:
        return f"raised nothing, though {wrong}"
    if around != [surroundings(t) for t in given]:
        return "wrote outside of a tensor"
    return difference(getattr(oracle, op.partition(",")[0])(call), call, arguments, result)


def difference(expected: dict, call: Call, arguments: Call, result: object) -> str | None:
    """Where the oracle differs from what a call made of its arguments, and from what it returned."""
    for name, value in {**call, **expected}.items():
        ours = result if name == "result" else arguments[name]
        for i, (own, theirs) in enumerate(zip(listed(ours), listed(value), strict=True)):
            if isinstance(theirs, Array) and read(own).bits() != theirs.bits():
                return f"{name}, tensor {i}, differs from the oracle's"
    return None


def listed(value: object) -> list:
    return value if isinstance(value, list) else [value]


def make(seed: int, number: int) -> tuple[str, str | None]:
    """Make one call in both ways; returns the op and what was wrong with the call, or ends the process."""
    rng = np.random.default_rng([seed, number])
    op, call = draw(rng)
    spoiled = bool(rng.integers(2))
    state = rng.bit_generator.state
    sets, kernels = compiled.C.instruction_sets(), compiled.C
    wrong = None
    for way in ("compiled", "fallback"):
        rng.bit_generator.state = state
        arguments = {name: placed(value) for name, value in call.items()}
        wrong = spoil(rng, op, arguments) if spoiled else None
        if spoiled and wrong is None:
            return op, "nothing could be spoiled"
        kernels.use_instruction_set(sets[number % len(sets)])
        compiled.C = kernels if way == "compiled" else None
        try:
            found = fault(op, call, arguments, wrong)
        finally:
            compiled.C = kernels
        if found:
            print(f"call {number} of seed {seed}, {way} {op}, {wrong or 'a right call'}: {found}", flush=True)
            sys.exit(1)
    return op, wrong


def run(seed: int, first: int, calls: int, crash: int | None) -> None:
    """Make the calls, telling before each one which it is."""
    torch.set_num_threads(2)
    warnings.simplefilter("ignore")  # of the fallback's slowness
    counted: Counter[str] = Counter()
    with np.errstate(all="ignore"):
        for number in range(first, first + calls):
            print(number, flush=True)
            if number == crash:
                os.kill(os.getpid(), signal.SIGKILL)
            op, wrong = make(seed, number)
            counted["right" if wrong is None else "left out" if wrong.startswith("nothing could") else "wrong"] += 1
            counted[op] += 1
    print(", ".join(f"{name}: {count}" for name, count in sorted(counted.items())))


def main() -> int:
    parser = argparse.ArgumentParser(
        "tests/fuzz_ops", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1993)
    parser.add_argument("--first", type=int, default=0, help="the number of the first call")
    parser.add_argument("--here", action="store_true", help="in this process, as for a debugger")
    parser.add_argument("--crash", type=int, help="the number of a call that crashes on purpose")
    given = parser.parse_args()
    if given.here:
        run(given.seed, given.first, given.calls, given.crash)
        return 0
    command = [
        sys.executable,
        HERE,
        "--here",
        f"--seed={given.seed}",
        f"--first={given.first}",
        f"--calls={given.calls}",
    ]
    command += [] if given.crash is None else [f"--crash={given.crash}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    *_, last = [line for line in done.stdout.splitlines() if line] or ["nothing"]
    if done.returncode == 0:
        print(last)
        return 0
    numbers = [line for line in done.stdout.splitlines() if line.isdecimal()]
    number = numbers[-1] if numbers else given.first
    ended = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    print(last if not last.isdecimal() else f"call {number} of seed {given.seed} ended the process by {ended}")
    print(f"again: python tests/fuzz_ops --here --seed {given.seed} --first {number} --calls 1")
    return 1


if __name__ == "__main__":
    sys.exit(main())
