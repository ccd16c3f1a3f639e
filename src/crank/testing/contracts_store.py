"""The promises of `ports.Store` as tests; a store passes them all, or it is not a store.

Subclass and say in `make` how a store is made; every test gets a fresh folder from pytest.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from crank.domain.ids import LOCAL_TENANT, Digest, JobId, MountId, WorkerId
from crank.domain.job import Job, Status
from crank.errors import Conflict, InvalidRequest, NotFound, StoreError, Unavailable
from crank.ports import Store, Transaction
from crank.testing.expect import faults
from crank.testing.samples import (
    DIGEST,
    OTHER_TENANT,
    sample_full_job,
    sample_job,
    sample_mount,
    sample_record,
    sample_replay,
    sample_request,
    sample_worker,
)


class StoreContract:
    """What every Store promises."""

    def make(self, folder: Path) -> Store:
        """Return a store that was not started."""
        raise NotImplementedError

    def run(self, folder: Path, test: Callable[[Store], Awaitable[None]]) -> None:
        """Run a test on a store that is open."""

        async def whole() -> None:
            store = self.make(folder)
            await store.start()
            try:
                await test(store)
            finally:
                await store.stop()

        asyncio.run(whole())

    def write(
        self, folder: Path, *works: Callable[[Transaction], object], check: Callable[[Transaction], None]
    ) -> None:
        """Run each work in a transaction of its own, then check what can be read."""

        async def test(store: Store) -> None:
            for work in works:
                await store.transact(work)
            await store.read(check)

        self.run(folder, test)

    def test_a_job_reads_back_equal_in_every_field(self, tmp_path: Path) -> None:
        """A job with every field set, and one with every optional field unset, survive the store."""
        full, bare = sample_full_job("full"), sample_job("bare")
        bare = replace(bare, request=replace(bare.request, code=None, version=None, traceparent=None, files=()))

        def check(tx: Transaction) -> None:
            assert tx.jobs.find(LOCAL_TENANT, full.job_id) == full
            assert tx.jobs.find(LOCAL_TENANT, bare.job_id) == bare

        self.write(tmp_path, lambda tx: tx.jobs.insert(full), lambda tx: tx.jobs.insert(bare), check=check)

    def test_a_job_id_is_taken_once_a_tenant(self, tmp_path: Path) -> None:
        """The same id is refused to its tenant and free for another one."""

        async def test(store: Store) -> None:
            await store.transact(lambda tx: tx.jobs.insert(sample_job("a")))
            with faults(Conflict, "job_id_taken"):
                await store.transact(lambda tx: tx.jobs.insert(sample_job("a", submitted_us=9)))
            await store.transact(lambda tx: tx.jobs.insert(sample_job("a", tenant=OTHER_TENANT)))
            kept = await store.read(lambda tx: tx.jobs.find(LOCAL_TENANT, JobId("a")))
            assert kept is not None
            assert kept.submitted_us == 1

        self.run(tmp_path, test)

    def test_an_update_never_changes_the_request(self, tmp_path: Path) -> None:
        """Status and end are replaced; what was asked stays as it was accepted."""
        changed = replace(
            sample_full_job("a"), request=sample_request(code="evil"), request_digest=Digest("0" * 64), submitted_us=99
        )

        def check(tx: Transaction) -> None:
            expected = replace(sample_full_job("a"), submitted_us=1, owner=None, called_by=None)
            assert tx.jobs.find(LOCAL_TENANT, JobId("a")) == expected

        self.write(
            tmp_path, lambda tx: tx.jobs.insert(sample_job("a")), lambda tx: tx.jobs.update(changed), check=check
        )

    def test_an_update_of_nothing_is_not_found(self, tmp_path: Path) -> None:
        """A job that is not there cannot be updated into being."""

        async def test(store: Store) -> None:
            with faults(NotFound):
                await store.transact(lambda tx: tx.jobs.update(sample_job("ghost")))

        self.run(tmp_path, test)

    def test_the_queue_is_first_in_first_out(self, tmp_path: Path) -> None:
        """Queued jobs come in the order of acceptance, and one that is queued again keeps its place."""

        def fill(tx: Transaction) -> None:
            for name in ("c", "a", "b"):
                tx.jobs.insert(sample_job(name))

        def lease_and_return(tx: Transaction) -> None:
            tx.jobs.update(sample_job("c", status=Status.LEASED))
            assert _ids(tx.jobs.queued(10)) == ["a", "b"]
            assert _ids(tx.jobs.held()) == ["c"]
            tx.jobs.update(sample_job("c"))

        def check(tx: Transaction) -> None:
            assert _ids(tx.jobs.queued(2)) == ["c", "a"]
            assert tx.jobs.count(Status.QUEUED) == 3
            assert tx.jobs.count(Status.LEASED) == 0

        self.write(tmp_path, fill, lease_and_return, check=check)

    def test_pages_run_from_newest_to_oldest(self, tmp_path: Path) -> None:
        """Cursors lead through all jobs of one tenant once; a filter and an unknown cursor are honoured."""

        def fill(tx: Transaction) -> None:
            for number in range(5):
                tx.jobs.insert(sample_job(f"j{number}", status=Status.RUNNING if number % 2 else Status.QUEUED))
            tx.jobs.insert(sample_job("foreign", tenant=OTHER_TENANT))

        def check(tx: Transaction) -> None:
            page = tx.jobs.page
            assert _ids(page(LOCAL_TENANT, limit=2, before=None, status=None)) == ["j4", "j3"]
            assert _ids(page(LOCAL_TENANT, limit=9, before="j3", status=None)) == ["j2", "j1", "j0"]
            assert _ids(page(LOCAL_TENANT, limit=9, before="j3", status=Status.RUNNING)) == ["j1"]
            assert _ids(page(LOCAL_TENANT, limit=1, before=None, status=Status.QUEUED)) == ["j4"]
            assert _ids(page(LOCAL_TENANT, limit=9, before="nobody", status=None)) == []
            assert _ids(page(OTHER_TENANT, limit=9, before=None, status=None)) == ["foreign"]

        self.write(tmp_path, fill, check=check)

    def test_retention_forgets_ended_jobs_alone(self, tmp_path: Path) -> None:
        """Old ended jobs are found oldest first and go with their references; others cannot be deleted."""
        old, older = replace(sample_full_job("old"), ended_us=50), replace(sample_full_job("older"), ended_us=40)

        def fill(tx: Transaction) -> None:
            for job in (old, older, sample_job("live")):
                tx.jobs.insert(job)
            tx.registry.refer(LOCAL_TENANT, old.job_id, [DIGEST, DIGEST])

        async def test(store: Store) -> None:
            await store.transact(fill)
            found = await store.read(lambda tx: tx.jobs.ended_before(51, 10))
            assert _ids(found) == ["older", "old"]
            assert _ids(await store.read(lambda tx: tx.jobs.ended_before(50, 10))) == ["older"]
            with faults(Conflict, "job_not_ended"):
                await store.transact(lambda tx: tx.jobs.delete(LOCAL_TENANT, JobId("live")))
            for _ in range(2):
                await store.transact(lambda tx: tx.jobs.delete(LOCAL_TENANT, old.job_id))
            assert await store.read(lambda tx: tx.jobs.find(LOCAL_TENANT, old.job_id)) is None
            assert await store.read(lambda tx: tx.registry.referred([DIGEST])) == set()

        self.run(tmp_path, test)

    def test_replays_are_kept_replaced_and_purged(self, tmp_path: Path) -> None:
        """A key leads to its job; a later use replaces it; purging takes only what is older."""

        async def test(store: Store) -> None:
            await store.transact(lambda tx: tx.replays.put(sample_replay("k", created_us=5)))
            await store.transact(lambda tx: tx.replays.put(sample_replay("k", job_id="second", created_us=9)))
            await store.transact(lambda tx: tx.replays.put(sample_replay("old", created_us=8)))
            assert await store.transact(lambda tx: tx.replays.purge(9)) == 1
            assert await store.read(lambda tx: tx.replays.find(LOCAL_TENANT, "old")) is None
            found = await store.read(lambda tx: tx.replays.find(LOCAL_TENANT, "k"))
            assert found == sample_replay("k", job_id="second", created_us=9)
            assert await store.read(lambda tx: tx.replays.find(OTHER_TENANT, "k")) is None

        self.run(tmp_path, test)

    def test_records_keep_their_order_and_are_never_added_twice(self, tmp_path: Path) -> None:
        """Positions grow; pages start after a position and can ask for one job; an id is taken once."""

        def fill(tx: Transaction) -> None:
            for number in range(4):
                tx.records.append(sample_record(f"r{number}", job_id="a" if number % 2 else None))

        async def test(store: Store) -> None:
            await store.transact(fill)
            pages = await store.read(lambda tx: tx.records.page(job_id=None, after=0, limit=3))
            assert [record.record_id for _, record in pages] == ["r0", "r1", "r2"]
            assert pages[1][1] == sample_record("r1", job_id="a")
            positions = [position for position, _ in pages]
            assert positions == sorted(set(positions))
            rest = await store.read(lambda tx: tx.records.page(job_id=JobId("a"), after=positions[1], limit=9))
            assert [record.record_id for _, record in rest] == ["r3"]
            with faults(Conflict, "record_id_taken"):
                await store.transact(lambda tx: tx.records.append(sample_record("r0")))

        self.run(tmp_path, test)

    def test_the_registry_remembers(self, tmp_path: Path) -> None:
        """Mounts, workers and references are found again, each under its own tenant."""

        def fill(tx: Transaction) -> None:
            tx.registry.put_mount(sample_mount("m-2"))
            tx.registry.put_mount(sample_mount("m-1"))
            tx.registry.put_mount(sample_mount("m-1", name=None))
            tx.registry.put_mount(sample_mount("m-1", tenant=OTHER_TENANT))
            tx.registry.put_worker(sample_worker("w2"))
            tx.registry.put_worker(sample_worker("w1"))
            tx.registry.put_worker(sample_worker("w1", seen_us=9))
            tx.registry.refer(LOCAL_TENANT, JobId("a"), [DIGEST])

        def check(tx: Transaction) -> None:
            registry = tx.registry
            assert registry.mounts(LOCAL_TENANT) == [sample_mount("m-1", name=None), sample_mount("m-2")]
            assert registry.workers() == [sample_worker("w1", seen_us=9), sample_worker("w2")]
            assert registry.referred([DIGEST, Digest("0" * 64)]) == {DIGEST}
            assert registry.job_refers(LOCAL_TENANT, JobId("a"), DIGEST)
            assert not registry.job_refers(OTHER_TENANT, JobId("a"), DIGEST)

        self.write(tmp_path, fill, check=check)

    def test_that_a_worker_signed_stays(self, tmp_path: Path) -> None:
        """Once put as one that signs it is known as one, however it is put later; nobody else is."""

        def fill(tx: Transaction) -> None:
            tx.registry.put_worker(replace(sample_worker("w1"), signed=True))
            tx.registry.put_worker(sample_worker("w1", seen_us=9))
            tx.registry.put_worker(sample_worker("w2"))

        def check(tx: Transaction) -> None:
            signed = [tx.registry.has_signed(WorkerId(name)) for name in ("w1", "w2", "w3")]
            assert signed == [True, False, False]
            assert [worker.signed for worker in tx.registry.workers()] == [True, False]

        self.write(tmp_path, fill, check=check)

    def test_a_removed_mount_is_gone_once(self, tmp_path: Path) -> None:
        """Removing tells whether there was something, and another tenant's mount is out of reach."""

        async def test(store: Store) -> None:
            await store.transact(lambda tx: tx.registry.put_mount(sample_mount("m-1")))
            remove = MountId("m-1")
            assert not await store.transact(lambda tx: tx.registry.remove_mount(OTHER_TENANT, remove))
            assert await store.transact(lambda tx: tx.registry.remove_mount(LOCAL_TENANT, remove))
            assert not await store.transact(lambda tx: tx.registry.remove_mount(LOCAL_TENANT, remove))

        self.run(tmp_path, test)

    def test_work_that_raises_leaves_no_trace(self, tmp_path: Path) -> None:
        """The fault reaches its caller, nothing of its work stays, and works beside it are not harmed."""

        def fail(tx: Transaction) -> None:
            tx.jobs.insert(sample_job("bad"))
            tx.records.append(sample_record("bad"))
            raise InvalidRequest("no", code="on_purpose")

        async def test(store: Store) -> None:
            good = [store.transact(_inserting(f"g{n}")) for n in range(5)]
            answers = await asyncio.gather(*good, store.transact(fail), return_exceptions=True)
            assert [type(answer) for answer in answers] == [type(None)] * 5 + [InvalidRequest]
            assert await store.read(lambda tx: tx.jobs.count(Status.QUEUED)) == 5
            assert await store.read(lambda tx: tx.jobs.find(LOCAL_TENANT, JobId("bad"))) is None
            assert await store.read(lambda tx: tx.records.page(job_id=None, after=0, limit=9)) == []

        self.run(tmp_path, test)

    def test_works_run_alone(self, tmp_path: Path) -> None:
        """A hundred works that read and then write one job, at once, lose no step."""

        def step(tx: Transaction) -> None:
            job = tx.jobs.find(LOCAL_TENANT, JobId("a"))
            assert job is not None
            tx.jobs.update(replace(job, epoch=job.epoch + 1))

        async def test(store: Store) -> None:
            await store.transact(lambda tx: tx.jobs.insert(sample_job("a")))
            await asyncio.gather(*(store.transact(step) for _ in range(100)))
            job = await store.read(lambda tx: tx.jobs.find(LOCAL_TENANT, JobId("a")))
            assert job is not None
            assert job.epoch == 100

        self.run(tmp_path, test)

    def test_a_read_sees_what_was_committed_and_cannot_write(self, tmp_path: Path) -> None:
        """Reading your own writes works; writing in a read is refused and changes nothing."""

        async def test(store: Store) -> None:
            with faults(StoreError, "store_read_only"):
                await store.read(lambda tx: tx.jobs.insert(sample_job("a")))
            assert await store.read(lambda tx: tx.jobs.count(Status.QUEUED)) == 0
            with faults(InvalidRequest):
                await store.read(_refuse)

        self.run(tmp_path, test)

    def test_a_closed_store_says_so(self, tmp_path: Path) -> None:
        """Before the start and after the stop nothing is accepted; stopping twice is fine."""

        async def test() -> None:
            store = self.make(tmp_path)
            with faults(Unavailable, "store_stopped"):
                await store.transact(lambda _: None)
            await store.start()
            await store.stop()
            await store.stop()
            for use in (store.transact, store.read):
                with faults(Unavailable, "store_stopped"):
                    await use(lambda _: None)

        asyncio.run(test())


def _ids(jobs: Sequence[Job]) -> list[str]:
    return [job.job_id for job in jobs]


def _refuse(_: Transaction) -> None:
    raise InvalidRequest("no")


def _inserting(job_id: str) -> Callable[[Transaction], None]:
    return lambda tx: tx.jobs.insert(sample_job(job_id))
