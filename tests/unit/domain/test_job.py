"""The states of a job: every walk over the table is legal, and an end is final."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from crank.domain.ids import InstanceId, JobId, WorkerId
from crank.domain.job import ENDED, HELD, MOVES, Job, Status, may_move, status_of
from crank.domain.outcome import Clock, End, Reason
from crank.domain.rules import lease
from tests.unit.domain.rules.builders import job

ENDS = st.builds(
    End,
    reason=st.sampled_from(Reason),
    exit_code=st.integers(0, 255),
    clock=st.none() | st.sampled_from(Clock),
)


def test_the_table_knows_every_status() -> None:
    """Each status has its row, and every row leads to known ones."""
    assert set(MOVES) == set(Status)
    assert HELD | ENDED | {Status.QUEUED} == set(Status)


@pytest.mark.parametrize("ended", sorted(ENDED))
def test_an_end_is_final(ended: Status) -> None:
    """Nothing follows an end, not even another end."""
    assert [status for status in Status if may_move(ended, status)] == []


@pytest.mark.parametrize("reason", sorted(Reason))
def test_every_reason_has_its_status(reason: Reason) -> None:
    """However an attempt ends, the job's status follows from one table."""
    assert status_of(End(reason, exit_code=1)) in ENDED


@pytest.mark.parametrize(("exit_code", "status"), [(0, Status.SUCCEEDED), (1, Status.FAILED), (255, Status.FAILED)])
def test_exit_code_decides_success(exit_code: int, status: Status) -> None:
    """Only exit code 0 is success."""
    assert status_of(End(Reason.EXITED, exit_code=exit_code)) is status


class JobLife(RuleBasedStateMachine):
    """Leases, starts, losses and ends in any order, as a real and hostile world sends them."""

    def __init__(self) -> None:
        super().__init__()
        self.job: Job = job()
        self.epochs: list[int] = []

    @initialize()
    def submit(self) -> None:
        """A job enters the queue."""
        self.job = job(job_id=JobId("walk"))
        self.epochs = [self.job.epoch]

    @precondition(lambda self: self.job.status is Status.QUEUED)
    @rule(worker=st.sampled_from(["a", "b"]))
    def grant(self, worker: str) -> None:
        """Somebody gets the lease."""
        assert may_move(self.job.status, Status.LEASED)
        self.job = lease.grant(self.job, WorkerId(worker), InstanceId(worker))
        self.epochs.append(self.job.epoch)

    @rule(at_us=st.integers(1, 10**15))
    def start(self, at_us: int) -> None:
        """A start may arrive at any time, twice, or too late."""
        before = self.job
        self.job = lease.start(self.job, at_us)
        assert self.job is before or before.status is Status.LEASED

    @precondition(lambda self: self.job.status in HELD)
    @rule()
    def lose(self) -> None:
        """The attempt is lost and the job goes back."""
        old = self.job
        self.job = lease.requeue(self.job)
        assert old.worker_id is not None
        assert not lease.is_current(self.job, old.worker_id, old.epoch)

    @precondition(lambda self: self.job.status in HELD)
    @rule(end=ENDS)
    def end(self, end: End) -> None:
        """An attempt ends, truthfully or not; only a legal move is made."""
        import dataclasses

        if may_move(self.job.status, status_of(end)):
            self.job = dataclasses.replace(self.job, status=status_of(end), end=end)

    @invariant()
    def epochs_only_grow(self) -> None:
        """No two leases ever share an epoch."""
        assert self.epochs == sorted(set(self.epochs))

    @invariant()
    def held_means_somebody_holds(self) -> None:
        """A held job names its worker; a queued one names none."""
        if self.job.status in HELD:
            assert self.job.worker_id is not None
        if self.job.status is Status.QUEUED:
            assert self.job.worker_id is None
        assert self.job.ended == (self.job.status in ENDED)


TestJobLife = JobLife.TestCase
