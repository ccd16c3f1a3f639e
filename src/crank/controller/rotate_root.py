"""Rotate the root: how the authority stands, and the operator's steps from one root to another.

Steps, marked again in the code:
 1. check that the asker is the owner
 2. find which connected workers have not acknowledged the bundle, and whether others may follow it
 3. check that the step may be taken
 4. record it: the authority's files change outside of the store, so the record comes first
 5. take the step; whoever waits for a new bundle is told by the authority
"""

import asyncio
from dataclasses import dataclass

from crank.controller.access import authorise
from crank.controller.desk import Desk
from crank.controller.tell_trust import unaware
from crank.domain.ids import LOCAL_TENANT
from crank.domain.job import Refusal
from crank.domain.json import JsonObject
from crank.domain.rules.access import Action
from crank.domain.rules.root_rotation import readers_left_sec, refusal
from crank.domain.trust import AuthorityStatus, RotationStep
from crank.errors import Conflict, Unavailable
from crank.ports import RootRotation


@dataclass(frozen=True, slots=True)
class Shown:
    """How the authority stands.

    unaware   workers, followers of its bundle and own listeners that do not have it yet
    followed  others may follow it who never say what they have
    """

    status: AuthorityStatus
    unaware: tuple[str, ...]
    followed: bool = False


async def show_authority(desk: Desk) -> Shown:
    """Return how the authority stands. Raises NotAllowed, Unavailable where this desk has none."""
    await authorise(desk, Action.READ_IDENTITIES)
    return await _look(desk, _roots_of(desk))


async def rotate_root(desk: Desk, step: RotationStep, *, force: bool, subject: str) -> Shown:
    """Take a step of the change to another root; return how it stands then.

    Raises NotAllowed, Conflict (`rotation_phase`, `bundle_not_acknowledged`, `root_too_new`, `leaves_alive`), Unavailable.
    """
    await authorise(desk, Action.ROTATE_ROOT)  # 1
    roots = _roots_of(desk)
    async with desk.root_gate:
        before = await _look(desk, roots)  # 2
        refused = _refusal(desk, before, step, force=force)  # 3
        if refused is not None:
            raise Conflict(refused.message, code=refused.code, field=refused.constraint, fix=refused.fix)
        await _record(desk, step, before, force=force, subject=subject)  # 4
        await asyncio.to_thread(
            roots.turn_root, step, unaware=before.unaware, followed=before.followed, force=force
        )  # 5
        return await _look(desk, roots)


def _refusal(desk: Desk, before: Shown, step: RotationStep, *, force: bool) -> Refusal | None:
    hint_sec = desk.trust.authority.bundle().refresh_hint_sec if before.followed and desk.trust is not None else None
    rotation, now_us = before.status.rotation, desk.clock.now_us()
    return refusal(rotation, step, now_us=now_us, unaware=before.unaware, hint_sec=hint_sec, force=force)


async def _look(desk: Desk, roots: RootRotation) -> Shown:
    status = await asyncio.to_thread(roots.status)
    late: list[str] = [*unaware(desk, status.sequence, followers=_waits_for_readers(desk, status))]
    if desk.sight.sequence is not None and desk.sight.sequence < status.sequence:
        late.append(desk.policy.controller_id)
    signs = status.rotation.current
    born_us = min(one.not_before_us for one in status.certificates if (one.tier, one.mark) == ("root", signs))
    followed = desk.trust is not None and desk.trust.bundles.may_be_followed(born_us)
    return Shown(status, tuple(late), followed)


def _waits_for_readers(desk: Desk, status: AuthorityStatus) -> bool:
    """Tell whether who reads the bundle may still be behind: no reader, however it is called, holds a change up for ever."""
    if desk.trust is None or status.rotation.prepared_us is None:
        return True
    hint_sec = desk.trust.authority.bundle().refresh_hint_sec
    return readers_left_sec(status.rotation, hint_sec=hint_sec, now_us=desk.clock.now_us()) > 0


async def _record(desk: Desk, step: RotationStep, before: Shown, *, force: bool, subject: str) -> None:
    facts: JsonObject = {
        "step": str(step),
        "signs": before.status.rotation.current,
        "sequence": before.status.sequence,
        "force": force,
        "unaware": list(before.unaware[:100]),
        "followed": before.followed,
    }
    record = desk.record("root.rotation", tenant=LOCAL_TENANT, subject=subject, job_id=None, facts=facts)
    await desk.store.transact(lambda tx: tx.records.append(record))


def _roots_of(desk: Desk) -> RootRotation:
    if desk.roots is None:
        raise Unavailable("This node has no authority of its own.", code="no_authority")
    return desk.roots
