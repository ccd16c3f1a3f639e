"""Open a session: place it on a worker for its whole life, and wait until its sandbox stands.

Steps, marked again in the code:
 1. read the request; its clocks lie under the operator's ceilings
 2. resolve its mounts on this node
 3. find the connected workers that could keep it, the least burdened first
 4. in one transaction: check the node's bound and the key's share, store the session
 5. ask the worker, and wait for its word
A worker that is full hands it back, and the next one is asked; so it is where the key has its share already.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace

from crank.controller.desk import Desk
from crank.controller.end_session import close_session, end_session, find_session, tell
from crank.controller.hand_over import resolve_mounts
from crank.controller.roster import LiveWorker
from crank.controller.spend import Checked, accept, belong, check_granted, look_up, mounts_of, spend
from crank.domain.capability import Capability, Effects
from crank.domain.ids import SessionId, TenantId
from crank.domain.job import JobRequest, Mount, MountUse, Refusal
from crank.domain.json import JsonObject
from crank.domain.rules import placement
from crank.domain.rules import session as rules
from crank.domain.rules.grant import Call
from crank.domain.rules.session_request import ClocksWanted, SessionDraft, parse_clocks, parse_session_request
from crank.domain.session import Session, SessionEnd, SessionReason, SessionRequest, SessionState
from crank.errors import Conflict, InvalidRequest, NotSupported, Unavailable
from crank.ports import Transaction
from crank.wire import LeaseMount, Open, Touch

# Longer than a worker takes to build any sandbox; then the session is given as it stands.
OPEN_SEC = 30.0
# A worker that answers so is merely full.
_TRY_ELSEWHERE = frozenset({"sessions_full", "draining"})
_LOOK_AGAIN_SEC = 1.0
_SHARE_TAKEN = "key_share_taken"


async def open_session(desk: Desk, *, tenant: TenantId, subject: str, fields: JsonObject) -> Session:
    """Open a session and return it, as a rule with its sandbox standing.

    Raises InvalidRequest (also `unsatisfied-capability`, `limit_out_of_range`), NotAllowed, Unavailable
    (`sessions_full`, `key_share_taken`, and the code of a sandbox that could not be built).
    """
    draft = parse_session_request(fields)  # 1
    _check_clocks(desk, ClocksWanted(draft.idle_sec, draft.lifetime_sec))
    mounts = await look_up(desk, draft.capability, lambda tx: resolve_mounts(tx, tenant, draft.mounts))  # 2
    call = Call(draft.capability, draft.version, None, mounts_of(mounts.values()), has_code=True)
    checked = await check_granted(desk, call)
    candidates = await _candidates(desk, draft, mounts)  # 3
    counted = False
    full: Session | None = None
    taken: Unavailable | None = None
    for worker, capability in candidates:
        session = _session(desk, tenant, draft, (worker, capability), mounts)
        try:
            await _store(desk, worker, session, subject, None if counted else checked)  # 4
        except Unavailable as fault:
            if fault.error_code != _SHARE_TAKEN:
                raise
            taken = fault
            continue
        counted = True
        opened = await _ask(desk, worker, session, mounts)  # 5
        if not opened.ended:
            return opened
        if opened.end is None or opened.end.code not in _TRY_ELSEWHERE:
            raise _not_opened(opened)
        full = opened
    raise taken if full is None and taken is not None else _not_opened(full)


def _check_clocks(desk: Desk, wanted: ClocksWanted) -> None:
    policy = desk.policy
    refused = rules.clocks_refusal(
        wanted.idle_sec,
        wanted.lifetime_sec,
        idle_sec_max=policy.session_idle_sec_max,
        lifetime_sec_max=policy.session_lifetime_sec_max,
    )
    if refused is not None:
        raise InvalidRequest(refused.message, code=refused.code, field=refused.constraint, fix=refused.fix)


async def _candidates(desk: Desk, draft: SessionDraft, mounts: dict[str, Mount]) -> list[tuple[LiveWorker, Capability]]:
    nodes = frozenset(mount.node_id for mount in mounts.values())
    ready = [
        worker
        for worker in desk.roster.live()
        if worker.knows_sessions and worker.sessions is not None and not worker.draining
    ]
    offers = [offer for worker in ready for offer in placement.offers_of(worker.known, 1)]
    able = placement.satisfiers(_as_job(draft), offers, nodes, floor=desk.policy.attestation_min)
    if isinstance(able, Refusal):
        raise InvalidRequest(able.message, code=able.code, field=able.constraint, fix=able.fix)
    if not able[0].capability.takes_code:
        raise InvalidRequest(
            f"{draft.capability} is a function; a session runs scripts.", code="invalid_field", field="capability"
        )
    # A worker that offers two versions is asked once, for the better one.
    ranked = sorted(able, key=lambda offer: (_burden(desk, offer), placement.rank(offer)))
    best: dict[str, tuple[LiveWorker, Capability]] = {}
    for offer in ranked:
        worker = desk.roster.find(offer.worker_id)
        if worker is not None:
            best.setdefault(offer.worker_id, (worker, offer.capability))
    return list(best.values())


def _burden(desk: Desk, offer: placement.Offer) -> tuple[str, int]:
    worker = desk.roster.find(offer.worker_id)
    return str(offer.capability.accelerator), len(worker.sessions or ()) if worker else 0


def _as_job(draft: SessionDraft) -> JobRequest:
    return JobRequest(
        capability=draft.capability,
        version=draft.version,
        env_profile=draft.env_profile,
        accelerator=draft.accelerator,
        gpu_model=draft.gpu_model,
        timeout_sec=None,
        max_output_bytes=None,
        memory_bytes=draft.memory_bytes,
        code="",
        args=None,
        files=(),
        mounts=(),
        effects=Effects.EXTERNAL,
        route="local",
        traceparent=None,
        attestation=draft.attestation,
    )


def _session(
    desk: Desk,
    tenant: TenantId,
    draft: SessionDraft,
    placed: tuple[LiveWorker, Capability],
    mounts: dict[str, Mount],
) -> Session:
    worker, capability = placed
    now_us = desk.clock.now_us()
    request = SessionRequest(
        capability=draft.capability,
        version=draft.version,
        env_profile=capability.env_profile,
        accelerator=capability.accelerator,
        gpu_model=capability.gpu_model,
        memory_bytes=draft.memory_bytes,
        idle_sec=draft.idle_sec or min(desk.policy.session_idle_sec, desk.policy.session_idle_sec_max),
        lifetime_sec=draft.lifetime_sec or min(desk.policy.session_lifetime_sec, desk.policy.session_lifetime_sec_max),
        mounts=tuple(MountUse(name, mount.mount_id) for name, mount in mounts.items()),
        name=draft.name,
        attestation=draft.attestation,
    )
    return Session(
        session_id=SessionId(desk.ids.uuid7()),
        tenant=tenant,
        request=request,
        state=SessionState.OPENING,
        worker_id=worker.known.worker_id,
        instance_id=worker.known.instance_id,
        created_us=now_us,
        used_us=now_us,
    )


async def _store(desk: Desk, worker: LiveWorker, session: Session, subject: str, checked: Checked | None) -> None:
    def commit(tx: Transaction) -> None:
        _admit(desk, tx, worker, session, subject)
        # A session that one worker handed back is counted once, wherever it stands in the end.
        if checked is not None:
            spend(desk, tx, checked, used_for=session.session_id)
        else:
            belong(desk, tx, used_for=session.session_id)

    await accept(desk, session.request.capability, commit)


def _admit(desk: Desk, tx: Transaction, worker: LiveWorker, session: Session, subject: str) -> None:
    live = tx.sessions.live()
    if len(live) >= desk.policy.sessions_max:
        raise Unavailable(
            f"{desk.policy.sessions_max} sessions are open already.",
            code="sessions_full",
            fix="Close one that is not needed: GET /v1/sessions lists them.",
            retry_after_sec=10,
        )
    _check_share(desk, worker, session, live)
    tx.sessions.insert(session)
    facts = {"session": session.session_id, "capability": session.request.capability, "worker": session.worker_id}
    tx.records.append(desk.record("session.asked", tenant=session.tenant, subject=subject, job_id=None, facts=facts))


def _check_share(desk: Desk, worker: LiveWorker, session: Session, live: Sequence[Session]) -> None:
    """Leave room for other keys: on each worker, and on the node as a whole. The owner takes what there is."""
    if desk.asker is None or not desk.asker.bounded:
        return
    own = [each for each in live if each.owner == desk.asker.credential_id]
    here = [each for each in own if each.worker_id == session.worker_id]
    memory_bytes = sum(_memory_bytes(worker, each.request) for each in (*here, session))
    policy = desk.policy
    fits = rules.is_within_share(
        len(here),
        policy.worker_sessions_max,
        wanted_bytes=memory_bytes,
        bytes_max=policy.worker_sessions_bytes_max,
    )
    if fits and rules.is_within_share(len(own), policy.sessions_max):
        return
    raise Unavailable(
        f"This key has {len(own)} sessions open, which is its share of the sessions that this node keeps, or of their memory.",
        code="key_share_taken",
        fix="Close one that is not needed; the node's owner makes room with CRANK_WORKER_SESSIONS and CRANK_WORKER_SESSIONS_BYTES.",
        retry_after_sec=10,
    )


def _memory_bytes(worker: LiveWorker, request: SessionRequest) -> int:
    """Return what the limit of a session's memory is: what was asked, or what its capability gives."""
    given = [
        int(known.limits.get("memory_bytes", 0))
        for known in worker.known.capabilities
        if (known.name, known.accelerator) == (request.capability, request.accelerator)
    ]
    ceiling = max(given, default=0)
    return ceiling if request.memory_bytes is None else min(request.memory_bytes, ceiling or request.memory_bytes)


async def _ask(desk: Desk, worker: LiveWorker, session: Session, mounts: dict[str, Mount]) -> Session:
    request = session.request
    message = Open(
        session_id=session.session_id,
        capability=request.capability,
        accelerator=str(request.accelerator),
        mounts=[LeaseMount(name, mount.host_path) for name, mount in mounts.items()],
        memory_bytes=request.memory_bytes,
        idle_sec=request.idle_sec,
        lifetime_sec=request.lifetime_sec,
    )
    with desk.watch.on(session.tenant, session.session_id) as changed:
        worker = worker.latest
        worker.asked.add(session.session_id)
        if not await tell(worker, message):
            lost = SessionEnd(SessionReason.WORKER_LOST, "worker_gone", "Its worker left before it could be opened.")
            return await end_session(desk, session, lost, subject=desk.policy.controller_id)
        try:
            async with asyncio.timeout(OPEN_SEC):
                return await _standing(desk, session, changed)
        except TimeoutError:
            return await find_session(desk, tenant=session.tenant, session_id=session.session_id)
        except asyncio.CancelledError:
            # Who asked went away and will never learn its id, so nobody could close it.
            await asyncio.shield(
                close_session(
                    desk, tenant=session.tenant, subject=desk.policy.controller_id, session_id=session.session_id
                )
            )
            raise


async def _standing(desk: Desk, session: Session, changed: asyncio.Event) -> Session:
    while True:
        changed.clear()
        current = await find_session(desk, tenant=session.tenant, session_id=session.session_id)
        if current.state is not SessionState.OPENING:
            return current
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_AGAIN_SEC):
                await changed.wait()


def _not_opened(session: Session | None) -> InvalidRequest | Unavailable:
    end = session.end if session is not None else None
    if end is None:
        return Unavailable("No worker keeps sessions now.", code="sessions_full")
    if end.code == "not_supported":
        return NotSupported(end.sentence, field="session")
    return Unavailable(f"The session could not be opened: {end.sentence}", code=end.code, retry_after_sec=10)


async def touch_session(desk: Desk, *, tenant: TenantId, session_id: SessionId, fields: JsonObject) -> Session:
    """Begin a session's idle clock anew, and set the clocks that are named.

    Raises NotFound, Conflict (`session_ended`), InvalidRequest (`limit_out_of_range`), Unavailable.
    """
    wanted = parse_clocks(fields)
    _check_clocks(desk, wanted)
    session = await find_session(desk, tenant=tenant, session_id=session_id)
    refused = rules.refusal(session)
    if refused is not None:
        raise Conflict(refused.message, code=refused.code, field=refused.constraint, fix=refused.fix)
    if not await tell(desk.roster.find(session.worker_id), Touch(session_id, wanted.idle_sec, wanted.lifetime_sec)):
        raise Unavailable("The session's worker is not connected now.", code="worker_gone")

    def commit(tx: Transaction) -> Session:
        current = tx.sessions.find(tenant, session_id) or session
        if current.ended:
            return current
        request = replace(
            current.request,
            idle_sec=wanted.idle_sec or current.request.idle_sec,
            lifetime_sec=wanted.lifetime_sec or current.request.lifetime_sec,
        )
        touched = replace(rules.used(current, desk.clock.now_us()), request=request)
        tx.sessions.update(touched)
        return touched

    return await desk.store.transact(commit)
