"""`crank mount …`: folders of this node that jobs may read, and which keys may name them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from crank.cli.exit_codes import ExitCode
from crank.cli.reach import ask
from crank.cli.show import print_json, print_rows, say
from crank.client import AsyncClient, Key, Mount
from crank.errors import InvalidRequest

Json = Annotated[bool, Parameter(help="Print JSON.", negative=(), show_default=False)]
MountName = Annotated[str, Parameter(help="The mount's id or name.")]
KeyName = Annotated[str, Parameter(help="The key's id or name.")]


def add(
    name: Annotated[str, Parameter(help="Name that jobs use for it: docs.")],
    folder: Annotated[Path, Parameter(help="A folder on this machine.")],
    /,
    *,
    json: Json = False,
) -> int:
    """Give a folder a name by which jobs may read it. They see its name, never its path, and cannot write it.

    Keys may not name it until you allow them: crank mount allow NAME KEY.
    """
    if "/" in name or name in (".", ".."):
        raise InvalidRequest(
            f"{name!r} is no name for a mount.", code="usage", fix="The name first, then the folder: mount add docs ./docs."
        )

    async def adding(client: AsyncClient) -> Mount:
        return await client.add_mount(str(folder.absolute()), name)

    mount = ask(adding)
    if json:
        print_json(mount.document)
    else:
        print(mount.mount_id)
        say(f"use it with: crank run SCRIPT --mount {mount.name}")
    return ExitCode.OK


def list_mounts(*, json: Json = False) -> int:
    """List the folders that jobs may read, with the keys that may name each."""

    async def listing(client: AsyncClient) -> tuple[Sequence[Mount], Sequence[Key]]:
        return await client.mounts(), await client.keys.list()

    mounts, keys = ask(listing)
    allowed = {
        mount.mount_id: [key.name for key in keys if not key.revoked and mount.mount_id in (key.mounts or ())]
        for mount in mounts
    }
    if json:
        print_json({"mounts": [{**mount.document, "keys": allowed[mount.mount_id]} for mount in mounts]})
    else:
        # The API tells nobody a path of the host, its owner included.
        rows = [
            (mount.mount_id, mount.name, ", ".join(allowed[mount.mount_id]) or None, mount.document.get("created_at"))
            for mount in mounts
        ]
        print_rows(("MOUNT", "NAME", "KEYS", "ADDED"), rows)
    return ExitCode.OK


def remove(mount: MountName, /, *, json: Json = False) -> int:
    """Take a folder away from later jobs, and from every key."""

    async def removing(client: AsyncClient) -> str:
        by_name = {found.name: found.mount_id for found in await client.mounts()}
        mount_id = by_name.get(mount, mount)
        await client.remove_mount(mount_id)
        return mount_id

    mount_id = ask(removing)
    if json:
        print_json({"removed": mount_id})
    else:
        say(f"removed {mount_id}")
    return ExitCode.OK


def allow(mount: MountName, key: KeyName, /, *, json: Json = False) -> int:
    """Let a key name a mount in its jobs and sessions."""

    async def allowing(client: AsyncClient) -> Key:
        return await client.keys.allow(key, mount)

    return _tell(ask(allowing), f"the key {key} may read {mount}", json=json)


def deny(mount: MountName, key: KeyName, /, *, json: Json = False) -> int:
    """Take a mount from a key, and end what it runs with it."""

    async def denying(client: AsyncClient) -> Key:
        return await client.keys.deny(key, mount)

    return _tell(ask(denying), f"the key {key} may not read {mount}", json=json)


def _tell(key: Key, sentence: str, *, json: bool) -> int:
    if json:
        print_json(key.document)
    else:
        say(sentence)
    return ExitCode.OK
