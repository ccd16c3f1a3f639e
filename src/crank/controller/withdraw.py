"""Withdraw: when a key is revoked, or denied a mount, what it has under way ends too. Its results stay the owner's."""

from crank.controller.cancel import cancel
from crank.controller.desk import Desk
from crank.controller.end_session import close_session
from crank.domain.credential import Credential
from crank.domain.ids import JobId, MountId, SessionId
from crank.domain.job import MountUse
from crank.ports import Transaction


async def withdraw(desk: Desk, credential: Credential, *, subject: str, mount_id: MountId | None = None) -> None:
    """Close the key's sessions and cancel its running jobs; jobs that wait are refused by the dispatcher.

    mount_id  only those that hold this mount
    """

    def concerned(mounts: tuple[MountUse, ...]) -> bool:
        return mount_id is None or any(use.mount_id == mount_id for use in mounts)

    def look(tx: Transaction) -> tuple[list[SessionId], list[JobId]]:
        own = credential.credential_id
        live = [one for one in tx.sessions.live() if one.owner == own and concerned(one.request.mounts)]
        held = [one for one in tx.jobs.held() if one.owner == own and concerned(one.request.mounts)]
        return [one.session_id for one in live], [one.job_id for one in held]

    sessions, jobs = await desk.store.read(look)
    for session_id in sessions:
        await close_session(desk, tenant=credential.tenant, subject=subject, session_id=session_id)
    for job_id in jobs:
        await cancel(desk, tenant=credential.tenant, subject=subject, job_id=job_id)
    desk.watch.work.set()
