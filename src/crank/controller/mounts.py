"""Mounts: the folders of this node that jobs may read. Only the node's owner adds one."""

import asyncio
import os
from pathlib import Path

from crank.controller.access import authorise
from crank.controller.desk import Desk
from crank.domain.ids import LOCAL_TENANT, MountId, TenantId, make_mount_id, parse_name
from crank.domain.job import Mount
from crank.domain.rules.access import Action
from crank.errors import Conflict, CrankError, InvalidRequest, NotAllowed, NotFound
from crank.ports import Transaction

PATH_BYTES_MAX = 4096


async def add(desk: Desk, *, tenant: TenantId, subject: str, path: str, name: str | None) -> Mount:
    """Make a folder usable as a mount, under an id made from its path; adding it again changes nothing.

    Raises InvalidRequest (not an existing folder), NotAllowed (not the owner; Crank's own state), Conflict (name taken),
    Unavailable (it could not be registered).
    """
    await authorise(desk, Action.CHANGE_MOUNTS)
    if name is not None:
        parse_name(name, field="name")
    real = await asyncio.to_thread(_resolve, path)
    _check_private(desk, real)
    mount = Mount(
        mount_id=make_mount_id(desk.policy.node_id, str(real)),
        tenant=tenant,
        node_id=desk.policy.node_id,
        name=name,
        host_path=str(real),
        created_us=desk.clock.now_us(),
    )
    async with desk.mounts_gate:
        # First the register: once the store has the mount, a job with it can be leased at any moment.
        await _register(desk, mount.host_path)
        try:
            return await desk.store.transact(lambda tx: _put(desk, tx, mount, subject))
        except CrankError:
            await _register(desk)
            raise


async def register_all(desk: Desk) -> None:
    """Write the register anew from the store, as a controller does at its start. Raises Unavailable."""
    async with desk.mounts_gate:
        await _register(desk)


async def _register(desk: Desk, *coming: str) -> None:
    """Let the launcher's register say what the store says, and what is about to be there."""
    if desk.mount_register is None:
        return
    known = await desk.store.read(lambda tx: list(tx.registry.mounts(LOCAL_TENANT)))
    here = [mount.host_path for mount in known if mount.node_id == desk.policy.node_id]
    await asyncio.to_thread(desk.mount_register.write, [*here, *coming])


def _resolve(path: str) -> Path:
    field = "path"
    if "\0" in path or not path.startswith("/") or len(path.encode("utf-8", "surrogatepass")) > PATH_BYTES_MAX:
        raise InvalidRequest("A mount's path is absolute and holds no NUL.", code="invalid_path", field=field)
    try:
        real = Path(path).resolve(strict=True)
        if not real.is_dir():
            raise NotADirectoryError(path)
        with os.scandir(real):
            pass
    except (OSError, RuntimeError) as fault:
        cause = fault.strerror if isinstance(fault, OSError) and fault.strerror else "it is not a folder"
        raise InvalidRequest(
            f"The folder {path[:200]!r} cannot be mounted: {cause}.",
            code="mount_unreadable",
            field=field,
            fix="Give the path of a folder that exists and that the node may read.",
        ) from fault
    return real


def _check_private(desk: Desk, real: Path) -> None:
    for text in desk.policy.private_paths:
        private = Path(text)
        if real == private or real in private.parents or private in real.parents:
            raise NotAllowed(
                "This folder holds Crank's own keys and state, so no job may see it.",
                code="mount_private",
                fix="Mount a folder that neither holds nor lies in the node's home.",
            )


def _put(desk: Desk, tx: Transaction, mount: Mount, subject: str) -> Mount:
    for other in tx.registry.mounts(mount.tenant):
        if mount.name is not None and other.name == mount.name and other.mount_id != mount.mount_id:
            raise Conflict(
                f"The name {mount.name!r} belongs to another folder.",
                code="mount_name_taken",
                field="name",
                fix="Choose another name, or remove the other mount first.",
            )
        if other.mount_id == mount.mount_id and mount.name in (None, other.name):
            return other
    tx.registry.put_mount(mount)
    facts = {"mount": mount.mount_id, "name": mount.name}
    tx.records.append(desk.record("mount.added", tenant=mount.tenant, subject=subject, job_id=None, facts=facts))
    return mount


async def list_mounts(desk: Desk, *, tenant: TenantId) -> list[Mount]:
    """Return the tenant's mounts."""
    return await desk.store.read(lambda tx: list(tx.registry.mounts(tenant)))


async def remove(desk: Desk, *, tenant: TenantId, subject: str, mount_id: MountId) -> None:
    """Remove a mount; jobs that wait for it end refused. Raises NotAllowed, NotFound, Unavailable."""
    await authorise(desk, Action.CHANGE_MOUNTS)

    def commit(tx: Transaction) -> None:
        if not tx.registry.remove_mount(tenant, mount_id):
            raise NotFound(f"There is no mount {mount_id[:80]!r}.", code="mount_not_found", field="mount_id")
        # A folder that comes back later starts with no key that may name it.
        tx.credentials.forget_mount(tenant, mount_id)
        facts = {"mount": mount_id}
        tx.records.append(desk.record("mount.removed", tenant=tenant, subject=subject, job_id=None, facts=facts))

    async with desk.mounts_gate:
        await desk.store.transact(commit)
        desk.keyring.changed()
        await _register(desk)
