"""Retry: what becomes of a job whose attempt was lost."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.domain.capability import Effects
from crank.domain.ids import SessionId
from crank.domain.job import Status
from crank.domain.outcome import Reason
from crank.domain.rules.retry import Again, GiveUp, Loss, after_loss
from tests.unit.domain.rules.builders import job


@given(
    status=st.sampled_from([Status.LEASED, Status.RUNNING]),
    loss=st.sampled_from([Loss.CUT_OFF, Loss.SILENT]),
    attempts=st.integers(1, 5),
)
def test_outside_effects_never_run_twice(status: Status, loss: Loss, attempts: int) -> None:
    """Code with outside effects that may have begun is never run again, whatever else holds."""
    verdict = after_loss(job(status, attempts=attempts), loss, attempts_max=10)
    assert isinstance(verdict, GiveUp)


@pytest.mark.parametrize("effects", [Effects.PURE, Effects.IDEMPOTENT])
def test_harmless_effects_run_again_up_to_a_limit(effects: Effects) -> None:
    """A pure or idempotent job is tried again, but not for ever."""
    held = job(Status.RUNNING, effects=effects)
    assert isinstance(after_loss(held, Loss.SILENT, attempts_max=2), Again)
    assert isinstance(after_loss(held, Loss.SILENT, attempts_max=1), GiveUp)


@pytest.mark.parametrize("effects", Effects)
@pytest.mark.parametrize("loss", Loss)
def test_a_job_of_a_session_never_runs_twice(effects: Effects, loss: Loss) -> None:
    """What it found in its session is gone: only one that never began goes back to the queue, whatever its effects."""
    held = job(Status.RUNNING, effects=effects)
    held = replace(held, request=replace(held.request, session_id=SessionId("s")))
    verdict = after_loss(held, loss, attempts_max=9)
    assert isinstance(verdict, Again if loss is Loss.NEVER_BEGUN else GiveUp)


def test_a_job_that_never_began_runs_again() -> None:
    """When the worker says that no code ran, even outside effects may be tried."""
    assert isinstance(after_loss(job(Status.LEASED), Loss.NEVER_BEGUN, attempts_max=3), Again)


def test_silence_is_an_unknown_outcome_and_a_restart_is_a_lost_worker() -> None:
    """The end says what is known and no more."""
    silent = after_loss(job(Status.RUNNING), Loss.SILENT, attempts_max=3)
    cut_off = after_loss(job(Status.RUNNING), Loss.CUT_OFF, attempts_max=3)
    assert isinstance(silent, GiveUp)
    assert isinstance(cut_off, GiveUp)
    assert (Reason.OUTCOME_UNKNOWN, Reason.WORKER_LOST) == (silent.end.reason, cut_off.end.reason)


def test_a_cancelled_job_is_not_tried_again() -> None:
    """A loss during cancellation ends the job as cancelled."""
    held = job(Status.LEASED, effects=Effects.PURE, cancel_requested=True)
    verdict = after_loss(held, Loss.NEVER_BEGUN, attempts_max=3)
    assert isinstance(verdict, GiveUp)
    assert verdict.end.reason is Reason.CANCELLED
