"""Sessions: whatever happens in whatever order, one end holds, and a clock fires exactly when it may."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from crank.domain.ids import JobId
from crank.domain.outcome import End, Reason
from crank.domain.rules import session as rules
from crank.domain.session import SENTENCES, Session, SessionEnd, SessionReason, SessionState
from crank.testing.samples import sample_session

SECONDS = st.floats(0, 50)


class SessionLives(RuleBasedStateMachine):
    """One session beside a plain retelling of the two rules that people are promised."""

    @initialize(idle_sec=st.floats(1, 40), lifetime_sec=st.floats(1, 120))
    def open(self, idle_sec: float, lifetime_sec: float) -> None:
        self.now_sec = 1_000.0
        self.clocks = rules.Clocks(idle_sec, lifetime_sec, opened_sec=self.now_sec, used_sec=self.now_sec)
        self.session: Session = sample_session("s")
        self.born_sec, self.rest_sec, self.working = self.now_sec, self.now_sec, False
        self.first: SessionEnd | None = None

    @property
    def alive(self) -> bool:
        return not self.session.ended

    def _end(self, end: SessionEnd) -> None:
        self.first = self.first or end
        self.session = rules.ended(self.session, end, round(self.now_sec * 1e6))

    @rule(passed_sec=SECONDS)
    def time_passes(self, passed_sec: float) -> None:
        self.now_sec += passed_sec

    @rule()
    def tick(self) -> None:
        reason = rules.expired(self.clocks, self.now_sec)
        if self.alive and reason is not None:
            self._end(SessionEnd(reason))

    @rule()
    def stands(self) -> None:
        before = self.session
        self.session = rules.opened(self.session, "namespaces", round(self.now_sec * 1e6))
        assert (self.session is before) == (before.state is not SessionState.OPENING)

    @precondition(lambda self: self.alive and not self.working)
    @rule()
    def job_begins(self) -> None:
        self.clocks, self.working = rules.begun(self.clocks), True

    @precondition(lambda self: self.working)
    @rule(reason=st.sampled_from(Reason))
    def job_ends(self, reason: Reason) -> None:
        self.clocks, self.working, self.rest_sec = rules.rested(self.clocks, self.now_sec), False, self.now_sec
        self.session = rules.used(self.session, round(self.now_sec * 1e6))
        if reason not in rules.HARMLESS:
            self._end(SessionEnd(SessionReason.CRASHED, job_id=JobId("j"), job_end=End(reason)))

    @rule(idle_sec=st.none() | st.floats(1, 40), lifetime_sec=st.none() | st.floats(1, 120))
    def touch(self, idle_sec: float | None, lifetime_sec: float | None) -> None:
        self.clocks = rules.touched(self.clocks, self.now_sec, idle_sec, lifetime_sec)
        self.rest_sec = self.now_sec

    @rule(reason=st.sampled_from([SessionReason.CLOSED, SessionReason.WORKER_LOST, SessionReason.FAILED]))
    def ends(self, reason: SessionReason) -> None:
        self._end(SessionEnd(reason))

    @invariant()
    def the_first_end_holds(self) -> None:
        if hasattr(self, "first"):
            assert self.session.end == self.first
            assert (self.session.ended_us is None) == self.alive == (rules.refusal(self.session) is None)

    @invariant()
    def a_clock_fires_when_it_may(self) -> None:
        if not hasattr(self, "clocks"):
            return
        reason = rules.expired(self.clocks, self.now_sec)
        over = self.now_sec - self.born_sec >= self.clocks.lifetime_sec
        idle = not self.working and self.now_sec - self.rest_sec >= self.clocks.idle_sec
        assert reason is (SessionReason.LIFETIME if over else SessionReason.IDLE if idle else None)


TestSessionLives = SessionLives.TestCase
TestSessionLives.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("reason", SessionReason)
def test_every_reason_has_a_sentence(reason: SessionReason) -> None:
    """Whoever is refused reads the reason's word and a sentence, for every way in which a session ends."""
    over = rules.ended(sample_session("s"), SessionEnd(reason), 5)
    refused = rules.refusal(over)
    assert refused is not None
    assert (refused.code, str(reason) in refused.message, SENTENCES[reason] in refused.message) == (
        "session_ended",
        True,
        True,
    )
    end = rules.job_end(over.end)
    assert (end.reason, end.code, end.message) == (Reason.REFUSED, "session_ended", refused.message)


def test_a_message_says_more_than_the_reason() -> None:
    """Where the end carries a sentence of its own, that one is told."""
    over = rules.ended(sample_session("s"), SessionEnd(SessionReason.CRASHED, message="The job j grew."), 5)
    assert "The job j grew." in rules.ended_sentence(over.end)


@given(st.floats(1, 100), st.floats(1, 100), st.floats(1, 100), st.floats(1, 100))
def test_ceilings_are_the_operators(idle: float, lifetime: float, idle_max: float, lifetime_max: float) -> None:
    """A clock passes exactly when it is at most its ceiling; the refusal names the first that is not."""
    refused = rules.clocks_refusal(idle, lifetime, idle_sec_max=idle_max, lifetime_sec_max=lifetime_max)
    if idle <= idle_max and lifetime <= lifetime_max:
        assert refused is None
    else:
        assert refused is not None
        assert refused.constraint == ("idle_sec" if idle > idle_max else "lifetime_sec")


def test_nothing_brings_an_ended_session_back() -> None:
    """Opening or using an ended session changes nothing."""
    over = rules.ended(sample_session("s"), SessionEnd(SessionReason.CLOSED), 5)
    assert rules.opened(over, "namespaces", 6) is over
    assert rules.used(over, 7) is over
    assert rules.used(replace(over, state=SessionState.OPEN), 7).used_us == 7


@given(st.integers(0, 10_000))
def test_a_share_leaves_something_for_the_next_key(whole: int) -> None:
    """A key may always take one; where there are two or more, another key can have one beside it."""
    assert 1 <= rules.share(whole)
    assert whole < 2 or rules.share(whole) < whole


def test_a_share_is_of_sessions_and_of_memory() -> None:
    """Half of eight are four, half of three are two; a first session is never too large."""
    assert [rules.share(whole) for whole in (8, 3, 2, 1, 0)] == [4, 2, 1, 1, 1]
    assert rules.is_within_share(3, 8)
    assert not rules.is_within_share(4, 8)
    assert rules.is_within_share(0, 1, wanted_bytes=1 << 30, bytes_max=1 << 20)
    assert rules.is_within_share(1, 8, wanted_bytes=1 << 20, bytes_max=2 << 20)
    assert not rules.is_within_share(1, 8, wanted_bytes=(1 << 20) + 1, bytes_max=2 << 20)
