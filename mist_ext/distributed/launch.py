"""The process group of a run that torchrun started, from its environment variables."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

NEEDED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LOST = ("connection closed", "connection reset", "remote process", "network error", "timed out", "broken pipe")


class LostRank(ConnectionError):
    """Another process of the run has ended."""


def launched() -> bool:
    """Return whether torchrun, or what sets the same variables, started this process as one of several."""
    given = os.environ.get("WORLD_SIZE", "1")
    if not given.isdecimal():
        raise ValueError(f"the environment variable WORLD_SIZE is {given!r}, expected the number of processes")
    return int(given) > 1


@contextmanager
def processes() -> Iterator[None]:
    """Join the process group of a torchrun, if this is one of several processes: gloo for CPU tensors, NCCL for CUDA.

    Raises
    ------
    ValueError
        If the others cannot be reached; the message says what to look at.
    LostRank
        If one of them ends before this one is done.
    """
    if not launched() or dist.is_initialized():
        yield
        return
    if missing := [name for name in NEEDED if name not in os.environ]:
        raise ValueError(f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {missing[0]} is not set; start with torchrun")
    cuda = torch.cuda.is_available() and dist.is_nccl_available()
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    except (RuntimeError, ValueError) as error:  # DistError is a RuntimeError
        raise ValueError(_why(error)) from error
    try:
        yield
    except RuntimeError as error:
        if not _lost_another(error):
            raise
        raise LostRank(
            f"another process of the run ended or cannot be reached any more ({_first_line(error)}); see what it said, "
            "and go on with the same torchrun and mist run --resume"
        ) from error
    dist.destroy_process_group()  # not after an error: the others might never answer


def _lost_another(error: RuntimeError) -> bool:
    """Return whether an error says that another process has ended; gloo raises plain RuntimeErrors for everything."""
    return isinstance(error, dist.DistNetworkError) or any(sign in str(error).lower() for sign in LOST)


def _first_line(error: Exception) -> str:
    """Return the first sentence of a message, without the line of gloo's source that it begins with."""
    return str(error).strip().split("\n")[0].rpartition("] ")[2].split(". ")[0]


def _why(error: Exception) -> str:
    """Say why the other processes cannot be reached, and what to look at."""
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    message = str(error).strip().split("\n")[0]
    if "EADDRINUSE" in message or "address already in use" in message:
        return f"port {os.environ['MASTER_PORT']} is in use by another program; give torchrun another --master-port"
    if interface := os.environ.get("GLOO_SOCKET_IFNAME") or os.environ.get("NCCL_SOCKET_IFNAME"):
        names = ", ".join(sorted(os.listdir("/sys/class/net"))) if os.path.isdir("/sys/class/net") else "unknown"
        message += f" (the network interface asked for is {interface!r}; this machine has: {names})"
    return f"rank {os.environ['RANK']} cannot reach the other processes at {where}: {message}"
