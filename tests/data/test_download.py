"""--download fetches, checks and unpacks, from a server on this machine; after a failure nothing is left."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import miniatures
import pytest
from rich.console import Console

from mist_ext.data import cifar100, load
from mist_ext.data.download import fetch, unpack

ARCHIVE = cifar100.DATA_SET.archive.file_name
Add = Callable[[tarfile.TarFile], None]


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder without saying so; what is asked for is kept, and a part of the file may be held back."""

    asked: list[str]
    held_back = 0

    def log_message(self, *_: object) -> None:
        self.asked.append(self.path)

    def copyfile(self, source, outputfile) -> None:  # type: ignore[no-untyped-def]
        data = source.read()
        outputfile.write(data[: len(data) - self.held_back])


@pytest.fixture
def handler() -> type[Handler]:
    return type("Handler", (Handler,), {"asked": []})


@pytest.fixture
def served(tmp_path: Path, handler: type[Handler]) -> Iterator[tuple[Path, str]]:
    """A folder, and the address below which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/{ARCHIVE}"
        server.shutdown()
        thread.join()


@pytest.fixture
def made(served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A served archive of a miniature, which takes the place of the published one."""
    folder, url = served
    miniatures.cifar100(tmp_path)
    path = folder / ARCHIVE
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tmp_path / "cifar-100-python", "cifar-100-python")
    offer(path, url, monkeypatch)
    return path


def offer(path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = dataclasses.replace(cifar100.DATA_SET.archive, url=url, md5=hashlib.md5(path.read_bytes()).hexdigest())
    monkeypatch.setattr(cifar100, "DATA_SET", dataclasses.replace(cifar100.DATA_SET, archive=archive))


def quiet() -> Console:
    return Console(file=io.StringIO())


def test_an_archive_is_fetched_once_checked_and_unpacked(made: Path, tmp_path: Path, handler: type[Handler]) -> None:
    root = tmp_path / "new" / "root"
    for _ in range(2):
        fetch("cifar100", root, quiet())
    assert handler.asked == [f"/{ARCHIVE}"]
    assert len(load("cifar100", root).train) == 100 * miniatures.COUNTS[0]
    assert [each.name for each in root.iterdir()] == ["cifar-100-python"]


def test_an_archive_that_is_there_is_checked_and_unpacked(made: Path, tmp_path: Path, handler: type[Handler]) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / ARCHIVE).write_bytes(made.read_bytes()[:-1])
    with pytest.raises(FileNotFoundError, match=f"{ARCHIVE} is there: --download checks and unpacks it"):
        load("cifar100", root)
    with pytest.raises(ValueError, match="has the MD5"):
        fetch("cifar100", root, quiet())
    (root / ARCHIVE).write_bytes(made.read_bytes())
    fetch("cifar100", root, quiet())
    assert handler.asked == []
    assert len(load("cifar100", root).class_names) == 100


def test_a_wrong_checksum_is_named_and_nothing_is_left(made: Path, tmp_path: Path) -> None:
    made.write_bytes(made.read_bytes()[:-1] + b"?")
    root = tmp_path / "root"
    with pytest.raises(
        ValueError, match=f"{ARCHIVE} has the MD5 [0-9a-f]{{32}}, expected {cifar100.DATA_SET.archive.md5}"
    ):
        fetch("cifar100", root, quiet())
    assert list(root.iterdir()) == []


def test_a_download_that_breaks_off_leaves_nothing(made: Path, tmp_path: Path, handler: type[Handler]) -> None:
    handler.held_back = 1000
    root = tmp_path / "root"
    with pytest.raises(OSError, match=rf"cannot fetch .*{ARCHIVE} \(it ended after [\d,]+ of [\d,]+ bytes\)"):
        fetch("cifar100", root, quiet())
    assert list(root.iterdir()) == []


def test_an_interrupted_download_leaves_nothing(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    root = tmp_path / "root"
    monkeypatch.setattr("mist_ext.data.download.Progress.advance", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch("cifar100", root, quiet())
    assert list(root.iterdir()) == []


def test_an_address_that_does_not_answer_is_named(made: Path, tmp_path: Path) -> None:
    made.unlink()
    with pytest.raises(OSError, match=f"cannot fetch .*{ARCHIVE}.*404.*put {ARCHIVE} below --data-root"):
        fetch("cifar100", tmp_path / "root", quiet())


def file(name: str) -> Add:
    """A file in an archive."""

    def add(archive: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))

    return add


def link(name: str, target: str, kind: bytes) -> Add:
    """A link in an archive."""

    def add(archive: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        archive.addfile(member)

    return add


@pytest.mark.parametrize(
    "members",
    [
        [file("folder/../../evil")],
        [file("../evil")],
        [link("folder/out", "../../..", tarfile.SYMTYPE), file("folder/out/evil")],
        [link("folder/out", "/", tarfile.SYMTYPE)],
        [link("folder/out", "../../evil", tarfile.LNKTYPE)],
        [link("folder/null", "", tarfile.CHRTYPE)],
    ],
    ids=["dots", "leading dots", "symbolic link", "absolute link", "hard link", "device"],
)
def test_an_archive_that_leads_out_of_its_folder_is_refused(members: list[Add], tmp_path: Path) -> None:
    (tmp_path / "evil").write_text("as it was")
    root = tmp_path / "root"
    root.mkdir()
    path = tmp_path / "archive.tar"
    with tarfile.open(path, "w") as archive:
        for add in [file("folder/good"), *members]:
            add(archive)
    with pytest.raises(ValueError, match="cannot be unpacked inside its folder"):
        unpack(path, "folder", root)
    assert list(root.iterdir()) == []
    assert (tmp_path / "evil").read_text() == "as it was"


@pytest.mark.parametrize("damage", [b"", b"no archive", None], ids=["empty", "other", "cut"])
def test_an_archive_that_cannot_be_read_is_named(damage: bytes | None, made: Path, tmp_path: Path) -> None:
    made.write_bytes(made.read_bytes()[:20000] if damage is None else damage)
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(ValueError, match=f"{ARCHIVE} cannot be unpacked"):
        unpack(made, "cifar-100-python", root)
    assert list(root.iterdir()) == []


def test_an_archive_of_something_else_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no folder CUB_200_2011"):
        unpack(made, "CUB_200_2011", tmp_path)


@pytest.mark.parametrize("name", ["imagenet_r", "imagenet_a", "cars196"])
def test_where_there_is_no_plain_address_one_sentence_says_where_to_get_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{name} has no plain public address for --download\. \w"):
        fetch(name, tmp_path, quiet())
    with pytest.raises(ValueError, match="leave --download out"):
        fetch("folder:somewhere", tmp_path, quiet())
