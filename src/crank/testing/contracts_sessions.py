"""What every Store promises about sessions and their jobs, as tests; `StoreContract` in the same module's manner."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from crank.domain.ids import LOCAL_TENANT, JobId, SessionId
from crank.domain.job import Job, Status
from crank.domain.outcome import End, Reason
from crank.domain.session import Session, SessionEnd, SessionReason, SessionState
from crank.errors import Conflict, NotFound
from crank.ports import Store, Transaction
from crank.testing.contracts_store import StoreContract
from crank.testing.expect import faults
from crank.testing.samples import OTHER_TENANT, sample_job, sample_request, sample_session


class SessionStoreContract(StoreContract):
    """The promises of `ports.Store`, sessions included."""

    def test_a_session_reads_back_equal_in_every_field(self, tmp_path: Path) -> None:
        """A session just made, and one that ended with everything said, survive the store."""
        fresh, over = sample_session("s1"), _crashed(sample_session("s2"))

        def check(tx: Transaction) -> None:
            assert tx.sessions.find(LOCAL_TENANT, fresh.session_id) == fresh
            assert tx.sessions.find(LOCAL_TENANT, over.session_id) == over
            assert tx.sessions.find(OTHER_TENANT, fresh.session_id) is None

        self.write(tmp_path, lambda tx: tx.sessions.insert(fresh), lambda tx: tx.sessions.insert(over), check=check)

    def test_a_session_changes_and_is_made_once(self, tmp_path: Path) -> None:
        """An update replaces what may change; a second of the same id, and an update of nothing, are refused."""
        made = sample_session("s1")

        async def test(store: Store) -> None:
            await store.transact(lambda tx: tx.sessions.insert(made))
            with faults(Conflict, "session_id_taken"):
                await store.transact(lambda tx: tx.sessions.insert(made))
            with faults(NotFound):
                await store.transact(lambda tx: tx.sessions.update(sample_session("ghost")))
            changed = replace(_crashed(made), created_us=99)
            await store.transact(lambda tx: tx.sessions.update(changed))
            kept = await store.read(lambda tx: tx.sessions.find(LOCAL_TENANT, made.session_id))
            assert kept == replace(changed, created_us=made.created_us)

        self.run(tmp_path, test)

    def test_live_sessions_and_pages_are_in_order(self, tmp_path: Path) -> None:
        """Live ones come oldest first and of every tenant; pages newest first and of one tenant."""
        made = [sample_session(name) for name in ("c", "a", "b")]
        other = sample_session("x", tenant=OTHER_TENANT)

        def fill(tx: Transaction) -> None:
            for session in (*made, other):
                tx.sessions.insert(session)
            tx.sessions.update(_crashed(made[1]))

        def check(tx: Transaction) -> None:
            assert [session.session_id for session in tx.sessions.live()] == ["c", "b", "x"]
            assert _names(tx.sessions.page(LOCAL_TENANT, limit=2, before=None)) == ["b", "a"]
            assert _names(tx.sessions.page(LOCAL_TENANT, limit=2, before="a")) == ["c"]
            assert _names(tx.sessions.page(LOCAL_TENANT, limit=2, before="x")) == []

        self.write(tmp_path, fill, check=check)

    def test_retention_forgets_ended_sessions_alone(self, tmp_path: Path) -> None:
        """Ended sessions are found by age and can be deleted; a live one cannot."""

        async def test(store: Store) -> None:
            for name, at_us in (("late", 30), ("early", 10)):
                ended = replace(_crashed(sample_session(name)), ended_us=at_us)
                await store.transact(_inserting(ended))
            await store.transact(lambda tx: tx.sessions.insert(sample_session("live")))
            assert _names(await store.read(lambda tx: tx.sessions.ended_before(40, 9))) == ["early", "late"]
            assert _names(await store.read(lambda tx: tx.sessions.ended_before(30, 9))) == ["early"]
            with faults(Conflict, "session_not_ended"):
                await store.transact(lambda tx: tx.sessions.delete(LOCAL_TENANT, SessionId("live")))
            for _ in range(2):
                await store.transact(lambda tx: tx.sessions.delete(LOCAL_TENANT, SessionId("early")))
            assert await store.read(lambda tx: tx.sessions.find(LOCAL_TENANT, SessionId("early"))) is None

        self.run(tmp_path, test)

    def test_jobs_of_a_session_have_turns(self, tmp_path: Path) -> None:
        """Of one session only the oldest job that has not ended is in the queue; other jobs do not wait for it."""

        def fill(tx: Transaction) -> None:
            for name, session in (("a1", "a"), ("b1", "b"), ("a2", "a"), ("plain", None), ("a3", "a")):
                tx.jobs.insert(_job(name, session))

        def serve(tx: Transaction) -> None:
            assert _ids(tx.jobs.queued(9)) == ["a1", "b1", "plain"]
            tx.jobs.update(_job("a1", "a", Status.RUNNING))
            assert _ids(tx.jobs.queued(9)) == ["b1", "plain"]
            assert _ids(tx.jobs.of_session(SessionId("a"))) == ["a1", "a2", "a3"]
            tx.jobs.update(_job("a1", "a", Status.SUCCEEDED))
            assert _ids(tx.jobs.queued(9)) == ["b1", "a2", "plain"]
            tx.jobs.update(_job("a2", "a", Status.CANCELLED))

        def check(tx: Transaction) -> None:
            assert _ids(tx.jobs.queued(9)) == ["b1", "plain", "a3"]
            assert _ids(tx.jobs.of_session(SessionId("a"))) == ["a3"]
            assert _ids(tx.jobs.of_session(SessionId("none"))) == []

        self.write(tmp_path, fill, serve, check=check)


def _crashed(session: Session) -> Session:
    end = SessionEnd(SessionReason.CRASHED, "memory", "It grew.", JobId("j"), End(Reason.MEMORY, message="It grew."))
    return replace(session, state=SessionState.ENDED, opened_us=3, used_us=4, ended_us=5, tier="namespaces", end=end)


def _inserting(session: Session) -> Callable[[Transaction], None]:
    return lambda tx: tx.sessions.insert(session)


def _job(name: str, session: str | None, status: Status = Status.QUEUED) -> Job:
    owner = None if session is None else SessionId(session)
    return replace(
        sample_job(name, status=status),
        request=replace(sample_request(), session_id=owner),
        ended_us=9 if status in (Status.SUCCEEDED, Status.CANCELLED) else None,
    )


def _names(sessions: Sequence[Session]) -> list[str]:
    return [session.session_id for session in sessions]


def _ids(jobs: Sequence[Job]) -> list[str]:
    return [job.job_id for job in jobs]
