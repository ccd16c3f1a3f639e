"""What an earlier job kept: the key, the order of reading, and files that are cut or made to do harm."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from documents.kept import Earlier, Keeper, key_of, place


def _kept(folder: Path, count: int = 2, bytes_max: int = 1 << 20) -> Path:
    path = folder / "own" / "kept.tar"
    keeper = Keeper(path, bytes_max)
    for number in range(count):
        made = folder / f"{number}.md"
        made.write_text(f"text {number}")
        keeper.keep(f"key-{number}", {"status": "done", "n": number}, [(".md", made)])
    keeper.close()
    return path


def test_what_is_kept_is_found_by_its_key(tmp_path: Path) -> None:
    """A result comes back with its word and its bytes, and only under its own key."""
    earlier = Earlier(_kept(tmp_path))
    made = earlier.find("key-1")
    assert made is not None
    assert made.entry == {"status": "done", "n": 1}
    (tmp_path / "out").mkdir()
    assert place(earlier, made, tmp_path / "out" / "b.docx") == [".md"]
    assert (tmp_path / "out" / "b.docx.md").read_text() == "text 1"
    assert earlier.find("key-9") is None


def test_the_key_changes_with_everything_that_decides_the_result() -> None:
    """Content, operation, options and version each have a part in the key."""
    keys = {
        key_of("a" * 64, "convert", {"to": "gfm"}, "1"),
        key_of("b" * 64, "convert", {"to": "gfm"}, "1"),
        key_of("a" * 64, "extract", {"to": "gfm"}, "1"),
        key_of("a" * 64, "convert", {"to": "html"}, "1"),
        key_of("a" * 64, "convert", {"to": "gfm"}, "2"),
    }
    assert len(keys) == 5


def test_a_file_that_was_cut_off_gives_what_was_whole(tmp_path: Path) -> None:
    """A job that was killed while it wrote leaves what it had finished, whatever the last bytes are."""
    path = _kept(tmp_path, count=6)
    whole = path.read_bytes()
    counts = set()
    for length in range(0, len(whole), 509):
        path.write_bytes(whole[:length])
        earlier = Earlier(path)
        counts.add(len(earlier))
        for number in range(len(earlier)):
            assert earlier.find(f"key-{number}") is not None
    assert counts == {0, 1, 2, 3, 4, 5, 6}


@pytest.mark.parametrize("content", [b"", b"no tar", b"\0" * 10_240, bytes(range(256)) * 40])
def test_a_file_that_is_no_tar_gives_nothing(tmp_path: Path, content: bytes) -> None:
    """Noise is as good as nothing kept."""
    (tmp_path / "kept.tar").write_bytes(content)
    assert len(Earlier(tmp_path / "kept.tar")) == 0


def test_names_inside_lead_nowhere_else(tmp_path: Path) -> None:
    """A name that would leave the document's folder is not written, and nothing of that document is."""
    path = tmp_path / "kept.tar"
    with tarfile.open(path, "w") as archive:
        for name, content in ((".md", b"good"), ("/../../evil", b"bad"), ("word/key", json.dumps({}).encode())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    earlier = Earlier(path)
    made = earlier.find("key")
    assert made is not None
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    with pytest.raises(OSError, match="not a name"):
        place(earlier, made, out / "a")
    assert not list(tmp_path.rglob("*evil*"))
    assert list(out.rglob("*")) == []


def test_a_link_inside_ends_the_reading(tmp_path: Path) -> None:
    """Only regular files are ever kept, so anything else is not ours."""
    path = tmp_path / "kept.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("word/key")
        member.type = tarfile.SYMTYPE
        member.linkname = "/etc/passwd"
        archive.addfile(member)
    assert len(Earlier(path)) == 0


def test_no_more_is_kept_than_there_is_room_for(tmp_path: Path) -> None:
    """A keeper that is full goes on without keeping."""
    assert len(Earlier(_kept(tmp_path, count=6, bytes_max=13_000))) == 3
