"""Identities: the owner lists what was issued, takes one back, or lifts that.

A SPIFFE ID that is revoked gets no certificate until it is allowed again, and the tokens that act for it or by it end
with what runs under them; a serial alone is one certificate. Both hold from the moment that the answer is given: links
are closed, leases decided, every other worker told.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from crank.controller.access import authorise
from crank.controller.cut_off import cut_off_all
from crank.controller.desk import Desk
from crank.controller.scope import node_desk
from crank.controller.standing import read_standing
from crank.controller.tell_trust import tell_all
from crank.controller.withdraw import withdraw_grants
from crank.domain.grant import GrantId
from crank.domain.identity import SpiffeId, parse_spiffe_id
from crank.domain.ids import LOCAL_TENANT, TenantId
from crank.domain.issued import Ban, IssuedIdentity
from crank.domain.json import JsonObject
from crank.domain.rules.access import Action
from crank.domain.workload import EntryId
from crank.errors import Conflict, InvalidRequest, NotFound, TooLarge
from crank.ports import Transaction

PAGE_MAX = 1000
BANS_MAX = 1000
# Of certificates that were revoked alone and have not expired.
REVOKED_MAX = 10_000
REASON_CHARS_MAX = 200
_SERIAL = re.compile(r"[0-9a-f]{1,40}")


@dataclass(frozen=True, slots=True)
class Identities:
    """What was issued, newest first, and the SPIFFE IDs that are revoked as a whole."""

    issued: Sequence[IssuedIdentity]
    bans: Sequence[Ban]


async def load_standing(desk: Desk) -> None:
    """Learn what is revoked, before the first peer is let in and after every change."""
    now_us = desk.clock.now_us()
    desk.standing.load(*await desk.store.read(lambda tx: read_standing(tx, now_us)))
    # Workloads of this machine hear it at their socket.
    desk.workloads.ring()


async def list_identities(desk: Desk, *, limit: int) -> Identities:
    """Return the certificates that have not expired, newest first, and all bans. Raises NotAllowed."""
    await authorise(desk, Action.READ_IDENTITIES)
    now_us = desk.clock.now_us()
    return await desk.store.read(
        lambda tx: Identities(tx.identities.page(limit=min(limit, PAGE_MAX), valid_at_us=now_us), tx.identities.bans())
    )


async def revoke_identity(desk: Desk, named: str, *, reason: str, subject: str) -> Identities:
    """Revoke a SPIFFE ID with all its certificates, or one certificate by its serial; again changes nothing.

    Returns what is revoked by it. Raises NotAllowed, InvalidRequest, NotFound (a serial), TooLarge,
    Conflict (`own_identity`: the controller's own is rotated, not revoked).
    """
    await authorise(desk, Action.CHANGE_IDENTITIES)
    reason = _reason(reason)
    spiffe_id = _spiffe_id(desk, named) if named.startswith("spiffe://") else None
    if spiffe_id is not None:
        revoked = await desk.store.transact(lambda tx: ban_in(desk, tx, spiffe_id, reason, subject))
    else:
        revoked = await desk.store.transact(lambda tx: _revoke_one(desk, tx, named, reason, subject))
    await heed_revocation(desk, [] if spiffe_id is None else [spiffe_id], subject=subject)
    return revoked


async def heed_revocation(desk: Desk, banned: Sequence[SpiffeId], *, subject: str) -> None:
    """Do what follows from a revocation that is in the store, whoever did it."""
    # Whoever revokes may not see all that ends with it.
    whole = node_desk(desk)
    whole.failpoints.reach("revoke_identity.committed")
    await load_standing(whole)
    for spiffe_id in banned:
        await _end_grants(whole, spiffe_id, subject=subject)
    await cut_off_all(whole)
    await tell_all(whole)


async def _end_grants(desk: Desk, spiffe_id: SpiffeId, *, subject: str) -> None:
    """End what it was granted and what was made of that; nothing more is from here on, because it is known as revoked."""
    now_us = desk.clock.now_us()

    def commit(tx: Transaction) -> dict[GrantId, TenantId]:
        held = tx.grants.of_party(str(spiffe_id), alive_at_us=now_us)
        ended = {below: one.tenant for one in held for below in tx.grants.revoke(one.tenant, one.grant_id, now_us)}
        for one in held:
            facts: JsonObject = {"grant": one.grant_id, "spiffe_id": str(spiffe_id)}
            record = desk.record("token.revoked", tenant=one.tenant, subject=subject, job_id=None, facts=facts)
            tx.records.append(record)
        return ended

    ended = await desk.store.transact(commit)
    # What the gates remember of tokens is void.
    desk.keyring.changed()
    for tenant in set(ended.values()):
        grants = frozenset(name for name, owner in ended.items() if owner == tenant)
        await withdraw_grants(desk, grants, tenant=tenant, subject=subject)


async def allow_identity(desk: Desk, named: str, *, subject: str) -> SpiffeId:
    """Let a SPIFFE ID get certificates again; those that were revoked stay so. Raises NotAllowed, NotFound."""
    await authorise(desk, Action.CHANGE_IDENTITIES)
    spiffe_id = _spiffe_id(desk, named)

    def commit(tx: Transaction) -> None:
        if not tx.identities.lift(spiffe_id):
            raise NotFound(
                f"{spiffe_id} is not revoked.", code="identity_not_found", field="identity",
                fix="'crank identity list' shows what is.",
            )  # fmt: skip
        _record(desk, tx, "identity.allowed", subject, {"spiffe_id": str(spiffe_id)})

    await desk.store.transact(commit)
    await load_standing(desk)
    await tell_all(desk)
    return spiffe_id


def _reason(text: str) -> str:
    if len(text) > REASON_CHARS_MAX or not text.isprintable():
        raise InvalidRequest(
            f"A reason is at most {REASON_CHARS_MAX} printable characters.", code="invalid_reason", field="reason"
        )
    return text


def _spiffe_id(desk: Desk, named: str) -> SpiffeId:
    spiffe_id = parse_spiffe_id(named)
    if spiffe_id.trust_domain != desk.policy.trust_domain:
        raise InvalidRequest(
            f"{spiffe_id} is not of this trust domain, which is {desk.policy.trust_domain}.",
            code="foreign_identity",
            field="identity",
            fix="Ask the authority of that trust domain to revoke it.",
        )
    if str(spiffe_id) == desk.policy.controller_id:
        raise own_identity()
    return spiffe_id


def own_identity() -> Conflict:
    """Return the refusal to revoke the controller itself."""
    return Conflict(
        "This is the controller's own identity; without it nothing could be told to anybody.",
        code="own_identity",
        field="identity",
        fix="If its key was stolen, change the authority: crank identity rotate.",
    )


def ban_in(desk: Desk, tx: Transaction, spiffe_id: SpiffeId, reason: str, subject: str) -> Identities:
    """Revoke a SPIFFE ID with all its certificates, inside a transaction; `heed_revocation` follows. Raises TooLarge."""
    now_us = desk.clock.now_us()
    if not tx.identities.is_banned(spiffe_id):
        if len(tx.identities.bans()) >= BANS_MAX:
            raise TooLarge(f"{BANS_MAX} identities are revoked already.", code="too_many_bans", fix="Lift some.")
        tx.identities.ban(Ban(spiffe_id, now_us, reason))
        _record(desk, tx, "identity.revoked", subject, {"spiffe_id": str(spiffe_id), "reason": reason})
    for identity in tx.identities.of(spiffe_id, valid_at_us=now_us):
        tx.identities.revoke(identity.serial, now_us, reason)
    bans = [ban for ban in tx.identities.bans() if ban.spiffe_id == spiffe_id]
    return Identities(tx.identities.of(spiffe_id, valid_at_us=now_us), bans)


def _revoke_one(desk: Desk, tx: Transaction, named: str, reason: str, subject: str) -> Identities:
    serial = named.lower()
    found = tx.identities.find(serial) if _SERIAL.fullmatch(serial) else None
    if found is None:
        raise NotFound(
            f"There is no certificate {named[:80]!r}.", code="identity_not_found", field="identity",
            fix="Name a SPIFFE ID or a serial; 'crank identity list' shows them.",
        )  # fmt: skip
    if str(found.spiffe_id) == desk.policy.controller_id:
        raise own_identity()
    _take_back(desk, tx, found, reason, subject)
    revoked = tx.identities.find(serial)
    return Identities([revoked] if revoked is not None else [], [])


def revoke_workload_in(desk: Desk, tx: Transaction, entry_id: EntryId, subject: str) -> bool:
    """Revoke the certificates of an entry, inside a transaction; tell whether `heed_revocation` is to follow.

    Its SPIFFE ID is free: another entry may have it, now or later. A list that is full keeps nothing from being taken
    away: an entry has few certificates that live.
    """
    issued = tx.identities.of_workload(entry_id, valid_at_us=desk.clock.now_us())
    for identity in issued:
        _take_back(desk, tx, identity, "its workload was removed", subject, bounded=False)
    return bool(issued)


def _take_back(
    desk: Desk, tx: Transaction, identity: IssuedIdentity, reason: str, subject: str, *, bounded: bool = True
) -> None:
    now_us = desk.clock.now_us()
    if identity.revoked_us is not None:
        return
    if bounded and len(tx.identities.revoked(valid_at_us=now_us)) >= REVOKED_MAX:
        raise TooLarge(
            f"{REVOKED_MAX} certificates are revoked already.",
            code="too_many_revoked",
            fix="Wait until some have expired, or revoke the whole identity: crank identity revoke spiffe://…",
        )
    tx.identities.revoke(identity.serial, now_us, reason)
    facts: JsonObject = {"spiffe_id": str(identity.spiffe_id), "serial": identity.serial, "reason": reason}
    _record(desk, tx, "identity.revoked", subject, facts)


def _record(desk: Desk, tx: Transaction, kind: str, subject: str, facts: JsonObject) -> None:
    tx.records.append(desk.record(kind, tenant=LOCAL_TENANT, subject=subject, job_id=None, facts=facts))
