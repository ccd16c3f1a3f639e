"""Programs that a profile takes from the machine on which it is built."""

from pathlib import Path

import pytest

from crank.adapters.profile_store import host_programs
from crank.errors import ProfileError


def test_found_programs_are_copied_and_named_by_content(tmp_path: Path) -> None:
    """bash is copied whole, `python3` leads to the profile's own interpreter, and the identity follows the content."""
    found = host_programs.find(["bash", "python3"])
    interpreter = tmp_path / "opt" / "python" / "bin" / "python3.11"
    host_programs.place(found, tmp_path, interpreter)
    copied = tmp_path / "usr" / "bin" / "bash"
    assert copied.read_bytes() == found["bash"].read_bytes()
    assert not copied.is_symlink()
    assert (tmp_path / "usr" / "bin" / "python3").readlink() == Path("../../opt/python/bin/python3.11")
    other = tmp_path / "other"
    other.write_bytes(b"else")
    assert host_programs.identity(found) != host_programs.identity({**found, "bash": other})
    assert host_programs.identity({}) == ""


def test_a_missing_program_is_named() -> None:
    """Whoever builds is told which program the machine lacks; a script is no program."""
    with pytest.raises(ProfileError, match="no-such-tool"):
        host_programs.find(["bash", "no-such-tool"])


def test_a_home_has_its_user(tmp_path: Path) -> None:
    """The folder is there, and the job's number has the name of it."""
    (tmp_path / "etc").mkdir()
    host_programs.make_home(tmp_path, "/home/user")
    assert (tmp_path / "home" / "user").is_dir()
    assert "user:x:1000:1000:user:/home/user:/bin/bash" in (tmp_path / "etc" / "passwd").read_text("utf-8")
