"""How long a call of an agent may wait, and what the agent does next when the work takes longer.

Hosts of agents cut calls, the strictest at 45 s. So no call waits longer than WAIT_SEC_MAX: then it answers with
the job as it stands, and the job goes on.
"""

from crank.domain.job import ENDED, Status
from crank.domain.quantity import WAIT_SEC_MAX

WAIT_SEC_DEFAULT = 25.0
# Kept of the longest wait for making and sending the answer.
_ANSWER_SEC = 0.5


def wait_sec(asked: float | None) -> float:
    """Return how long a call waits for a job, from the moment it came in, in seconds."""
    wanted = WAIT_SEC_DEFAULT if asked is None else asked
    return max(0.0, min(wanted, WAIT_SEC_MAX - _ANSWER_SEC))


def next_step(status: Status, job_id: str) -> str | None:
    """Return what to do about a job that has not ended; None for one that has."""
    if status in ENDED:
        return None
    return f"The job goes on. Call job_wait with job_id {job_id} until `ended` is true, or job_cancel to end it."
