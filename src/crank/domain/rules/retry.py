"""What becomes of a job whose attempt was lost: run it again, or say truthfully how it stands."""

from dataclasses import dataclass
from enum import StrEnum

from crank.domain.capability import Effects
from crank.domain.job import Job, Status
from crank.domain.outcome import End, Reason


class Loss(StrEnum):
    """How the attempt was lost.

    NEVER_BEGUN  the worker came back and says that no code of the job ran
    CUT_OFF      the worker came back and says that its restart ended the code in the middle
    SILENT       nothing was heard until the lease ran out
    REVOKED      the worker's identity was revoked: whatever it says of the attempt is not believed
    """

    NEVER_BEGUN = "never_begun"
    CUT_OFF = "cut_off"
    SILENT = "silent"
    REVOKED = "revoked"


_UNHEARD = {Loss.SILENT: "fell silent", Loss.REVOKED: "had its identity revoked"}


@dataclass(frozen=True, slots=True)
class Again:
    """Put the job back into the queue."""

    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the job with this end."""

    end: End


def after_loss(job: Job, loss: Loss, *, attempts_max: int) -> Again | GiveUp:
    """Decide about a held job whose attempt was lost.

    Code that may have begun and has outside effects never runs again by itself; nor does a job of a session,
    because what it found there is gone. A silent worker may have begun even a job that it never reported as started.
    """
    if job.cancel_requested:
        return GiveUp(End(Reason.CANCELLED, message=f"It was being cancelled when its worker was lost ({loss})."))
    repeatable = job.request.effects is not Effects.EXTERNAL and job.request.session_id is None
    may_repeat = loss is Loss.NEVER_BEGUN or repeatable
    if may_repeat and job.attempts < attempts_max:
        return Again(f"attempt {job.attempts} was lost: {loss}")
    if loss in _UNHEARD:
        begun = "after its code had begun" if job.status is Status.RUNNING else "after it was sent"
        return GiveUp(
            End(
                Reason.OUTCOME_UNKNOWN,
                code="outcome_unknown",
                message=f"The worker {_UNHEARD[loss]} {begun}; whether the code finished is not known.",
            )
        )
    tried = "" if may_repeat is False else f" {job.attempts} attempts were made."
    return GiveUp(
        End(
            Reason.WORKER_LOST,
            code="worker_lost",
            message=f"The worker stopped while the job was with it; its code did not finish.{tried}",
        )
    )
