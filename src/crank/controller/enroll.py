"""Enroll: a proven worker says what it offers and what it still holds.

Steps, marked again in the code:
 1. agree on a version of the protocol
 2. check that the certificate was issued to a worker and speaks for this one, and a renewed link's for no other instance
 3. check the manifest: signed with that certificate's key, for this worker, instance and node, just now, not shown before;
    only a worker of an old version that never signed may come without one
 4. validate every capability; one that is wrong keeps the whole worker out
 5. in one transaction: check what its node's enrolment allows, store what it offers, and decide about every lease it
    should hold
 6. let it in, close an older connection of the same worker; one that it renews hands over (`take_over`)
 7. answer, tell by what it checks its peers, repeat pending cancellations, wake the dispatcher
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from crank.controller.complete import settle_loss
from crank.controller.desk import Desk
from crank.controller.end_session import on_listed
from crank.controller.enrolled import check_certificate, check_signed, enrolled_as, signed_offer
from crank.controller.roster import LiveWorker
from crank.controller.take_over import carry_over, going_on, older_link
from crank.controller.tell_trust import tell_trust
from crank.domain.capability import CAPABILITIES_MAX, Capability, parse_capability
from crank.domain.identity import SpiffeId
from crank.domain.ids import LOCAL_TENANT, InstanceId, JobId, WorkerId, is_uuid7, parse_name
from crank.domain.job import Job, Status
from crank.domain.json import JsonObject
from crank.domain.rules.retry import Loss
from crank.domain.trust import Peer
from crank.domain.worker import SLOTS_MAX, KnownWorker
from crank.errors import InvalidRequest, ProtocolError, Unavailable
from crank.ports import Transaction, WorkerLink
from crank.wire import VERSION_MAX, VERSION_MIN, Cancel, Hello, Holding, Resumed, Sessions, Welcome


@dataclass(slots=True)
class _Decided:
    """What became of the leases of a worker; `carried` are those that it may not have heard of yet."""

    answers: list[tuple[Job | None, Resumed]]
    carried: list[Job]


async def enroll(
    desk: Desk, *, hello: Hello, peer: SpiffeId, link: WorkerLink, shown: Peer | None = None
) -> LiveWorker:
    """Let a worker in. Raises ProtocolError, NotAllowed, InvalidRequest, Unavailable; then nothing was stored.

    shown  what the certificate of the connection says; it is looked at for as long as the link stands
    """
    version = min(hello.version_max, VERSION_MAX)  # 1
    if version < max(hello.version_min, VERSION_MIN):
        raise ProtocolError(
            f"The worker speaks versions {hello.version_min} to {hello.version_max}, "
            f"this controller {VERSION_MIN} to {VERSION_MAX}.",
            code="version_mismatch",
        )
    await check_certificate(desk, hello, peer, shown)  # 2
    documents = signed_offer(desk, hello, shown)  # 3
    known = _known(desk, hello, _capabilities(desk, documents))  # 4
    async with desk.roster.gate:
        if shown is not None:
            # Again under the gate: a revocation that came meanwhile has looked for links to close already.
            desk.standing.check(shown, desk.clock.now_us())
        worker = LiveWorker(known, link, beat_at_sec=desk.clock.monotonic_sec(), version=version, peer=shown)
        worker.manifest = hello.manifest
        # Under the gate, so that no link of the same worker signs between this look and what is stored below.
        await check_signed(desk, hello, peer, version)
        older = await older_link(desk, hello)
        if older is None:
            decided = await _let_in(desk, worker, hello, None)
        else:
            # Whatever it is acting on is finished first; all else that comes by that link is said again.
            async with older.turn:
                decided = await _let_in(desk, worker, hello, older)
                await _carry(desk, older, worker, decided.carried)
        await _replace(desk, worker)  # 6
        try:
            await _answer(desk, worker, version, decided.answers)  # 7
        except Unavailable:
            desk.roster.leave(worker, desk.clock.monotonic_sec())
            raise
    await tell_trust(desk, worker)
    if not worker.knows_sessions:
        # It says nothing of sessions, so it holds none: those of a later version that ran here before are lost.
        await on_listed(desk, worker, Sessions([], []))
    desk.watch.work.set()
    return worker


async def _let_in(desk: Desk, worker: LiveWorker, hello: Hello, older: LiveWorker | None) -> _Decided:
    worker.known, decided = await desk.store.transact(  # 5
        lambda tx: _store(desk, tx, worker, hello, renews=older is not None)
    )
    desk.failpoints.reach("enroll.committed")
    for job, entry in decided.answers:
        if job is not None and entry.verdict == "continue":
            worker.leases[job.job_id] = going_on(older, job, await _next_seq(desk, job.job_id, entry.epoch))
    return decided


async def _carry(desk: Desk, older: LiveWorker, worker: LiveWorker, carried: list[Job]) -> None:
    next_seq = {job.job_id: await _next_seq(desk, job.job_id, job.epoch) for job in carried}
    carry_over(older, worker, carried, next_seq)
    desk.tally.links_renewed += 1


async def _replace(desk: Desk, worker: LiveWorker) -> None:
    older = desk.roster.enter(worker)
    if older is not None:
        await older.link.close("replaced", "A newer connection of this worker took over.")


async def leave(desk: Desk, *, worker: LiveWorker) -> None:
    """Note that a connection ended. Its leases and sessions stay until the worker is back or the lease runs out."""
    # What its jobs call for is said again on its next link.
    for answering in list(worker.answering.values()):
        answering.cancel()
    if worker.successor is not None:
        # Its calls wait for their answers on the link that took over.
        return
    for waiting in worker.calls.values():
        if not waiting.done():
            waiting.set_exception(Unavailable("The worker's connection was lost.", code="worker_gone"))
    if desk.roster.leave(worker, desk.clock.monotonic_sec()):
        seen = replace(worker.known, seen_us=desk.clock.now_us())
        await desk.store.transact(lambda tx: tx.registry.put_worker(seen))


def _capabilities(desk: Desk, documents: Sequence[JsonObject]) -> tuple[Capability, ...]:
    if len(documents) > CAPABILITIES_MAX:
        raise InvalidRequest(f"A worker offers at most {CAPABILITIES_MAX} capabilities.", code="invalid_capability")
    found: dict[tuple[str, str, str], Capability] = {}
    for document in documents:
        capability = parse_capability(document)
        for name in ("input_schema", "output_schema"):
            problem = desk.schemas.check_schema(getattr(capability, name))
            if problem is not None:
                raise InvalidRequest(
                    f"The {name} of {capability.name} is not a JSON Schema: {problem.cause}",
                    code="invalid_capability",
                    field=name,
                    problems=[problem],
                )
        key = (capability.name, capability.version, str(capability.accelerator))
        if key in found:
            raise InvalidRequest(f"The capability {capability.name} is offered twice.", code="invalid_capability")
        found[key] = capability
    return tuple(found.values())


def _known(desk: Desk, hello: Hello, capabilities: tuple[Capability, ...]) -> KnownWorker:
    if not 1 <= hello.slots <= SLOTS_MAX:
        raise InvalidRequest(f"A worker has 1 to {SLOTS_MAX} slots.", code="invalid_worker", field="slots")
    if not is_uuid7(hello.instance_id):
        raise InvalidRequest("An instance id is a UUID version 7.", code="invalid_worker", field="instance_id")
    now_us = desk.clock.now_us()
    return KnownWorker(
        worker_id=WorkerId(parse_name(hello.worker_id, field="worker_id")),
        instance_id=InstanceId(hello.instance_id),
        node_id=parse_name(hello.node_id, field="node_id"),
        slots=hello.slots,
        capabilities=capabilities,
        enrolled_us=now_us,
        seen_us=now_us,
        signed=hello.manifest is not None,
    )


def _store(
    desk: Desk, tx: Transaction, worker: LiveWorker, hello: Hello, *, renews: bool
) -> tuple[KnownWorker, _Decided]:
    known = enrolled_as(desk, tx, worker.known, worker.peer)
    tx.registry.put_worker(known)
    kind = "worker.renewed" if renews else "worker.enrolled"
    facts: JsonObject = {
        "capabilities": [capability.name for capability in known.capabilities],
        "slots": known.slots,
        "node": known.node_id,
        "manifest": None if hello.manifest is None else hashlib.sha256(hello.manifest.encode()).hexdigest(),
    }
    tx.records.append(
        desk.record(kind, tenant=LOCAL_TENANT, subject=known.worker_id, job_id=None, facts=facts)
    )
    return known, _leases(desk, tx, known, hello.holding, renews=renews)


def _leases(desk: Desk, tx: Transaction, known: KnownWorker, holding: list[Holding], *, renews: bool) -> _Decided:
    held = {job.job_id: job for job in tx.jobs.held() if job.worker_id == known.worker_id}
    answers: list[tuple[Job | None, Resumed]] = []
    for entry in holding:
        job = held.get(JobId(entry.job_id))
        if job is None or job.epoch != entry.epoch:
            # A finished one may still be told: it is kept as superseded, or it is a repeat.
            if entry.phase == "finished":
                answers.append((None, Resumed(entry.job_id, entry.epoch, "continue", 1)))
            else:
                answers.append((None, Resumed(entry.job_id, entry.epoch, "abandon", 1)))
            continue
        del held[job.job_id]
        if entry.phase == "interrupted":
            settle_loss(desk, tx, job, Loss.CUT_OFF)
            answers.append((None, Resumed(entry.job_id, entry.epoch, "abandon", 1)))
        else:
            answers.append((job, Resumed(entry.job_id, entry.epoch, "continue", 1)))
    if renews:
        return _Decided(answers, list(held.values()))
    for job in held.values():
        # A worker notes a lease durably before it runs any code of it, so it never began this one.
        settle_loss(desk, tx, job, Loss.NEVER_BEGUN if job.status is Status.LEASED else Loss.CUT_OFF)
    return _Decided(answers, [])


async def _next_seq(desk: Desk, job_id: JobId, epoch: int) -> int:
    after, last = 0, 0
    while events := await desk.streams.read(job_id, after, 1000):
        for position, event in events:
            after = position
            if event.epoch == epoch:
                last = max(last, event.seq)
    return last + 1


async def _answer(
    desk: Desk, worker: LiveWorker, version: int, resumed: list[tuple[Job | None, Resumed]]
) -> None:
    entries = []
    for _, entry in resumed:
        lease = worker.leases.get(JobId(entry.job_id))
        entries.append(Resumed(entry.job_id, entry.epoch, entry.verdict, lease.next_seq if lease else 1))
    await worker.link.send(
        Welcome(version, desk.policy.controller_id, desk.policy.beat_sec, desk.policy.lease_sec, entries)
    )
    for job, entry in resumed:
        if job is not None and job.cancel_requested:
            await worker.link.send(Cancel(entry.job_id, entry.epoch))
    for job_id in {JobId(entry.job_id) for _, entry in resumed}:
        desk.watch.changed(LOCAL_TENANT, job_id)
