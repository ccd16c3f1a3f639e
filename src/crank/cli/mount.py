"""`crank mount …`: folders of this node that jobs may read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from crank.cli.exit_codes import ExitCode
from crank.cli.reach import ask
from crank.cli.show import print_json, print_rows, say
from crank.client import AsyncClient, Mount

Json = Annotated[bool, Parameter(help="Print JSON.", negative=(), show_default=False)]


def add(
    folder: Annotated[Path, Parameter(help="A folder on this machine.")],
    /,
    *,
    name: Annotated[str | None, Parameter(help="Name that jobs may use for it.")] = None,
    json: Json = False,
) -> int:
    """Allow jobs to read a folder. They see its name, never its path."""

    async def adding(client: AsyncClient) -> Mount:
        return await client.add_mount(str(folder.absolute()), name)

    mount = ask(adding)
    if json:
        print_json(mount.document)
    else:
        print(mount.mount_id)
        say(f"use it with: crank run SCRIPT --mount {mount.name or 'NAME=' + str(folder)}")
    return ExitCode.OK


def list_mounts(*, json: Json = False) -> int:
    """List the folders that jobs may read."""

    async def listing(client: AsyncClient) -> Sequence[Mount]:
        return await client.mounts()

    mounts = ask(listing)
    if json:
        print_json({"mounts": [mount.document for mount in mounts]})
    else:
        # The API tells nobody a path of the host, its owner included.
        rows = [(mount.mount_id, mount.name, mount.document.get("created_at")) for mount in mounts]
        print_rows(("MOUNT", "NAME", "ADDED"), rows)
    return ExitCode.OK


def remove(mount: Annotated[str, Parameter(help="The mount's id or name.")], /, *, json: Json = False) -> int:
    """Take a folder away from later jobs."""

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
