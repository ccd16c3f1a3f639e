"""The durable store and the one in memory, driven side by side at random, never differ."""

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from crank.adapters.failpoints import NoFailpoints
from crank.adapters.sqlite import SqliteStore
from crank.domain.ids import LOCAL_TENANT, JobId, SessionId
from crank.domain.job import Job, Status
from crank.domain.session import SessionState
from crank.errors import CrankError
from crank.ports import Transaction
from crank.testing.memory import MemoryStore
from crank.testing.samples import OTHER_TENANT, sample_job, sample_replay, sample_session

_IDS = st.sampled_from(["a", "b", "c", "d"])
_TENANTS = st.sampled_from([LOCAL_TENANT, OTHER_TENANT])
_TIMES = st.integers(0, 5)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


class StoresAgree(RuleBasedStateMachine):
    """Every answer and every fault of one store is that of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        path = Path(self.folder.name) / "crank.db"
        self.stores = (SqliteStore(path, failpoints=NoFailpoints()), MemoryStore())
        for store in self.stores:
            self.loop.run_until_complete(store.start())

    def teardown(self) -> None:
        for store in self.stores:
            self.loop.run_until_complete(store.stop())
        self.loop.close()
        self.folder.cleanup()

    def both(self, work: Callable[[Transaction], Any], *, write: bool = True) -> None:
        answers = []
        for store in self.stores:
            use = store.transact if write else store.read
            try:
                answers.append(("answer", self.loop.run_until_complete(use(work))))
            except CrankError as fault:
                answers.append((type(fault).__name__, fault.error_code))
        assert answers[0] == answers[1]

    @rule(job_id=_IDS, tenant=_TENANTS, status=st.sampled_from(Status), args=_JSON, session=st.none() | _IDS)
    def insert(self, job_id: str, tenant: Any, status: Status, args: Any, session: Any) -> None:
        job = sample_job(job_id, tenant=tenant, status=status)
        self.both(lambda tx: tx.jobs.insert(replace(job, request=replace(job.request, args=args, session_id=session))))

    @rule(job_id=_IDS, tenant=_TENANTS, status=st.sampled_from(Status), ended_us=st.none() | _TIMES, outcome=_JSON)
    def update(self, job_id: str, tenant: Any, status: Status, ended_us: int | None, outcome: Any) -> None:
        job = replace(sample_job(job_id, tenant=tenant, status=status), ended_us=ended_us, outcome=outcome)
        self.both(lambda tx: tx.jobs.update(job))

    @rule(job_id=_IDS, tenant=_TENANTS)
    def delete(self, job_id: str, tenant: Any) -> None:
        self.both(lambda tx: tx.jobs.delete(tenant, JobId(job_id)))

    @rule(session_id=_IDS, tenant=_TENANTS)
    def open(self, session_id: str, tenant: Any) -> None:
        self.both(lambda tx: tx.sessions.insert(sample_session(session_id, tenant=tenant)))

    @rule(session_id=_IDS, tenant=_TENANTS, ended_us=st.none() | _TIMES, created_us=_TIMES)
    def change(self, session_id: str, tenant: Any, ended_us: int | None, created_us: int) -> None:
        session = replace(sample_session(session_id, tenant=tenant), ended_us=ended_us, created_us=created_us)
        state = SessionState.OPEN if ended_us is None else SessionState.ENDED
        self.both(lambda tx: tx.sessions.update(replace(session, state=state)))

    @rule(session_id=_IDS, tenant=_TENANTS)
    def forget(self, session_id: str, tenant: Any) -> None:
        self.both(lambda tx: tx.sessions.delete(tenant, SessionId(session_id)))

    @rule(tenant=_TENANTS, limit=st.integers(1, 4), before=st.none() | _IDS, at_us=_TIMES)
    def session_pages(self, tenant: Any, limit: int, before: str | None, at_us: int) -> None:
        self.both(lambda tx: tx.sessions.page(tenant, limit=limit, before=before), write=False)
        self.both(lambda tx: tx.sessions.ended_before(at_us, limit), write=False)

    @rule(key=_IDS, job_id=_IDS, created_us=_TIMES)
    def remember(self, key: str, job_id: str, created_us: int) -> None:
        self.both(lambda tx: tx.replays.put(sample_replay(key, job_id=job_id, created_us=created_us)))

    @rule(before_us=_TIMES)
    def purge(self, before_us: int) -> None:
        self.both(lambda tx: tx.replays.purge(before_us))

    @rule(job_id=_IDS)
    def insert_twice_in_one_work(self, job_id: str) -> None:
        def work(tx: Transaction) -> None:
            tx.replays.put(sample_replay("lost"))
            tx.jobs.insert(sample_job("lost"))
            tx.jobs.insert(sample_job("lost"))

        self.both(work)

    @rule(tenant=_TENANTS, limit=st.integers(1, 4), before=st.none() | _IDS, status=st.none() | st.sampled_from(Status))
    def page(self, tenant: Any, limit: int, before: str | None, status: Status | None) -> None:
        self.both(lambda tx: tx.jobs.page(tenant, limit=limit, before=before, status=status), write=False)

    @rule(at_us=_TIMES, limit=st.integers(1, 4))
    def ended_before(self, at_us: int, limit: int) -> None:
        self.both(lambda tx: tx.jobs.ended_before(at_us, limit), write=False)

    @invariant()
    def everything_is_the_same(self) -> None:
        def view(tx: Transaction) -> list[Job | int | object]:
            jobs = [tx.jobs.find(tenant, JobId(name)) for tenant in (LOCAL_TENANT, OTHER_TENANT) for name in "abcd"]
            counts = [tx.jobs.count(status) for status in Status]
            turns = [tx.jobs.of_session(SessionId(name)) for name in "abcd"]
            keys = [tx.replays.find(LOCAL_TENANT, key) for key in ("a", "b", "c", "d", "lost")]
            return [*jobs, *counts, *keys, tx.jobs.queued(3), tx.jobs.held(), *turns, tx.sessions.live()]

        self.both(view, write=False)


TestStoresAgree = StoresAgree.TestCase
TestStoresAgree.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
