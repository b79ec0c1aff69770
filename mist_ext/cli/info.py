"""What is installed, compiled and seen, for ``mist info`` and bug reports."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import torch
from rich.table import Table
from rich.text import Text

import mist_ext
from mist_ext.kernels import compiled
from mist_ext.system.names import printable_lines


def table() -> Table:
    """Return the facts as a table for the terminal."""
    made = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in facts():
        made.add_row(name, Text(printable_lines(value)))
    return made


def facts() -> Iterator[tuple[str, str]]:
    """Yield names and values, in the order in which they are shown."""
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
