"""Shapes of answers about sessions and running jobs, for the OpenAPI document to tell."""

from typing import Any, Literal

from pydantic import Field

from crank.api.models import Answer, EndDocument
from crank.domain.session import SessionReason, SessionState


class SessionClocksDocument(Answer):
    """The two clocks; a time is null when that clock stands still or the session has ended."""

    idle_sec: float
    lifetime_sec: float
    idle_until: str | None
    lifetime_until: str | None


class SessionEndDocument(Answer):
    """Why a session ended; `job_id` and `job_end` name the job that broke it."""

    reason: SessionReason
    code: str | None
    message: str
    job_id: str | None
    job_end: EndDocument | None


class SessionDocument(Answer):
    """A sandbox that lives on between jobs."""

    session_id: str
    name: str | None
    state: SessionState
    capability: str
    env_profile: str | None
    accelerator: str | None
    gpu_model: str | None
    tier: str | None
    worker_id: str
    mounts: list[str]
    limits: dict[str, Any] = Field(description="What its jobs may use; little is known while its worker is away.")
    clocks: SessionClocksDocument
    running_job_id: str | None
    queued_jobs: int
    created_at: str
    opened_at: str | None
    ended_at: str | None
    end: SessionEndDocument | None


class SessionsPage(Answer):
    """Sessions, newest first; give `next` as `before` for more."""

    sessions: list[SessionDocument]
    next: str | None


class SessionFileEntry(Answer):
    """One thing that lies in a session's /scratch."""

    path: str
    kind: Literal["file", "folder", "other"]
    size_bytes: int
    modified_at: str | None


class SessionFiles(Answer):
    """What lies directly in a folder, by name; `truncated` when there is more than one answer holds."""

    files: list[SessionFileEntry]
    truncated: bool


class SessionFileStored(Answer):
    """A file that was written."""

    path: str
    size_bytes: int
    sha256: str


class StdinTaken(Answer):
    """How many bytes of stdin the job's worker has taken in all, and whether their end was sent."""

    taken_bytes: int
    ended: bool
