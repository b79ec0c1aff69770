"""Python processes that need not start: copies of the test's own, which has torch imported and whatever it patched.

A fork is ended by signals, and ends with a status, as any process. Where the start itself is the point, or what a fresh
interpreter does, use `subprocess`.
"""

from __future__ import annotations

import io
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

from processes import PROCESSES


class Forked:
    """What `subprocess.Popen([sys.executable, *arguments], text=True)` is: a module (``-m``) or a script, at work.

    ``stdout`` and ``stderr`` may be open files; else `communicate` returns what was written.
    """

    def __init__(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdout: Any = None,
        stderr: Any = None,
        start_new_session: bool = False,
    ) -> None:
        self.args = [sys.executable, *map(str, arguments)]
        self._files: list[BinaryIO] = [each or tempfile.TemporaryFile() for each in (stdout, stderr)]  # noqa: SIM115
        reading, writing = os.pipe()
        self.stdin = open(writing, "wb", buffering=0)  # noqa: SIM115
        how = (self.args[1:], cwd, env, (reading, *(each.fileno() for each in self._files)), writing, start_new_session)
        self._process = PROCESSES.Process(target=_work, args=how)
        self._process.start()
        os.close(reading)
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    returncode = property(poll)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.stdin.close()
        return status

    def written(self) -> tuple[str, str]:
        """Return what is on standard output and error so far."""
        parts = []
        for file in self._files:
            parts.append(os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode())
        return parts[0], parts[1]

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        return self.written()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(*arguments: str | Path, timeout: float = 600, **options: Any) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run([sys.executable, *arguments], capture_output=True, text=True)`."""
    process = Forked(*arguments, **options)
    try:
        output, errors = process.communicate(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode or 0, output, errors)


def _popen(command: list[str], stdin: Any, stdout: Any, stderr: Any, **options: Any) -> Forked:
    assert (command[0], stdin, stderr) == (sys.executable, subprocess.PIPE, subprocess.STDOUT)
    return Forked(*command[1:], stdout=stdout, stderr=stdout, **options)


# What a module has in the place of `subprocess` for its processes to be forked.
SUBPROCESS = SimpleNamespace(Popen=_popen, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT)


def _work(
    arguments: list[str],
    cwd: Path | None,
    env: Mapping[str, str] | None,
    ends: tuple[int, ...],
    writing: int,
    new_session: bool,
) -> None:
    os.close(writing)  # or its own end of the pipe would keep it open
    for number, end in enumerate(ends):
        os.dup2(end, number)
    sys.stdin, sys.stdout, sys.stderr = (_text(number, mode) for number, mode in enumerate("rww"))
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if new_session:
        os.setsid()
    if env is not None:
        os.environ.clear()
        os.environ.update(env)
    if cwd is not None:
        os.chdir(cwd)
    warnings.simplefilter("ignore")
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).parent))
        runpy.run_path(arguments[0], run_name="__main__")


def _text(number: int, mode: str) -> io.TextIOWrapper:
    return open(number, mode, encoding="utf-8", buffering=1, closefd=False)
