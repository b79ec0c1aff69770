"""Options of the benchmark suites: which model's shapes, which dtype, how many threads."""

from __future__ import annotations

import pytest
import torch
from problem import DTYPES, MODELS, Problem


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--model", default="vit_b", help=f"{', '.join(MODELS)}, or any timm model")
    parser.addoption("--dtype", default="fp32", choices=DTYPES, help="of parameters and gradients")
    parser.addoption("--threads", default=torch.get_num_threads(), type=int, help="CPU threads; all by default")
    parser.addoption("--device", default="cpu", help="cpu or cuda")


@pytest.fixture
def problem(request: pytest.FixtureRequest) -> Problem:
    torch.set_num_threads(request.config.getoption("--threads"))
    dtype = DTYPES[request.config.getoption("--dtype")]
    return Problem(request.config.getoption("--model"), dtype, torch.device(request.config.getoption("--device")))
