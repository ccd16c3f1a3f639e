"""Writing into other programs' files: whole, with the old one kept, and never over somebody else's change."""

from pathlib import Path

import pytest

from crank.bootstrap.host_file import change
from crank.domain.rules.hosts import HOST_FILE_BYTES_MAX
from crank.errors import Conflict, InvalidRequest, TooLarge


def test_a_new_file_is_private_and_has_no_backup(tmp_path: Path) -> None:
    """Folders are made; nothing is kept of what was not there."""
    path = tmp_path / "a" / "b.json"
    assert change(path, lambda text: f"{text}new") is None
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o600)
    assert [each.name for each in path.parent.iterdir()] == ["b.json"]


def test_each_old_file_is_kept_with_its_mode(tmp_path: Path) -> None:
    """No backup is ever written over."""
    path = tmp_path / "b.json"
    path.write_text("one")
    path.chmod(0o640)
    first = change(path, lambda _: "two")
    second = change(path, lambda _: "three")
    assert first is not None
    assert second is not None
    assert (first.read_text(), second.read_text(), path.read_text()) == ("one", "two", "three")
    assert {each.stat().st_mode & 0o777 for each in (first, second, path)} == {0o640}


def test_no_change_touches_nothing(tmp_path: Path) -> None:
    """Doing it again leaves the file, its time and its folder as they are."""
    path = tmp_path / "b.json"
    path.write_text("same")
    before = path.stat().st_mtime_ns
    assert change(path, lambda text: text) is None
    assert path.stat().st_mtime_ns == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """Whoever keeps settings in a repository of their own finds the change there."""
    real = tmp_path / "real.json"
    real.write_text("old")
    link = tmp_path / "link.json"
    link.symlink_to(real)
    change(link, lambda _: "new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_a_change_from_elsewhere_wins(tmp_path: Path) -> None:
    """A host that writes its file meanwhile loses nothing."""
    path = tmp_path / "b.json"
    path.write_text("old")

    def meanwhile(_text: str) -> str:
        path.write_text("the host's")
        return "ours"

    with pytest.raises(Conflict) as caught:
        change(path, meanwhile)
    assert caught.value.error_code == "host_file_changed"
    assert path.read_text() == "the host's"


def test_a_refusal_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    """No temporary file and no backup is left of a refusal."""
    path = tmp_path / "b.json"
    for content, fault in ((b"\xff", InvalidRequest), (b" " * (HOST_FILE_BYTES_MAX + 1), TooLarge)):
        path.write_bytes(content)
        with pytest.raises(fault):
            change(path, lambda _: "new")
        assert path.read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 1
