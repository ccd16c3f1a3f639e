"""The promises of `ports.Spool` as tests. Subclass and say in `make` how a spool is made."""

import io
from pathlib import Path

from crank.domain.ids import Digest, JobId
from crank.errors import NotFound
from crank.ports import Spool, Spooled
from crank.testing.expect import faults

_JOB = JobId("job-1")
_DOCUMENT = {"end": {"reason": "exited"}, "result": ["ü", 10**30, None]}


class SpoolContract:
    """What every Spool promises."""

    def make(self, folder: Path) -> Spool:
        """Return an empty spool."""
        raise NotImplementedError

    def test_an_attempt_is_begun_then_finished_then_forgotten(self, tmp_path: Path) -> None:
        """Each step shows in the list of attempts, and doing a step twice changes nothing."""
        spool = self.make(tmp_path)
        assert list(spool.attempts()) == []
        spool.begin(_JOB, 1)
        spool.begin(_JOB, 1)
        assert list(spool.attempts()) == [Spooled(_JOB, 1, finished=False)]
        assert spool.outcome(_JOB, 1) is None
        spool.finish(_JOB, 1, _DOCUMENT)
        spool.begin(_JOB, 1)
        assert list(spool.attempts()) == [Spooled(_JOB, 1, finished=True)]
        assert spool.outcome(_JOB, 1) == _DOCUMENT
        spool.forget(_JOB, 1)
        spool.forget(_JOB, 1)
        assert list(spool.attempts()) == []
        assert spool.outcome(_JOB, 1) is None

    def test_finishing_alone_is_enough(self, tmp_path: Path) -> None:
        """An attempt that ended before its code began is kept too."""
        spool = self.make(tmp_path)
        spool.finish(_JOB, 2, _DOCUMENT)
        assert list(spool.attempts()) == [Spooled(_JOB, 2, finished=True)]

    def test_attempts_of_one_job_are_apart(self, tmp_path: Path) -> None:
        """Forgetting one epoch leaves the other."""
        spool = self.make(tmp_path)
        spool.begin(_JOB, 1)
        spool.begin(_JOB, 2)
        spool.forget(_JOB, 1)
        assert list(spool.attempts()) == [Spooled(_JOB, 2, finished=False)]

    def test_files_are_named_by_their_bytes(self, tmp_path: Path) -> None:
        """A kept file comes back whole under its digest, and goes with its attempt."""
        spool = self.make(tmp_path)
        digest = spool.put_blob(_JOB, 1, io.BytesIO(b"abc"))
        assert digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        assert spool.put_blob(_JOB, 1, io.BytesIO(b"abc")) == digest
        with spool.open_blob(_JOB, 1, digest) as source:
            assert source.read() == b"abc"
        with faults(NotFound):
            spool.open_blob(_JOB, 1, Digest("0" * 64))
        spool.forget(_JOB, 1)
        with faults(NotFound):
            spool.open_blob(_JOB, 1, digest)

    def test_scratch_files_are_not_attempts(self, tmp_path: Path) -> None:
        """A scratch file can be written and read, and leaves nothing behind."""
        spool = self.make(tmp_path)
        with spool.scratch() as target:
            target.write(b"x")
            target.seek(0)
            assert target.read() == b"x"
        assert list(spool.attempts()) == []
