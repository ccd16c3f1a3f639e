"""Dispatch: queued jobs to connected workers, oldest first.

Steps, marked again in the code:
 1. look at the queue and at who is free
 2. choose a worker for each job (pure)
 3. lease them all in one transaction, each only if it is still queued
 4. after the commit, send the leases
"""

from dataclasses import dataclass, replace

from crank.controller.complete import end_job
from crank.controller.desk import Desk
from crank.controller.roster import LiveWorker, lease_of
from crank.domain.capability import Capability
from crank.domain.handle import Handle
from crank.domain.ids import MountId
from crank.domain.job import Job, Mount, Status
from crank.domain.outcome import End, Reason
from crank.domain.rules import handle as handle_rules
from crank.domain.rules import lease, placement
from crank.domain.rules import session as session_rules
from crank.errors import Unavailable
from crank.ports import Transaction
from crank.wire import HANDLES_SINCE, Lease, LeaseFile, LeaseMount
from crank.wire.calls import LeaseHandle

BATCH_JOBS_MAX = 256


@dataclass(frozen=True, slots=True)
class _Plan:
    job: Job
    worker: LiveWorker
    capability: Capability
    mounts: tuple[LeaseMount, ...]


async def dispatch(desk: Desk) -> int:
    """Lease what can be leased now; return how many. Only the controller's loop calls it, one at a time."""
    async with desk.roster.gate:
        return await _dispatch(desk)


async def _dispatch(desk: Desk) -> int:
    queue, mounts, broken = await desk.store.read(_look)  # 1
    plans = _choose(desk, queue, mounts)  # 2
    if not plans and not broken:
        return 0

    def commit(tx: Transaction) -> list[tuple[_Plan, Job]]:
        for job, end in broken:
            if (current := tx.jobs.find(job.tenant, job.job_id)) and current.status is Status.QUEUED:
                end_job(desk, tx, current, end, subject=desk.policy.controller_id)
        return [(plan, leased) for plan in plans if (leased := _lease(desk, tx, plan)) is not None]

    leased = await desk.store.transact(commit)  # 3
    desk.failpoints.reach("dispatch.committed")
    for job, _ in broken:
        desk.watch.changed(job.tenant, job.job_id)
    for plan, job in leased:
        await _send(desk, plan, job)  # 4
    return len(leased)


_MOUNT_GONE = End(
    Reason.REFUSED, code="mount_not_found", message="A mount that the job needs was removed before it could start."
)
_MOUNT_DENIED = End(
    Reason.REFUSED, code="mount_not_allowed", message="The job's key may not name one of its mounts any more."
)
_KEY_REVOKED = End(
    Reason.REFUSED, code="key_revoked", message="The key that asked for it was revoked before it could start."
)
_CALLER_ENDED = End(
    Reason.CANCELLED, code="caller_ended", message="The job that called for it ended before it could start."
)
_GRANT_REVOKED = End(
    Reason.REFUSED, code="grant_revoked", message="The token that asked for it was revoked before it could start."
)


def _look(tx: Transaction) -> tuple[list[Job], dict[MountId, Mount], list[tuple[Job, End]]]:
    queue = list(tx.jobs.queued(BATCH_JOBS_MAX))
    # Whatever waits before them: places that are lent are theirs alone, and whoever lends one waits for them.
    seen = {job.job_id for job in queue}
    queue += [job for job in tx.jobs.called_open() if job.status is Status.QUEUED and job.job_id not in seen]
    tenants = {job.tenant for job in queue if job.request.mounts}
    mounts = {mount.mount_id: mount for tenant in tenants for mount in tx.registry.mounts(tenant)}
    ends = {job.job_id: _broken(tx, job, mounts) for job in queue}
    broken = [(job, end) for job in queue if (end := ends[job.job_id]) is not None]
    return [job for job in queue if ends[job.job_id] is None], mounts, broken


def _broken(tx: Transaction, job: Job, mounts: dict[MountId, Mount]) -> End | None:
    """Return how a job ends that can never start any more, or None."""
    if any(use.mount_id not in mounts for use in job.request.mounts):
        return _MOUNT_GONE
    if _is_forsaken(tx, job):
        return _CALLER_ENDED
    if (denied := _denied(tx, job)) is not None:
        return denied
    if job.request.session_id is None:
        return None
    session = tx.sessions.find(job.tenant, job.request.session_id)
    if session is not None and not session.ended:
        return None
    return session_rules.job_end(None if session is None else session.end)


def _is_forsaken(tx: Transaction, job: Job) -> bool:
    """Tell whether a job was called for by another one that does not wait for it any more."""
    by = job.called_by
    return by is not None and handle_rules.is_forsaken(by, tx.jobs.find(job.tenant, by.job_id))


def _denied(tx: Transaction, job: Job) -> End | None:
    """Return how a job ends whose key or token was revoked, or denied a mount, since it was accepted; None otherwise."""
    if job.owner is None:
        return None
    grant_id = tx.grants.noted(job.tenant, job.job_id)
    grant = None if grant_id is None else tx.grants.find(job.tenant, grant_id)
    if grant_id is not None and (grant is None or grant.revoked_us is not None):
        return _GRANT_REVOKED
    asker = tx.credentials.find(job.tenant, job.owner if grant is None else grant.credential_id)
    if asker is None or asker.revoked_us is not None:
        return _KEY_REVOKED
    if asker.bounded and any(use.mount_id not in asker.mounts for use in job.request.mounts):
        return _MOUNT_DENIED
    return None


def _choose(desk: Desk, queue: list[Job], mounts: dict[MountId, Mount]) -> list[_Plan]:
    now_sec = desk.clock.monotonic_sec()
    taken: dict[str, int] = {}
    plans: list[_Plan] = []
    base = {called: desk.roster.offers(now_sec, called=called) for called in {_is_called(job) for job in queue}}
    for job in queue:
        offers = [
            replace(o, free_slots=o.free_slots - taken.get(o.worker_id, 0))
            for o in desk.roster.for_request(job.request, base[_is_called(job)])
        ]
        nodes = frozenset(mounts[use.mount_id].node_id for use in job.request.mounts)
        placed = placement.choose(job.request, offers, nodes, floor=desk.policy.attestation_min)
        if isinstance(placed, placement.Busy):
            continue
        worker = desk.roster.find(placed.worker_id)
        if worker is None:
            continue
        taken[placed.worker_id] = taken.get(placed.worker_id, 0) + 1
        bound = tuple(LeaseMount(use.name, mounts[use.mount_id].host_path) for use in job.request.mounts)
        plans.append(_Plan(job, worker, placed.capability, bound))
    return plans


def _is_called(job: Job) -> bool:
    return job.called_by is not None


def _lease(desk: Desk, tx: Transaction, plan: _Plan) -> Job | None:
    job = tx.jobs.find(plan.job.tenant, plan.job.job_id)
    if job is None or job.status is not Status.QUEUED or _denied(tx, job) is not None or _is_forsaken(tx, job):
        # Also where its key was revoked, or its caller ended, since the look; the next look ends it.
        return None
    known = plan.worker.known
    leased = lease.grant(job, known.worker_id, known.instance_id)
    tx.jobs.update(leased)
    facts = {"worker": known.worker_id, "instance": known.instance_id, "epoch": leased.epoch}
    tx.records.append(
        desk.record("job.leased", tenant=job.tenant, subject=desk.policy.controller_id, job_id=job.job_id, facts=facts)
    )
    return leased


def _told(handle: Handle) -> LeaseHandle:
    right = handle.right
    if right is None:
        return LeaseHandle(handle.name, "mount", None, None, None, None)
    mounts = None if right.mounts is None else list(right.mounts)
    return LeaseHandle(handle.name, "call", right.capability, right.version, mounts, right.calls_max)


async def _send(desk: Desk, plan: _Plan, job: Job) -> None:
    request = job.request
    plan.worker.leases[job.job_id] = lease_of(job)
    desk.watch.moved(job.tenant, job.job_id)
    message = Lease(
        job_id=job.job_id,
        epoch=job.epoch,
        capability=request.capability,
        accelerator=str(plan.capability.accelerator),
        code=request.code,
        args=request.args,
        files=[LeaseFile(file.path, file.sha256, file.size_bytes) for file in request.files],
        mounts=list(plan.mounts),
        timeout_sec=request.timeout_sec,
        max_output_bytes=request.max_output_bytes,
        memory_bytes=request.memory_bytes,
        traceparent=request.traceparent,
        session_id=request.session_id,
        context=request.context,
        program=None if request.program is None else list(request.program),
        stdin=request.stdin,
        cpu_sec=request.cpu_sec,
        idle_sec=request.idle_sec,
        no_output_sec=request.no_output_sec,
        handles=[_told(handle) for handle in request.handles] or None,
        # An older worker has no places to lend, and does not know the word.
        called=_is_called(job) and plan.worker.version >= HANDLES_SINCE,
    )
    try:
        await plan.worker.link.send(message)
    except Unavailable:
        # The connection just ended; the lease is decided when the worker is back, or when it runs out.
        return
    desk.failpoints.reach("dispatch.sent")
