"""A job's files land in the folder that was named, and nowhere else."""

from pathlib import Path

import pytest

from crank.cli.out_folder import new_file, safe_parts
from crank.errors import Conflict, InvalidRequest


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../up", "a/../b", "a//b", "a/./b", "a\0b", "a/"])
def test_a_name_that_leaves_is_refused(path: str) -> None:
    """No name of a job can point outside."""
    with pytest.raises(InvalidRequest):
        safe_parts(path)


def test_a_file_appears_whole(tmp_path: Path) -> None:
    """Folders are made on the way, and nothing else is left behind."""
    with new_file(tmp_path / "out", "a/b/c.txt") as target:
        target.write(b"content")
    assert (tmp_path / "out/a/b/c.txt").read_bytes() == b"content"
    assert [path.name for path in (tmp_path / "out/a/b").iterdir()] == ["c.txt"]


def test_a_failed_download_leaves_nothing(tmp_path: Path) -> None:
    """What broke off is not there at all, and an older file stays as it was."""
    (tmp_path / "x").write_text("old")
    with pytest.raises(ValueError, match="broke"), new_file(tmp_path, "x") as target:
        target.write(b"half")
        raise ValueError("broke")
    assert (tmp_path / "x").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_link_to_a_file_is_replaced(tmp_path: Path) -> None:
    """A link in the folder is not written through: its target keeps its content."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    out = tmp_path / "out"
    out.mkdir()
    (out / "x").symlink_to(victim)
    with new_file(out, "x") as target:
        target.write(b"job")
    assert victim.read_text() == "precious"
    assert (out / "x").read_bytes() == b"job"
    assert not (out / "x").is_symlink()


def test_a_link_to_a_folder_is_not_entered(tmp_path: Path) -> None:
    """A folder that is a link below --out is refused, and nothing appears behind it."""
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    out.mkdir()
    (out / "a").symlink_to(elsewhere)
    with pytest.raises(Conflict), new_file(out, "a/x"):
        pass
    assert list(elsewhere.iterdir()) == []


def test_a_folder_in_the_way_is_told(tmp_path: Path) -> None:
    """A folder where a file must go is told, not removed."""
    (tmp_path / "x").mkdir()
    with pytest.raises(Conflict), new_file(tmp_path, "x"):
        pass
