"""Fetches a data set's archive, checks it, and unpacks it inside its folder: whole, or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import pkgutil
import tarfile
import tempfile
import urllib.request
from pathlib import Path, PurePosixPath
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from mist_ext.data.published_data_set import Archive, PublishedDataSet
from mist_ext.registry import EMBEDDED, ON_DISK, check_data

BLOCK = 1 << 20
_FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
TIMEOUT = 60  # seconds without a byte


def fetch(name: str, root: Path, console: Console) -> None:
    """Make sure that a data set is below ``root``; does nothing where it is.

    Parameters
    ----------
    name : str
        As given to ``--data``.
    root : Path
        Made if it is not there.
    console : Console
        Shows how far the download is.

    Raises
    ------
    ValueError
        If the data set has no public address, or the archive is not the published one or leads out of its folder.
    OSError
        If it cannot be fetched. In either case nothing is left behind.
    """
    check_data(name)
    if name in EMBEDDED:
        return
    if name not in ON_DISK:
        raise ValueError(f"{name} has no public address; leave --download out")
    data_set: PublishedDataSet = pkgutil.resolve_name(ON_DISK[name].partition(":")[0] + ":DATA_SET")
    if data_set.found(root):
        return
    if data_set.archive is None:
        raise ValueError(f"{name} has no plain public address for --download. {data_set.get}")
    root.mkdir(parents=True, exist_ok=True)
    archive = data_set.archive
    own = root / archive.file_name
    if own.is_file():
        _check(own, _digest(own), archive)
        unpack(own, archive.folder, root)
        return
    with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder:
        path = Path(folder, archive.file_name)
        _check(path, _download(archive.url, path, console), archive)
        unpack(path, archive.folder, root)


def unpack(path: Path, folder: str, root: Path) -> None:
    """Unpack an archive's only folder to ``root``; nothing is left if that fails.

    Raises
    ------
    ValueError
        If it cannot be read, has something else in it, or would write or link to outside its folder.
    """
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=root) as inside:
        try:
            with tarfile.open(path) as archive:
                for member in archive:
                    _refuse_escape(member)
                    archive.extract(member, inside, **_FILTER)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise ValueError(f"{path} cannot be unpacked inside its folder ({error}); get it anew") from error
        if not Path(inside, folder).is_dir():
            raise ValueError(f"{path} has no folder {folder}; get it anew")
        if (root / folder).exists():
            raise ValueError(f"{root / folder} is in the way, and is not what {path.name} has; move or remove it")
        os.replace(Path(inside, folder), root / folder)


def _refuse_escape(member: tarfile.TarInfo) -> None:
    """Refuse a member that is no file or folder, or lies outside the archive; older Pythons have no filter for that."""
    path = PurePosixPath(member.name)
    if not (member.isfile() or member.isdir()) or path.is_absolute() or ".." in path.parts:
        raise tarfile.TarError(f"{member.name} leads outside or is no file")


def _download(url: str, path: Path, console: Console) -> str:
    """Write what is at an address to a file; the MD5."""
    digest = hashlib.md5(usedforsecurity=False)  # what the publishers give; the connection is encrypted
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    try:
        with (
            urllib.request.urlopen(url, timeout=TIMEOUT) as answer,
            open(path, "wb") as file,
            Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars,
        ):
            length = answer.headers.get("Content-Length")
            shown = bars.add_task(path.name, total=int(length) if length else None)
            while block := answer.read(BLOCK):
                file.write(block)
                digest.update(block)
                bars.advance(shown, len(block))
            if length and file.tell() != int(length):
                raise OSError(f"it ended after {file.tell():,} of {int(length):,} bytes")
    except (OSError, http.client.HTTPException) as error:
        raise OSError(
            f"cannot fetch {url} ({error}); try again, or get it by other means and put {path.name} below --data-root"
        ) from error
    return digest.hexdigest()


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.md5(usedforsecurity=False)
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _check(path: Path, found: str, archive: Archive) -> None:
    if found != archive.md5:
        raise ValueError(
            f"{path.name} has the MD5 {found}, expected {archive.md5}: it is damaged, or not what {archive.url} was; "
            "nothing was unpacked"
        )
