"""Options of the benchmark suites: which model's shapes, which dtype, how many threads, which device."""

from __future__ import annotations

import pytest
import torch
from models import DTYPES, MODELS, layout, model_name
from problem import Problem
from timing import Stopwatch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--model", type=model_name, default="vit_b", help=f"{', '.join(MODELS)}, or any timm model")
    parser.addoption("--dtype", default="fp32", choices=DTYPES, help="of parameters and gradients")
    parser.addoption("--threads", default=torch.get_num_threads(), type=int, help="CPU threads; all by default")
    parser.addoption("--device", default="cpu", help="cpu or cuda")


@pytest.fixture(scope="session")
def problem(request: pytest.FixtureRequest) -> Problem:
    """The model's tensors, the same for all benchmarks."""
    torch.set_num_threads(request.config.getoption("--threads"))
    model, dtype, device = (request.config.getoption(name) for name in ("--model", "--dtype", "--device"))
    return Problem(layout(model), DTYPES[dtype], torch.device(device))


@pytest.fixture(scope="session")
def stopwatch(problem: Problem) -> Stopwatch:
    """What empties the caches."""
    return Stopwatch(problem.device)
