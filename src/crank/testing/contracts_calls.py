"""The promises of a store about calls of jobs; a part of `StoreContract` of its own, for its length."""

from dataclasses import replace
from pathlib import Path

from crank.domain.grant import Right
from crank.domain.handle import Called, CalledBy, Handle, HandleKind
from crank.domain.ids import LOCAL_TENANT, JobId, MountId
from crank.domain.job import Job, Status
from crank.errors import Conflict
from crank.ports import Store, Transaction
from crank.testing.contracts_store import StoreContract
from crank.testing.expect import faults
from crank.testing.samples import OTHER_TENANT, sample_job

_CALL = Handle("convert", HandleKind.CALL, Right("document.*", "1.0.0", ({"type": "object"},), ("docs",), 3))
_MOUNT = Handle("docs", HandleKind.MOUNT, mount_id=MountId("m-0123456789abcdef"))


def _called(job_id: str, caller: str, number: int, *, root: str = "top", depth: int = 1) -> Job:
    by = CalledBy(JobId(caller), 1, number, "convert", depth, JobId(root))
    return replace(sample_job(job_id), called_by=by)


def _ended(job: Job) -> Job:
    return replace(job, status=Status.SUCCEEDED, ended_us=5)


class CallContract(StoreContract):
    """What every Store promises about calls."""

    def test_handles_read_back_equal(self, tmp_path: Path) -> None:
        """What a job has in its hand, and which call it comes from, survive the store in every field."""
        job = _called("a", "above", 7)
        job = replace(job, request=replace(job.request, handles=(_CALL, _MOUNT)))

        def check(tx: Transaction) -> None:
            assert tx.jobs.find(LOCAL_TENANT, job.job_id) == job

        self.write(tmp_path, lambda tx: tx.jobs.insert(job), check=check)

    def test_one_call_makes_one_job(self, tmp_path: Path) -> None:
        """The same caller, epoch and number are refused a second job; another number, epoch or tenant is another call."""

        async def test(store: Store) -> None:
            await store.transact(lambda tx: tx.jobs.insert(_called("a", "top", 1)))
            with faults(Conflict):
                await store.transact(lambda tx: tx.jobs.insert(_called("b", "top", 1)))
            await store.transact(lambda tx: tx.jobs.insert(_called("c", "top", 2)))
            other = replace(_called("a", "top", 1), tenant=OTHER_TENANT)
            await store.transact(lambda tx: tx.jobs.insert(other))

            def check(tx: Transaction) -> None:
                made = tx.jobs.called(LOCAL_TENANT, JobId("top"), 1, 1)
                assert made is not None
                assert made.job_id == "a"
                assert tx.jobs.called(LOCAL_TENANT, JobId("top"), 2, 1) is None

            await store.read(check)

        self.run(tmp_path, test)

    def test_the_calls_of_a_tree_are_found_by_its_root(self, tmp_path: Path) -> None:
        """Every call below a job is listed with its caller and whether it has ended; other trees are not."""
        jobs = [_called("a", "top", 1), _called("b", "a", 1, depth=2), _called("c", "else", 1, root="else")]

        def fill(tx: Transaction) -> None:
            for job in jobs:
                tx.jobs.insert(job)
            tx.jobs.update(_ended(jobs[0]))

        def check(tx: Transaction) -> None:
            found = list(tx.jobs.calls(LOCAL_TENANT, JobId("top")))
            assert found == [
                Called(job.job_id, job.called_by, ended)
                for job, ended in zip(jobs[:2], (True, False), strict=True)
                if job.called_by is not None
            ]
            assert [job.job_id for job in tx.jobs.called_open()] == ["b", "c"]

        self.write(tmp_path, fill, check=check)

    def test_what_calls_are_counted_by_is_kept_while_their_root_lives(self, tmp_path: Path) -> None:
        """An ended call is not offered for deletion before the topmost job of its tree has ended."""
        root, child = sample_job("top"), _called("a", "top", 1)

        def fill(tx: Transaction) -> None:
            tx.jobs.insert(root)
            tx.jobs.insert(child)
            tx.jobs.update(_ended(child))
            assert not tx.jobs.ended_before(100, 10)

        def end(tx: Transaction) -> None:
            tx.jobs.update(_ended(root))

        def check(tx: Transaction) -> None:
            assert {job.job_id for job in tx.jobs.ended_before(100, 10)} == {"top", "a"}

        self.write(tmp_path, fill, end, check=check)
