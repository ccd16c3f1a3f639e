"""Replay: what a repeated request means."""

from crank.domain.ids import LOCAL_TENANT, Digest, JobId
from crank.domain.job import Refusal
from crank.domain.rules.replay import WINDOW_US, Fresh, Repeated, by_job_id, by_key
from crank.domain.worker import Replay
from tests.unit.domain.rules.builders import job

SAME = Digest("a" * 64)
OTHER = Digest("b" * 64)
SEEN = Replay(LOCAL_TENANT, "k", SAME, JobId("j"), created_us=0)


def test_same_key_and_request_replays_within_the_hour() -> None:
    """The same request under the same key answers with the first job."""
    assert Repeated(JobId("j")) == by_key(SEEN, SAME, WINDOW_US - 1)


def test_a_key_is_free_again_after_the_hour() -> None:
    """After the window the key means nothing any more."""
    assert Fresh() == by_key(SEEN, OTHER, WINDOW_US)


def test_another_request_under_the_key_is_refused() -> None:
    """A key cannot be used for two requests."""
    verdict = by_key(SEEN, OTHER, 1)
    assert isinstance(verdict, Refusal)
    assert verdict.code == "idempotency_mismatch"


def test_a_job_id_stays_taken_for_ever() -> None:
    """A client's job id is unique, also after the replay window."""
    assert Repeated(JobId("j")) == by_job_id(job(), SAME, 1)
    late = by_job_id(job(), SAME, WINDOW_US)
    assert isinstance(late, Refusal)
    assert late.code == "job_id_taken"
    other = by_job_id(job(), OTHER, 1)
    assert isinstance(other, Refusal)
    assert other.code == "idempotency_mismatch"
