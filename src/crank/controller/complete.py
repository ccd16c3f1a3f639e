"""Complete: from a worker's outcome, or the loss of a worker, to a settled job.

Steps, marked again in the code:
 1. read the outcome
 2. check the fence: only the current lease may change the job
 3. check that the artifacts' bytes are here
 4. derive the end; keep a large outcome as a blob
 5. settle: job, blob references and record in one transaction
 6. count it; tell the worker that it may forget; wake who waits
Money is settled at 5, in the same transaction, once budgets exist.
"""

import asyncio
import hashlib
import io
from dataclasses import dataclass, replace

import structlog

from crank.controller.desk import Desk
from crank.controller.roster import LiveWorker
from crank.domain.ids import LOCAL_TENANT, Digest, JobId, parse_digest
from crank.domain.job import Job, Status, status_of
from crank.domain.json import JsonObject, dumps, loads_strict
from crank.domain.outcome import End, Outcome, Reason, Skipped
from crank.domain.outcome_codec import outcome_document, parse_outcome
from crank.domain.quantity import BLOB_BYTES_MAX, KIB
from crank.domain.rules import evidence, lease, retry
from crank.domain.rules import session as session_rules
from crank.errors import InvalidRequest, NotFound, ProtocolError
from crank.ports import Transaction
from crank.wire import Finished, Settled

# A smaller outcome stays in the job's row; a larger one is a file.
OUTCOME_ROW_BYTES_MAX = 16 * KIB
_DOCUMENT_DEPTH_MAX = 128
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Kept:
    """An outcome in the form in which it is stored."""

    outcome: Outcome
    row: JsonObject | None
    blob: Digest | None

    @property
    def refers(self) -> list[Digest]:
        """Return the blobs that the job needs from now on."""
        own = [self.blob] if self.blob else []
        return own + [artifact.sha256 for artifact in self.outcome.artifacts]


async def complete(desk: Desk, *, worker: LiveWorker, message: Finished) -> None:
    """Settle an attempt once. A repeated message changes nothing; one of an old lease is kept as superseded."""
    # One tenant until tenancy arrives; the wire then carries it with the lease.
    job_id, tenant = JobId(message.job_id), LOCAL_TENANT
    kept = await asyncio.to_thread(_take_in, desk, message)  # 1, 3, 4
    outcome = kept.outcome
    desk.failpoints.reach("complete.before_commit")

    def settle(tx: Transaction) -> str:
        job = tx.jobs.find(tenant, job_id)
        if job is not None and lease.is_current(job, worker.known.worker_id, message.epoch):  # 2
            _settle(desk, tx, job, kept, subject=str(worker.known.worker_id))  # 5
            return "settled"
        if job is not None and job.ended and job.epoch == message.epoch and job.worker_id == worker.known.worker_id:
            return "repeated"
        facts = {"epoch": message.epoch, "worker": worker.known.worker_id, "reason": str(outcome.end.reason)}
        if job is not None and kept.blob is not None:
            tx.registry.refer(tenant, job_id, [kept.blob])
            facts["outcome_sha256"] = kept.blob
        tx.records.append(
            desk.record("attempt.superseded", tenant=tenant, subject=worker.known.worker_id, job_id=job_id, facts=facts)
        )
        return "superseded"

    verdict = await desk.store.transact(settle)
    if verdict == "settled":
        _notice(desk, job_id, outcome)
    desk.failpoints.reach("complete.committed")
    if (live := worker.leases.get(job_id)) is not None and live.epoch == message.epoch:  # 6
        del worker.leases[job_id]
    desk.watch.changed(tenant, job_id)
    desk.watch.work.set()
    await worker.link.send(
        Settled(message.job_id, message.epoch, "superseded" if verdict == "superseded" else "accepted")
    )


def _take_in(desk: Desk, message: Finished) -> _Kept:
    """Read what was told, and keep what does not fit into a row: all that reads and writes files, in one thread."""
    outcome = _read_outcome(desk, message)  # 1
    outcome = _check_artifacts(desk, outcome)  # 3
    return _keep(desk, outcome)  # 4


def _notice(desk: Desk, job_id: JobId, outcome: Outcome) -> None:
    """Count a settled outcome, and log where its job wanted to go and could not."""
    desk.tally.completed(outcome)
    hosts = evidence.wanted_hosts(outcome.denials)
    if hosts:
        _log.warning("job_network_refused", job_id=job_id, hosts=hosts, tier=outcome.tier)


def _read_outcome(desk: Desk, message: Finished) -> Outcome:
    # One that cannot be read ends its own job: dropping the link would bring it back for ever, and
    # every other job of the worker would pay.
    try:
        if message.outcome is not None:
            return parse_outcome(message.outcome)
        if message.outcome_blob is None:
            raise ProtocolError("A finished message carries neither an outcome nor its blob.")
        with desk.blobs.open(parse_digest(message.outcome_blob)) as source:
            return parse_outcome(loads_strict(source.read(BLOB_BYTES_MAX), depth_max=_DOCUMENT_DEPTH_MAX))
    except (ProtocolError, InvalidRequest, NotFound) as fault:
        told = f"The worker's outcome could not be read: {fault.message}"
        return Outcome(End(Reason.PROTOCOL_VIOLATION, code="outcome_unreadable", message=told))


def _check_artifacts(desk: Desk, outcome: Outcome) -> Outcome:
    missing = {artifact for artifact in outcome.artifacts if desk.blobs.size(artifact.sha256) != artifact.size_bytes}
    if not missing:
        return outcome
    lost = tuple(Skipped(artifact.path, "its bytes did not arrive") for artifact in missing)
    present = tuple(artifact for artifact in outcome.artifacts if artifact not in missing)
    return replace(outcome, artifacts=present, skipped=outcome.skipped + lost)


def _keep(desk: Desk, outcome: Outcome) -> _Kept:
    document = outcome_document(outcome)
    octets = dumps(document).encode("utf-8")
    if len(octets) <= OUTCOME_ROW_BYTES_MAX:
        return _Kept(outcome, document, None)
    expected = Digest(hashlib.sha256(octets).hexdigest())
    digest, _ = desk.blobs.put(io.BytesIO(octets), expected=expected, bytes_max=BLOB_BYTES_MAX)
    return _Kept(outcome, None, digest)


def _rest_session(desk: Desk, tx: Transaction, job: Job) -> None:
    if job.request.session_id is not None:
        session = tx.sessions.find(job.tenant, job.request.session_id)
        if session is not None:
            tx.sessions.update(session_rules.used(session, desk.clock.now_us()))


def _settle(desk: Desk, tx: Transaction, job: Job, kept: _Kept, *, subject: str) -> None:
    settled = replace(
        job,
        status=status_of(kept.outcome.end),
        end=kept.outcome.end,
        ended_us=desk.clock.now_us(),
        outcome=kept.row,
        outcome_blob=kept.blob,
    )
    tx.jobs.update(settled)
    _rest_session(desk, tx, job)
    if kept.refers:
        tx.registry.refer(job.tenant, job.job_id, kept.refers)
    facts: JsonObject = {
        "status": str(settled.status),
        "reason": str(kept.outcome.end.reason),
        "epoch": job.epoch,
        "wall_sec": kept.outcome.usage.wall_sec,
        "tier": kept.outcome.tier,
        "pool_hit": kept.outcome.usage.pool_hit,
    }
    if settled.end is not None and settled.end.clock is not None:
        facts["clock"] = str(settled.end.clock)
    # Where a job wanted to go is worth a look later; it is the job's own word, cut and escaped.
    hosts = evidence.wanted_hosts(kept.outcome.denials)
    if hosts:
        facts["refused_hosts"] = list(hosts)
    tx.records.append(desk.record("job.ended", tenant=job.tenant, subject=subject, job_id=job.job_id, facts=facts))


def end_job(desk: Desk, tx: Transaction, job: Job, end: End, *, subject: str) -> Job:
    """End a job that has no outcome of its own (lost, cancelled in the queue), inside a transaction.

    It is counted here, before the commit: a disk that refuses the commit makes the counter one too high.
    """
    desk.tally.ended(end.reason)
    ended = replace(job, status=status_of(end), end=end, ended_us=desk.clock.now_us())
    tx.jobs.update(ended)
    facts = {"status": str(ended.status), "reason": str(end.reason), "epoch": job.epoch}
    tx.records.append(desk.record("job.ended", tenant=job.tenant, subject=subject, job_id=job.job_id, facts=facts))
    return ended


def settle_loss(desk: Desk, tx: Transaction, job: Job, loss: retry.Loss) -> Status:
    """Decide about a held job whose attempt was lost, inside a transaction; return its new status."""
    verdict = retry.after_loss(job, loss, attempts_max=desk.policy.attempts_max)
    if isinstance(verdict, retry.GiveUp):
        return end_job(desk, tx, job, verdict.end, subject=desk.policy.controller_id).status
    again = lease.requeue(job)
    tx.jobs.update(again)
    facts = {"reason": verdict.reason, "epoch": job.epoch, "worker": job.worker_id}
    tx.records.append(
        desk.record("job.requeued", tenant=job.tenant, subject=desk.policy.controller_id, job_id=job.job_id, facts=facts)
    )
    return again.status

