"""Who is connected now. Beats and free slots live here and never touch the store."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from crank.domain.ids import Digest, JobId, SessionId, WorkerId
from crank.domain.job import Job, JobRequest
from crank.domain.rules import slots
from crank.domain.rules.placement import Offer, offers_of
from crank.domain.trust import Peer
from crank.domain.worker import KnownWorker
from crank.ports import WorkerLink
from crank.wire import HANDLES_SINCE, SESSIONS_SINCE, VERSION_MAX, Answered, Pool, Trusted

# Of one worker: some full deliveries. What is no more remembered is only brought again.
BROUGHT_MAX = 10_000


@dataclass(slots=True)
class LiveLease:
    """A lease that a connected worker holds; `next_seq` is the first event not yet seen.

    hands   its job has handles
    called  another job waits for it
    open    its calls that were accepted and not answered yet: while there are any, it lends its slot
    """

    epoch: int
    next_seq: int = 1
    hands: bool = False
    called: bool = False
    open: int = 0


def lease_of(job: Job, next_seq: int = 1) -> LiveLease:
    """Return the lease that a job stands under now."""
    return LiveLease(job.epoch, next_seq, hands=bool(job.request.handles), called=job.called_by is not None)


@dataclass(slots=True, eq=False)
class LiveWorker:
    """One connected worker."""

    known: KnownWorker
    link: WorkerLink
    beat_at_sec: float
    leases: dict[JobId, LiveLease] = field(default_factory=dict)
    draining: bool = False
    paused_until_sec: float = 0.0
    pools: list[Pool] = field(default_factory=list)
    # What it can be told depends on the version that both agreed on.
    version: int = VERSION_MAX
    # What it signed; None for one that cannot sign yet.
    manifest: str | None = None
    # None until it has said which sessions it holds; then those that stand.
    sessions: set[SessionId] | None = None
    calls: dict[str, asyncio.Future[Answered]] = field(default_factory=dict)
    # Calls of its jobs that are being worked on, by job, epoch and number.
    answering: dict[tuple[str, int, int], asyncio.Task[None]] = field(default_factory=dict)
    # Blobs that it may read for a call that is under way.
    lent: Counter[Digest] = field(default_factory=Counter)
    # What its certificate says; None only where a test speaks without one.
    peer: Peer | None = None
    trusts: Trusted | None = None
    # The link that took over while this one stood. From then on only answers to calls are heard here.
    successor: "LiveWorker | None" = field(default=None, repr=False)
    # Sessions that it was asked to open, and has not told of yet.
    asked: set[SessionId] = field(default_factory=set)
    # Leases and sessions of the older link, until the worker has said that it read that one to its end.
    carried: dict[JobId, int] = field(default_factory=dict)
    carried_sessions: set[SessionId] = field(default_factory=set)
    # Held while one of its messages is acted on, so that a link that takes over finds nothing half done.
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def latest(self) -> "LiveWorker":
        """Return the link that took over last; this one where none did."""
        worker = self
        while worker.successor is not None:
            worker = worker.successor
        return worker

    @property
    def knows_sessions(self) -> bool:
        """Tell whether sessions, programs and calls can be sent to it."""
        return self.version >= SESSIONS_SINCE

    def can_take(self, request: JobRequest) -> bool:
        """Tell whether it could be sent this request: its session lives here, and every field is known to it."""
        if request.session_id is not None:
            return self.sessions is not None and request.session_id in self.sessions
        if request.handles and self.version < HANDLES_SINCE:
            return False
        return self.knows_sessions or (request.program is None and not request.stdin)

    def free_slots(self, now_sec: float, *, called: bool = False) -> int:
        """Return how many more leases it takes now; `called`: of jobs that other jobs wait for."""
        if self.draining or now_sec < self.paused_until_sec:
            return 0
        leases = self.leases.values()
        waiting = sum(lease.open > 0 for lease in leases)
        return slots.free(self.known.slots, len(leases), waiting, sum(lease.called for lease in leases), called_for=called)


class Roster:
    """The connected workers, and since when the others are away."""

    def __init__(self) -> None:
        # Held by dispatch, and by enroll while it decides about leases: a lease is never sent to a
        # connection that is being replaced.
        self.gate = asyncio.Lock()
        self._live: dict[WorkerId, LiveWorker] = {}
        self._away_since_sec: dict[WorkerId, float] = {}
        # Which blobs each brought of late, oldest first: it outlives a connection, so that one that is cut is no loss.
        self._brought: dict[WorkerId, dict[Digest, None]] = {}

    def brought(self, worker_id: WorkerId, digest: Digest) -> None:
        """Note that a worker brought a blob."""
        own = self._brought.setdefault(worker_id, {})
        own.pop(digest, None)
        own[digest] = None
        if len(own) > BROUGHT_MAX:
            del own[next(iter(own))]

    def has_brought(self, worker_id: WorkerId, digest: Digest) -> bool:
        """Tell whether the worker brought the blob of late."""
        return digest in self._brought.get(worker_id, {})

    def enter(self, worker: LiveWorker) -> LiveWorker | None:
        """Add a worker; return the older connection of the same worker, if there is one."""
        older = self._live.get(worker.known.worker_id)
        self._live[worker.known.worker_id] = worker
        self._away_since_sec.pop(worker.known.worker_id, None)
        return older

    def leave(self, worker: LiveWorker, now_sec: float) -> bool:
        """Remove a worker unless a newer connection replaced it; tell whether it was removed."""
        if self._live.get(worker.known.worker_id) is not worker:
            return False
        del self._live[worker.known.worker_id]
        self._away_since_sec[worker.known.worker_id] = now_sec
        return True

    def find(self, worker_id: WorkerId | None) -> LiveWorker | None:
        """Return the connected worker, or None."""
        return None if worker_id is None else self._live.get(worker_id)

    def live(self) -> list[LiveWorker]:
        """Return the connected workers."""
        return list(self._live.values())

    def away_sec(self, worker_id: WorkerId, now_sec: float) -> float:
        """Return for how long a worker is away; the count begins when it is first asked for."""
        if worker_id in self._live:
            return 0.0
        return now_sec - self._away_since_sec.setdefault(worker_id, now_sec)

    def offers(self, now_sec: float, *, called: bool = False) -> list[Offer]:
        """List what connected workers offer now; `called`: to jobs that other jobs wait for."""
        return [
            offer
            for worker in self._live.values()
            for offer in offers_of(worker.known, worker.free_slots(now_sec, called=called))
        ]

    def for_request(self, request: JobRequest, offers: list[Offer]) -> list[Offer]:
        """Leave those offers whose worker could be sent this request."""
        return [offer for offer in offers if (worker := self.find(offer.worker_id)) and worker.can_take(request)]
