"""Real processes that work together, as torchrun starts them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from mist_ext.distributed import launch

PROCESSES = multiprocessing.get_context("fork")  # torch is loaded already
PATIENCE = 120.0  # seconds


class Failed(AssertionError):
    """A process ended with an error; the message is its traceback."""


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun sets for a process."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def together(size: int, work: Callable[[int], Any]) -> list[Any]:
    """What ``work(rank)`` returns in each of so many processes of one process group.

    Raises
    ------
    Failed
        With the traceback, if one of them fails.
    """
    outcomes = outcomes_of(size, work)
    for outcome in outcomes:
        if isinstance(outcome, Failed):
            raise outcome
    return outcomes


def outcomes_of(
    size: int, work: Callable[[int], Any], meanwhile: Callable[[list[int]], object] = lambda pids: None
) -> list[Any]:
    """What ``work(rank)`` returns in each process, or `Failed` with what it raised.

    ``meanwhile`` is given the processes' numbers once they are started.
    """
    port = free_port()
    pipes = [PROCESSES.Pipe(duplex=False) for _ in range(size)]
    processes = [PROCESSES.Process(target=_work, args=(rank, port, work, pipes)) for rank in range(size)]
    for process in processes:
        process.start()
    for _, sending in pipes:
        sending.close()
    meanwhile([process.pid for process in processes if process.pid is not None])
    outcomes = [_received(receiving) for receiving, _ in pipes]
    for process in processes:
        process.join(5)
        process.kill()
    return outcomes


def _received(receiving: Connection) -> Any:
    try:
        answered = receiving.poll(PATIENCE)
        return pickle.loads(receiving.recv_bytes()) if answered else Failed(f"no answer in {PATIENCE} s")
    except EOFError:
        return Failed("it ended without a word")


def _work(rank: int, port: int, work: Callable[[int], Any], pipes: list[tuple[Connection, Connection]]) -> None:
    sending = pipes[rank][1]
    for ends in pipes:
        for end in ends:
            if end is not sending:  # so that every end closes with its own process
                end.close()
    os.environ.update(environment(rank, len(pipes), port))
    try:
        with launch.processes():
            _send(sending, work(rank))
    except BaseException as error:
        _send(sending, Failed(f"rank {rank}: {type(error).__name__}: {error}\n{traceback.format_exc()}"))


def _send(sending: Connection, outcome: Any) -> None:
    """Without the connection's own way with tensors, which needs the sender alive when they are received."""
    sending.send_bytes(pickle.dumps(outcome))
