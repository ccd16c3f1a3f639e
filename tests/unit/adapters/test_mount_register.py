"""The register of mounts: whole or absent, readable by its writer alone, and honest when it cannot be written."""

import json
import os
from pathlib import Path

import pytest

from crank.adapters.mount_register import FileMountRegister
from crank.errors import Unavailable


def test_the_list_is_replaced(tmp_path: Path) -> None:
    """What is written is exactly what a reader finds, each folder once and in order; nothing of before stays."""
    register = FileMountRegister(tmp_path / "mounts.json")
    register.write(["/b", "/a", "/b"])
    assert json.loads((tmp_path / "mounts.json").read_text()) == ["/a", "/b"]
    register.write([])
    assert json.loads((tmp_path / "mounts.json").read_text()) == []


def test_only_the_writer_may_read_it(tmp_path: Path) -> None:
    """The file's mode leaves other accounts out, whatever the umask says."""
    before = os.umask(0)
    try:
        FileMountRegister(tmp_path / "mounts.json").write(["/a"])
    finally:
        os.umask(before)
    assert (tmp_path / "mounts.json").stat().st_mode & 0o777 == 0o600


def test_a_crash_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    """What a writer that died left beside the file, even a link, is neither followed nor an obstacle."""
    (tmp_path / ".mounts.json.new").symlink_to(tmp_path / "elsewhere")
    FileMountRegister(tmp_path / "mounts.json").write(["/a"])
    assert json.loads((tmp_path / "mounts.json").read_text()) == ["/a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mounts.json"]


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A folder that is not there is a fault with a code, not a silent gap."""
    with pytest.raises(Unavailable) as caught:
        FileMountRegister(tmp_path / "no" / "mounts.json").write([])
    assert caught.value.error_code == "mounts_not_registered"
