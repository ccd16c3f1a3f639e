"""Files in and out by descriptors: nothing outside the folder is touched, every loop ends."""

import contextlib
import io
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from crank.domain.profile import Limits
from crank.errors import InvalidRequest
from crank.sandbox.artifacts import Bounded, media_type, survey
from crank.sandbox.session_files import create_file, list_folder, open_file, remove

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


def _content(root: int, path: str) -> bytes:
    descriptor, size = open_file(root, path)
    with os.fdopen(descriptor, "rb") as source:
        content = source.read()
    assert len(content) == size
    return content


def _put(root: int, path: str, content: bytes, *, replace: bool = False) -> None:
    with os.fdopen(create_file(root, path, replace=replace), "wb") as target:
        target.write(content)


def test_plain_files_are_listed_and_opened(place: Path, root: int) -> None:
    """Files at any ordinary depth are stored whole and listed by path."""
    (place / "a/b").mkdir(parents=True)
    (place / "a/b/c.json").write_text("{}")
    (place / "z.csv").write_text("1,2")
    (place / "empty").touch()
    found = survey(root, _LIMITS)
    assert found.files == (("empty", 0), ("z.csv", 3), ("a/b/c.json", 2))
    assert found.skipped == ()
    assert [_content(root, path) for path, _ in found.files] == [b"", b"1,2", b"{}"]
    assert [media_type(path) for path, _ in found.files] == [
        "application/octet-stream",
        "text/csv",
        "application/json",
    ]


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
        found = survey(root, _LIMITS)
        for name in ("link", "pipe", "sock"):
            with pytest.raises(OSError, match=r"."):
                open_file(root, name)
    assert found.files == ()
    causes = {entry.path: entry.cause for entry in found.skipped}
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
    found = survey(root, _LIMITS)
    assert found.files == ()
    assert len(found.skipped) == 1
    assert "not plain" in found.skipped[0].cause


def test_count_and_bytes_are_bounded(place: Path, root: int) -> None:
    """More files or bytes than allowed are counted, not taken; a sparse file is not read."""
    for number in range(20):
        (place / f"{number:02}").write_text("x")
    with (place / "sparse").open("wb") as target:
        target.truncate(1 << 40)
    found = survey(root, replace(_LIMITS, artifacts=5))
    assert (len(found.files), len(found.skipped)) == (5, 16)
    found = survey(root, _LIMITS)
    assert len(found.files) == 20
    assert [entry.path for entry in found.skipped] == ["sparse"]


def test_hard_to_open_is_opened_for_its_owner(place: Path, root: int) -> None:
    """Files and folders whose permissions were taken away are still collected."""
    (place / "locked").mkdir()
    (place / "locked/file").write_text("x")
    (place / "locked/file").chmod(0)
    (place / "locked").chmod(0)
    assert survey(root, _LIMITS).files == (("locked/file", 1),)
    assert _content(root, "locked/file") == b"x"


def test_files_are_put_with_their_folders(place: Path, root: int) -> None:
    """A file arrives whole, in folders made on the way."""
    _put(root, "a/b/c.txt", b"content")
    _put(root, "a/d.txt", b"")
    assert (place / "a/b/c.txt").read_bytes() == b"content"
    assert (place / "a/d.txt").exists()


@pytest.mark.parametrize("replace_", [False, True])
@pytest.mark.parametrize("path", ["link/x", "twice", "file/x", "folder"])
def test_no_link_is_followed_in(path: str, replace_: bool, place: Path, root: int) -> None:
    """Neither a link nor a file in the way is followed or replaced."""
    (place / "link").symlink_to(place.parent)
    (place / "twice").symlink_to("nowhere")
    (place / "file").touch()
    (place / "folder").mkdir()
    with pytest.raises(InvalidRequest):
        create_file(root, path, replace=replace_)
    assert not (place.parent / "x").exists()
    assert not (place / "nowhere").exists()


def test_a_file_is_replaced_only_when_asked(place: Path, root: int) -> None:
    """A path given twice is refused, unless the new content is meant to take the old one's place."""
    _put(root, "x", b"first")
    with pytest.raises(InvalidRequest):
        create_file(root, "x", replace=False)
    assert (place / "x").read_bytes() == b"first"
    _put(root, "x", b"new", replace=True)
    assert (place / "x").read_bytes() == b"new"


def test_folders_are_listed_by_name(place: Path, root: int) -> None:
    """A listing names kinds and sizes, follows no link and shows any name as text."""
    (place / "b").mkdir()
    (place / "a.txt").write_text("123")
    (place / "link").symlink_to(place.parent)
    listed = list_folder(root, "", most=10)
    assert [(name, kind, size) for name, kind, size, _ in listed] == [
        ("a.txt", "file", 3),
        ("b", "folder", 0),
        ("link", "other", 0),
    ]
    assert len(list_folder(root, "", most=2)) == 2
    with pytest.raises(OSError, match=r"."):
        list_folder(root, "link", most=10)


def test_what_is_removed_is_beneath(place: Path, root: int) -> None:
    """A folder goes with what it holds; a link goes, what it names stays; nothing outside is reached."""
    (place / "deep/er").mkdir(parents=True)
    (place / "deep/er/file").touch()
    (place / "link").symlink_to(place.parent / "outside.txt")
    (place / "way").symlink_to(place.parent)
    remove(root, "deep")
    remove(root, "link")
    assert sorted(os.listdir(place)) == ["way"]
    with pytest.raises(OSError, match=r"."):
        remove(root, "way/outside.txt")
    assert (place.parent / "outside.txt").read_text() == "outside"


def test_types_come_from_names_alone() -> None:
    """The machine's own tables have no say."""
    assert media_type("a.md") == "text/markdown"
    assert media_type("page.HTML") == "text/html"
    assert media_type("a.tar.gz") == "application/octet-stream"
    assert media_type("README") == "application/octet-stream"


def test_a_file_is_read_no_further_than_was_promised(place: Path) -> None:
    """A file that grows while it is read ends where it ended when it was counted, and is known to have grown."""
    (place / "log").write_bytes(b"0123456789")
    bounded = Bounded(os.open(place / "log", os.O_RDONLY), 4)
    with io.BufferedReader(bounded) as reader:
        assert reader.read() == b"0123"
        assert (bounded.passed_bytes, bounded.grew()) == (4, True)
    whole = Bounded(os.open(place / "log", os.O_RDONLY), 10)
    with io.BufferedReader(whole) as reader:
        assert reader.read(100) == b"0123456789"
        assert not whole.grew()


def test_folders_in_folders_are_removed_however_deep(root: int, place: Path) -> None:
    """A tree that is deeper than a path may be long, and than Python may recurse, is removed, and the rest stays."""
    (place / "stays").write_text("x")
    folder = os.open(place, os.O_RDONLY)
    for _ in range(3_000):
        os.mkdir("deep", dir_fd=folder)
        deeper = os.open("deep", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = deeper
    os.close(folder)
    for _ in range(50):
        with contextlib.suppress(OSError):
            # On a drowning machine it takes more than one call; each one does a part.
            remove(root, "deep")
            break
    assert [entry.name for entry in place.iterdir()] == ["stays"]
