"""The command `mist`, in the process of the test: no test waits for Python and torch to start."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mist_ext import cli


@pytest.fixture
def mist(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command; return its exit status, and what it printed on standard output and error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = cli.main(arguments)
        except SystemExit as end:
            status = end.code or 0
        return (int(status), *capsys.readouterr())

    return run
