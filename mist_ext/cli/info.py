"""What is installed, compiled and seen, for ``mist info`` and bug reports."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import torch

import mist_ext
from mist_ext.kernels import compiled


def facts() -> Iterator[tuple[str, str]]:
    """Names and values, in the order they are shown."""
    yield "mist_ext", f"{mist_ext.__version__} in {compiled.PACKAGE}"
    yield "torch", torch.__version__
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    if compiled.C is None:
        yield "CPU kernels", f"plain PyTorch, slow: {compiled.C_missing}"
    else:
        build = compiled.C.build_info()
        yield "CPU kernels", f"compiled, {compiled.C.instruction_set()} (of {', '.join(compiled.C.instruction_sets())})"
        yield "built with", f"compiler {build['compiler']}, torch {build['torch']}"
        yield "CUDA kernels built", build["cuda"]
    yield "CUDA kernels loaded", "yes" if compiled.cuda else f"no: {compiled.cuda_missing}"
    yield "threads", str(torch.get_num_threads())
    count = torch.cuda.device_count()
    yield "devices", "cpu" if not count else ", ".join(torch.cuda.get_device_name(i) for i in range(count))
