"""The spool on disk, when the disk or the moment is bad."""

import io
import os
from pathlib import Path

import pytest

from crank.adapters.spool import FileSpool
from crank.domain.ids import JobId
from crank.errors import InvalidRequest, Unavailable
from crank.ports import Spooled

JOB = JobId("job")


def test_notes_outlive_the_object(tmp_path: Path) -> None:
    """A new spool on the same folder knows what the old one noted."""
    spool = FileSpool(tmp_path)
    digest = spool.put_blob(JOB, 1, io.BytesIO(b"abc"))
    spool.finish(JOB, 1, {"a": 1})
    again = FileSpool(tmp_path)
    assert list(again.attempts()) == [Spooled(JOB, 1, finished=True)]
    with again.open_blob(JOB, 1, digest) as source:
        assert source.read() == b"abc"


def test_what_a_cut_left_half_is_nobodys_claim(tmp_path: Path) -> None:
    """An outcome that was not whole, and what was being removed, do not count."""
    spool = FileSpool(tmp_path)
    spool.begin(JOB, 1)
    (tmp_path / "job@1" / "outcome.json.partial").write_bytes(b'{"half')
    (tmp_path / "gone" / "other@2").mkdir()
    (tmp_path / "strange").mkdir()
    assert list(FileSpool(tmp_path).attempts()) == [Spooled(JOB, 1, finished=False)]


def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    """Job ids are checked again where they become paths."""
    with pytest.raises(InvalidRequest):
        FileSpool(tmp_path).begin(JobId("../x"), 1)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A file where the spool should be is a fault with a fix, not a traceback."""
    (tmp_path / "file").write_text("x", "ascii")
    with pytest.raises(Unavailable) as caught:
        FileSpool(tmp_path / "file")
    assert caught.value.error_code == "spool_failed"
    assert caught.value.fix


def test_files_cost_one_flush_for_each_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal files are flushed once, and the names of all of them once, before the outcome that names them."""
    spool = FileSpool(tmp_path)
    spool.begin(JOB, 1)
    flushed: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path / "job@1"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    digests = {spool.put_blob(JOB, 1, io.BytesIO(b"%d" % (number % 3))) for number in range(30)}
    assert (len(digests), len(flushed)) == (3, 3)
    assert all(name.startswith("blobs/") for name in flushed)
    assert {path.name for path in (tmp_path / "job@1" / "blobs").iterdir()} == digests
    spool.finish(JOB, 1, {"a": 1})
    assert flushed[3:] == ["blobs", "outcome.json.partial", "."]
