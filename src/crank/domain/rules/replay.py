"""Idempotency: what a repeated request means within the hour (mission row R2)."""

from dataclasses import dataclass

from crank.domain.ids import Digest, JobId
from crank.domain.job import Job, Refusal
from crank.domain.quantity import REPLAY_WINDOW_SEC
from crank.domain.worker import Replay

WINDOW_US = REPLAY_WINDOW_SEC * 1_000_000


@dataclass(frozen=True, slots=True)
class Fresh:
    """Nobody asked this before; accept it."""


@dataclass(frozen=True, slots=True)
class Repeated:
    """The same request came before; answer with that job."""

    job_id: JobId


def by_key(seen: Replay | None, request_digest: Digest, now_us: int) -> Fresh | Repeated | Refusal:
    """Decide about a request that carries an idempotency key."""
    if seen is None or now_us - seen.created_us >= WINDOW_US:
        return Fresh()
    if seen.request_digest != request_digest:
        return Refusal(
            "idempotency_mismatch",
            f"This idempotency key was used for another request (job {seen.job_id}).",
            "Use a new key for a new request; repeat a request unchanged to get its answer again.",
            "idempotency_key",
        )
    return Repeated(seen.job_id)


def by_job_id(seen: Job | None, request_digest: Digest, now_us: int) -> Fresh | Repeated | Refusal:
    """Decide about a request that brings its own job id, which stays unique for ever."""
    if seen is None:
        return Fresh()
    if seen.request_digest != request_digest:
        return Refusal(
            "idempotency_mismatch",
            f"The job id {seen.job_id} belongs to another request.",
            "Choose another job_id; repeat a request unchanged to get its answer again.",
            "job_id",
        )
    if now_us - seen.submitted_us >= WINDOW_US:
        return Refusal(
            "job_id_taken",
            f"The job id {seen.job_id} was used more than an hour ago.",
            "Choose another job_id, or read the old job with GET.",
            "job_id",
        )
    return Repeated(seen.job_id)
