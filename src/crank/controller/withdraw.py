"""Withdraw: when a key or a token is revoked, or denied a mount, what it has under way ends too.

Its results stay the owner's.
"""

from collections.abc import Callable, Collection

from crank.controller.cancel import cancel
from crank.controller.desk import Desk
from crank.controller.end_session import close_session
from crank.controller.scope import node_desk
from crank.domain.credential import Credential
from crank.domain.grant import GrantId
from crank.domain.ids import JobId, MountId, SessionId, TenantId
from crank.domain.job import Job, MountUse
from crank.domain.session import Session
from crank.ports import Transaction


async def withdraw(desk: Desk, credential: Credential, *, subject: str, mount_id: MountId | None = None) -> None:
    """Close the sessions of a key and its tokens and cancel their running jobs; those that wait are refused by the dispatcher.

    mount_id  only those that hold this mount
    """

    def concerned(mounts: tuple[MountUse, ...]) -> bool:
        return mount_id is None or any(use.mount_id == mount_id for use in mounts)

    def look(tx: Transaction) -> tuple[list[SessionId], list[JobId]]:
        own = {credential.credential_id, *tx.grants.spaces(credential.tenant, credential.credential_id)}
        return _found(tx, lambda one: one.owner in own and concerned(one.request.mounts))

    await _end(desk, look, tenant=credential.tenant, subject=subject)


async def withdraw_grants(desk: Desk, grants: Collection[GrantId], *, tenant: TenantId, subject: str) -> None:
    """Close the sessions that were opened under these grants, and cancel their running jobs, as `withdraw` does."""

    def noted(tx: Transaction, used_for: str) -> bool:
        return tx.grants.noted(tenant, used_for) in grants

    def look(tx: Transaction) -> tuple[list[SessionId], list[JobId]]:
        def concerned(one: Job | Session) -> bool:
            return one.owner is not None and noted(tx, one.job_id if isinstance(one, Job) else one.session_id)

        return _found(tx, concerned)

    await _end(desk, look, tenant=tenant, subject=subject)


def _found(tx: Transaction, wanted: Callable[[Job | Session], bool]) -> tuple[list[SessionId], list[JobId]]:
    live = [one.session_id for one in tx.sessions.live() if wanted(one)]
    return live, [one.job_id for one in tx.jobs.held() if wanted(one)]


async def _end(
    desk: Desk,
    look: Callable[[Transaction], tuple[list[SessionId], list[JobId]]],
    *,
    tenant: TenantId,
    subject: str,
) -> None:
    # Whoever revokes may not see all that ends with it.
    whole = node_desk(desk)
    sessions, jobs = await whole.store.read(look)
    for session_id in sessions:
        await close_session(whole, tenant=tenant, subject=subject, session_id=session_id)
    for job_id in jobs:
        await cancel(whole, tenant=tenant, subject=subject, job_id=job_id)
    desk.watch.work.set()
