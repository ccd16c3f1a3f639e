"""A stranger's files in a user's folder: whole or not at all, never through a link, never over what was not shown."""

import hashlib
import io
import os
import stat
from pathlib import Path

import pytest

from crank.cli import user_folder
from crank.cli.user_folder import UserFolder
from crank.domain.rules.apply import Found
from crank.errors import Conflict, InvalidRequest


class Kept:
    """What was handed over to be kept."""

    def __init__(self) -> None:
        self.originals: dict[str, bytes] = {}

    def keep(self, path, original):
        """Read one original."""
        self.originals[path] = original.read()


@pytest.fixture
def home(tmp_path):
    """Give a folder of the user, beside a secret that nobody may reach."""
    (tmp_path / "secret").write_text("precious")
    folder = tmp_path / "docs"
    folder.mkdir()
    return folder


def write(folder: UserFolder, path: str, content: bytes, shown: Found | None = None, kept: Kept | None = None) -> None:
    """Write as the command does, with what was shown a moment ago unless said."""
    folder.write(path, io.BytesIO(content), shown=shown or folder.look(path), keep=(kept or Kept()).keep)


def names(home: Path) -> list[str]:
    """Return everything in the folder."""
    return sorted(str(path.relative_to(home)) for path in home.rglob("*"))


def test_a_new_file_appears_whole_with_its_folders(home):
    """It is readable as others are, runnable for nobody, and nothing else is left beside it."""
    with UserFolder(home) as folder:
        assert folder.look("a/b.txt") == Found()
        write(folder, "a/b.txt", b"new")
    assert (home / "a/b.txt").read_bytes() == b"new"
    assert not stat.S_IMODE((home / "a/b.txt").stat().st_mode) & 0o111
    assert names(home) == ["a", "a/b.txt"]


def test_a_file_is_replaced_and_its_original_kept(home):
    """The original goes to the keeper first; mode stays but for what makes it runnable or sets an id."""
    (home / "run.sh").write_bytes(b"old")
    (home / "run.sh").chmod(0o4754)
    kept = Kept()
    with UserFolder(home) as folder:
        found = folder.look("run.sh")
        assert (found.sha256, found.size_bytes) == (hashlib.sha256(b"old").hexdigest(), 3)
        write(folder, "run.sh", b"evil", kept=kept)
    assert (home / "run.sh").read_bytes() == b"evil"
    assert stat.S_IMODE((home / "run.sh").stat().st_mode) == 0o644
    assert kept.originals == {"run.sh": b"old"}
    assert names(home) == ["run.sh"]


def test_owners_stay(home):
    """A file of another user is still theirs after root applied a job."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    (home / "a").write_bytes(b"old")
    os.chown(home / "a", 1234, 2345)
    with UserFolder(home) as folder:
        write(folder, "a", b"new")
    found = (home / "a").stat()
    assert (found.st_uid, found.st_gid) == (1234, 2345)


@pytest.mark.parametrize("make", ["link", "folder", "pipe"])
def test_what_is_no_file_blocks(home, make):
    """A link, a folder or a pipe in the place of a file is told, and nothing is written."""
    target = home / "a"
    {"link": lambda: target.symlink_to("../secret"), "folder": target.mkdir, "pipe": lambda: os.mkfifo(target)}[make]()
    with UserFolder(home) as folder:
        assert folder.look("a").blocked
        with pytest.raises(Conflict):
            write(folder, "a", b"evil", shown=Found("0" * 64, 1, 1))
        with pytest.raises(Conflict):
            write(folder, "a", b"evil", shown=Found())
    assert (home.parent / "secret").read_text() == "precious"
    assert names(home) == ["a"]


def test_a_folder_that_is_a_link_blocks(home):
    """No step down follows a link, wherever it leads."""
    (home / "sub").symlink_to("..")
    with UserFolder(home) as folder:
        assert folder.look("sub/secret").blocked
        with pytest.raises(Conflict):
            write(folder, "sub/new", b"evil", shown=Found())
    assert sorted(path.name for path in home.parent.iterdir()) == ["docs", "secret"]


def test_a_twin_by_case_blocks(home):
    """A file or a folder that is there under another spelling is not doubled."""
    (home / "Readme").write_text("x")
    (home / "Sub").mkdir()
    with UserFolder(home) as folder:
        assert "alike" in str(folder.look("README").blocked)
        assert "alike" in str(folder.look("sub/a").blocked)
        assert folder.look("Readme").blocked is None


# --- between the preview and the write ---------------------------------------------------------


def test_a_file_that_appeared_is_not_overwritten(home):
    """What was shown as new is refused when something stands there by then."""
    with UserFolder(home) as folder:
        shown = folder.look("a")
        (home / "a").write_text("mine")
        with pytest.raises(Conflict) as caught:
            write(folder, "a", b"evil", shown=shown)
    assert caught.value.error_code == "target_changed"
    assert (home / "a").read_text() == "mine"
    assert names(home) == ["a"]


def test_a_file_that_changed_is_not_overwritten(home):
    """Other bytes than those shown stay, and so do those of a file that went."""
    (home / "a").write_text("old")
    with UserFolder(home) as folder:
        shown = folder.look("a")
        (home / "a").write_text("newer")
        with pytest.raises(Conflict):
            write(folder, "a", b"evil", shown=shown)
        assert (home / "a").read_text() == "newer"
        (home / "a").unlink()
        with pytest.raises(Conflict):
            write(folder, "a", b"evil", shown=shown)
    assert names(home) == []


def test_a_link_swapped_in_leads_nowhere(home):
    """A file or a folder that becomes a link after the preview: refused, and nothing outside is touched."""
    (home / "sub").mkdir()
    (home / "sub/a").write_text("old")
    (home / "b").write_text("precious")
    with UserFolder(home) as folder:
        deep, flat = folder.look("sub/a"), folder.look("b")
        (home / "sub").rename(home.parent / "moved")
        (home / "sub").symlink_to(home.parent / "moved")
        (home / "b").unlink()
        (home / "b").symlink_to("../secret")
        for path, shown in (("sub/a", deep), ("b", flat), ("sub/new", Found())):
            with pytest.raises(Conflict):
                write(folder, path, b"evil", shown=shown)
    assert (home.parent / "secret").read_text() == "precious"
    assert [path.name for path in (home.parent / "moved").iterdir()] == ["a"]
    assert (home.parent / "moved/a").read_text() == "old"


@pytest.mark.parametrize("save", ["rename", "in place", "link"])
def test_a_save_in_the_last_moment_is_given_back(home, save):
    """What an editor saves after the last look is found by the exchange and put back, however it saves."""
    (home / "a").write_text("old")

    class Editor(Kept):
        def keep(self, path, original):
            super().keep(path, original)
            if save == "rename":
                (home / ".new").write_text("newest")
                (home / ".new").rename(home / "a")
            elif save == "link":
                (home / "a").unlink()
                (home / "a").symlink_to("../secret")
            else:
                (home / "a").write_text("newest")

    with UserFolder(home) as folder, pytest.raises(Conflict) as caught:
        write(folder, "a", b"evil", kept=Editor())
    assert caught.value.error_code == "target_changed"
    assert (home / "a").read_text() == ("precious" if save == "link" else "newest")
    assert names(home) == ["a"]


def test_what_cannot_be_put_back_is_told_by_name(home, monkeypatch):
    """When even the way back fails, the user's last save is left beside and named."""
    (home / "a").write_text("old")
    exchanges = []
    real = user_folder._rename

    def once(at, source, target, flags):
        exchanges.append(flags)
        if len(exchanges) > 1:
            raise OSError(5, "gone")
        return real(at, source, target, flags)

    class Editor(Kept):
        def keep(self, path, original):
            (home / "a").write_text("newest")

    monkeypatch.setattr(user_folder, "_rename", once)
    with UserFolder(home) as folder, pytest.raises(Conflict) as caught:
        write(folder, "a", b"evil", kept=Editor())
    assert caught.value.error_code == "target_stranded"
    left = [name for name in names(home) if name != "a"]
    assert [(home / name).read_text() for name in left] == ["newest"]
    assert left[0] in caught.value.message


def test_where_names_cannot_be_exchanged_it_looks_again(home, monkeypatch):
    """On a file system without these renames new files never replace, and changed ones are refused."""
    monkeypatch.setattr(user_folder, "_rename", lambda *_: False)
    (home / "a").write_text("old")
    with UserFolder(home) as folder:
        write(folder, "a", b"new")
        write(folder, "b", b"new")
        (home / "c").write_text("mine")
        with pytest.raises(Conflict):
            write(folder, "c", b"evil", shown=Found())

        class Editor(Kept):
            def keep(self, path, original):
                (home / "a").write_text("newest")

        with pytest.raises(Conflict):
            write(folder, "a", b"evil", kept=Editor())
    assert {name: (home / name).read_text() for name in names(home)} == {"a": "newest", "b": "new", "c": "mine"}


def test_a_keeper_that_fails_stops_the_write(home):
    """Without a kept original nothing is replaced."""
    (home / "a").write_text("old")

    class Full(Kept):
        def keep(self, path, original):
            raise OSError(28, "No space left on device")

    with UserFolder(home) as folder, pytest.raises(OSError, match="space"):
        write(folder, "a", b"new", kept=Full())
    assert (home / "a").read_text() == "old"
    assert names(home) == ["a"]


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    """A typing mistake is told as one."""
    with pytest.raises(InvalidRequest):
        UserFolder(tmp_path / "nothing")
