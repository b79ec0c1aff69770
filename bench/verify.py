"""Verifies every op on small tensors against the oracle, bit for bit: short enough to run under compute-sanitizer.

    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck --error-exitcode 1 \\
        python bench/verify.py --device cuda

Without torch's caching every tensor is an allocation of its own, so that a step beyond it is seen.
"""

from __future__ import annotations

import argparse

import torch
from contests import CONTESTS
from models import DTYPES, SMALL
from problem import Problem

from mist_ext.kernels import compiled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    device = torch.device(parser.parse_args().device)
    if not compiled.available(device):
        raise SystemExit(f"there are no compiled kernels for {device} to verify; `mist info` tells why")
    for dtype, kind in DTYPES.items():
        for contest in CONTESTS:
            contest(Problem(SMALL, kind, device)).verify()
        print(f"{dtype}: {', '.join(contest.op for contest in CONTESTS)} have the oracle's bits on {device}")


if __name__ == "__main__":
    main()
