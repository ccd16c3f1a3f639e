"""Spend: what a request uses of the grant that it was made with, counted in the transaction that accepts it.

Each grant from the first to the one at hand must cover the call and have some left of its count: many small tokens
made from one never allow more than that one does. A key counts nothing: its rights are looked at alone, and never change.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from crank.controller.constraints import satisfies_by
from crank.controller.desk import Desk
from crank.controller.present import over
from crank.domain.grant import Grant
from crank.domain.ids import MountId, TenantId
from crank.domain.job import Mount, MountUse, Refusal
from crank.domain.json import JsonObject
from crank.domain.rules import grant as rules
from crank.domain.rules.grant import Call
from crank.errors import NotAllowed
from crank.ports import Transaction

T = TypeVar("T")


def named(tx: Transaction, tenant: TenantId, uses: Iterable[MountUse]) -> tuple[tuple[MountId, str | None], ...]:
    """Return mounts with the names that they have on the node, as `Call` wants them."""
    wanted = [use.mount_id for use in uses]
    names = {mount.mount_id: mount.name for mount in tx.registry.mounts(tenant)} if wanted else {}
    return tuple((mount_id, names.get(mount_id)) for mount_id in wanted)


def mounts_of(mounts: Iterable[Mount]) -> tuple[tuple[MountId, str | None], ...]:
    """Return mounts that were looked up, as `Call` wants them."""
    return tuple((mount.mount_id, mount.name) for mount in mounts)


def may_call(desk: Desk, capability: str) -> bool:
    """Tell whether the token or key behind a request names a capability, whatever else it asks of a call."""
    rights = None if desk.asker is None else desk.asker.rights
    return rights is None or rules.reaches(rights, capability)


@dataclass(frozen=True, slots=True)
class Checked:
    """A call that was let pass, and what was found out of its args meanwhile."""

    call: Call
    satisfies: rules.Satisfies


async def check_granted(desk: Desk, call: Call) -> Checked:
    """Let a call pass that the rights of the token or key cover. Raises NotAllowed, and leaves a record of it.

    A holder writes its constraints itself: what they cost is spent in a thread of its own, not in the loop and not in
    the one that writes.
    """
    satisfies = satisfies_by(desk.schemas, desk.clock)
    rights = None if desk.asker is None else desk.asker.rights
    if rights is None:
        return Checked(call, satisfies)
    held, grant = [rights], desk.grant
    if grant is not None and grant.parent is not None:
        chain = await desk.store.read(lambda tx: tx.grants.chain(grant.tenant, grant.grant_id))
        held += [above.rights for above in chain]
    now_us = desk.clock.now_us()

    def look() -> list[tuple[int, ...] | Refusal]:
        return [rules.covering(each, call, satisfies, now_us=now_us) for each in held]

    is_costly = not call.has_code and any(right.constraints for each in held for right in each)
    for covering in await asyncio.to_thread(look) if is_costly else look():
        if isinstance(covering, Refusal):
            await note_refusal(desk, covering.code, call.capability)
            raise _not_allowed(covering)
    return Checked(call, satisfies)


async def accept(desk: Desk, capability: str, work: Callable[[Transaction], T]) -> T:
    """Run the transaction that accepts something; where the grant is spent, leave a record beside it."""
    try:
        return await desk.store.transact(work)
    except NotAllowed as fault:
        await note_refusal(desk, fault.error_code, capability)
        raise


async def look_up(desk: Desk, capability: str, work: Callable[[Transaction], T]) -> T:
    """Find what a request names; where that is not its caller's, leave a record of it."""
    try:
        return await desk.store.read(work)
    except NotAllowed as fault:
        # Everything is the owner's: what is not found was mistyped.
        if desk.asker is not None and desk.asker.bounded:
            await note_refusal(desk, fault.error_code, capability)
        raise


async def note_refusal(desk: Desk, code: str, capability: str) -> None:
    """Record that somebody asked for what their credential does not allow; a flood of it in aggregate."""
    asker = desk.asker
    if asker is None:
        return
    action = f"{code} {capability}"
    count = desk.keyring.refusals_to_record(asker.credential_id, action, desk.clock.monotonic_sec())
    if count:
        facts: JsonObject = {"action": code, "capability": capability, "key": asker.credential_id, "count": count}
        record = desk.record("access.refused", tenant=asker.tenant, subject=asker.subject, job_id=None, facts=facts)
        await desk.store.transact(lambda tx: tx.records.append(record))


def spend(desk: Desk, tx: Transaction, checked: Checked, *, used_for: str, cost: int = 0) -> None:
    """Count a call on the grant at hand and on each above it, and keep what it was for.

    used_for  the id of the job or session
    Raises NotAllowed (also `calls_spent`, `budget_spent`), NotAuthenticated once one of them has ended.
    """
    if desk.grant is None:
        # What rights a key has it was made with, so what was checked before holds here too.
        return
    now_us = desk.clock.now_us()
    for grant in tx.grants.chain(desk.grant.tenant, desk.grant.grant_id):
        if not rules.lives(grant, now_us):
            raise over()
        _take(tx, grant, checked, cost, now_us)
    tx.grants.note(desk.grant.tenant, used_for, desk.grant.grant_id)


def belong(desk: Desk, tx: Transaction, *, used_for: str) -> None:
    """Keep what a call was for without counting it: it was counted already."""
    if desk.grant is not None:
        tx.grants.note(desk.grant.tenant, used_for, desk.grant.grant_id)


def _take(tx: Transaction, grant: Grant, checked: Checked, cost: int, now_us: int) -> None:
    places = rules.covering(grant.rights, checked.call, checked.satisfies, now_us=now_us)
    if isinstance(places, Refusal):
        raise _not_allowed(places)
    spent: Refusal | None = None
    for place in places:
        right = grant.rights[place]
        if right.calls_max is None and right.budget_max is None:
            return
        spent = rules.spent(right, *tx.grants.count(grant.tenant, grant.grant_id, place), cost)
        if spent is None:
            tx.grants.add(grant.tenant, grant.grant_id, place, cost)
            return
    assert spent is not None, "a call is covered by one right at least"
    raise _not_allowed(spent)


def _not_allowed(refused: Refusal) -> NotAllowed:
    return NotAllowed(refused.message, code=refused.code, field=refused.constraint, fix=refused.fix)
