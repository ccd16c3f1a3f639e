"""Files in and out by descriptors: nothing outside the folder is touched, every loop ends."""

import io
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from crank.domain.profile import Limits
from crank.errors import InvalidRequest, TooLarge
from crank.sandbox.artifacts import collect, media_type, put_file
from crank.testing.contracts_sandbox import Shelf

_LIMITS = Limits()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Give the folder that stands for /out."""
    folder = tmp_path / "out"
    folder.mkdir()
    (tmp_path / "outside.txt").write_text("outside")
    yield folder
    # Python's own rmtree recurses and gives up on a tree as deep as one of these tests makes.
    subprocess.run(["rm", "-rf", "--", folder], check=True)


@pytest.fixture
def root(place: Path) -> Iterator[int]:
    """Give its descriptor."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_plain_files_are_taken_with_their_types(place: Path, root: int) -> None:
    """Files at any ordinary depth are stored whole and listed by path."""
    (place / "a/b").mkdir(parents=True)
    (place / "a/b/c.json").write_text("{}")
    (place / "z.csv").write_text("1,2")
    (place / "empty").touch()
    shelf = Shelf()
    artifacts, skipped = collect(root, _LIMITS, shelf)
    assert [(item.path, item.size_bytes, item.media_type) for item in artifacts] == [
        ("empty", 0, "application/octet-stream"),
        ("z.csv", 3, "text/csv"),
        ("a/b/c.json", 2, "application/json"),
    ]
    assert [shelf.blobs[item.sha256] for item in artifacts] == [b"", b"1,2", b"{}"]
    assert skipped == ()


def test_everything_else_is_skipped_with_a_cause(place: Path, root: int) -> None:
    """Links, pipes, sockets and strange names are named and not opened."""
    (place / "link").symlink_to(place.parent / "outside.txt")
    (place / "folder").symlink_to(place.parent)
    (place / "loop").symlink_to("loop")
    os.mkfifo(place / "pipe")
    (place / "new\nline").touch()
    (place / "\u202eexe.txt").touch()
    os.close(os.open(os.fsencode(place) + b"/bad\xff", os.O_CREAT))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "sock"))
        shelf = Shelf()
        artifacts, skipped = collect(root, _LIMITS, shelf)
    assert (artifacts, shelf.blobs) == ((), {})
    causes = {entry.path: entry.cause for entry in skipped}
    assert causes["link"] == causes["folder"] == causes["loop"] == "a symbolic link"
    assert causes["pipe"] == "a named pipe"
    assert causes["sock"] == "a socket"
    assert len(causes) == 8
    assert all(path.isprintable() for path in causes)


def test_depth_and_length_are_bounded(place: Path, root: int) -> None:
    """A tree deeper than any path may be is cut off, not followed to its end."""
    here = os.open(place, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d" * 20, dir_fd=here)
        deeper = os.open("d" * 20, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    artifacts, skipped = collect(root, _LIMITS, Shelf())
    assert artifacts == ()
    assert len(skipped) == 1
    assert "not plain" in skipped[0].cause


def test_count_and_bytes_are_bounded(place: Path, root: int) -> None:
    """More files or bytes than allowed are counted, not taken; a sparse file is not read."""
    for number in range(20):
        (place / f"{number:02}").write_text("x")
    with (place / "sparse").open("wb") as target:
        target.truncate(1 << 40)
    artifacts, skipped = collect(root, replace(_LIMITS, artifacts=5), Shelf())
    assert len(artifacts) == 5
    assert len(skipped) == 16
    artifacts, skipped = collect(root, _LIMITS, Shelf())
    assert len(artifacts) == 20
    assert [entry.path for entry in skipped] == ["sparse"]


def test_hard_to_open_is_opened_for_its_owner(place: Path, root: int) -> None:
    """Files and folders whose permissions were taken away are still collected."""
    (place / "locked").mkdir()
    (place / "locked/file").write_text("x")
    (place / "locked/file").chmod(0)
    (place / "locked").chmod(0)
    artifacts, _ = collect(root, _LIMITS, Shelf())
    assert [item.path for item in artifacts] == ["locked/file"]


def test_files_are_put_with_their_folders(place: Path, root: int) -> None:
    """A file arrives whole, in folders made on the way."""
    put_file(root, "a/b/c.txt", io.BytesIO(b"content"), None)
    put_file(root, "a/d.txt", io.BytesIO(b""), None)
    assert (place / "a/b/c.txt").read_bytes() == b"content"
    assert (place / "a/d.txt").exists()


@pytest.mark.parametrize("path", ["link/x", "twice", "file/x"])
def test_no_link_is_followed_in(path: str, place: Path, root: int) -> None:
    """Neither a link nor a file in the way is followed or replaced."""
    (place / "link").symlink_to(place.parent)
    (place / "twice").symlink_to("nowhere")
    (place / "file").touch()
    with pytest.raises(InvalidRequest):
        put_file(root, path, io.BytesIO(b"x"), None)
    assert not (place.parent / "x").exists()
    assert not (place / "nowhere").exists()


def test_a_full_folder_is_too_large(place: Path, root: int) -> None:
    """A source that does not fit is the caller's excess, not a fault of the sandbox."""

    class Full(io.RawIOBase):
        def readinto(self, buffer: object) -> int:
            raise OSError(28, "No space left on device")

        def readable(self) -> bool:
            return True

    with pytest.raises(TooLarge):
        put_file(root, "x", io.BufferedReader(Full()), None)


def test_types_come_from_names_alone() -> None:
    """The machine's own tables have no say."""
    assert media_type("a.md") == "text/markdown"
    assert media_type("page.HTML") == "text/html"
    assert media_type("a.tar.gz") == "application/octet-stream"
    assert media_type("README") == "application/octet-stream"
