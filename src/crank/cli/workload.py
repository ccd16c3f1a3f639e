"""`crank workload …`: which process of this machine gets which identity."""

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from crank.cli.exit_codes import ExitCode
from crank.cli.reach import ask
from crank.cli.show import print_json, print_rows, say
from crank.client import AsyncClient, WorkloadEntry

Json = Annotated[bool, Parameter(help="Print JSON.", negative=(), show_default=False)]


def add(
    path: Annotated[str, Parameter(help="Path of its SPIFFE ID: agent/ci, tenant/acme/web.")],
    /,
    *,
    selector: Annotated[
        tuple[str, ...],
        Parameter(
            help="A mark that the process must bear: unix:uid:1000, unix:gid:…, unix:path:/…, unix:sha256:…, unix:cgroup:/…, "
            "systemd:unit:…; may be repeated, and all must hold.",
            negative=(),
        ),
    ] = (),
    ttl: Annotated[int | None, Parameter(help="Seconds that a certificate lives at most, 10 to 3600.")] = None,
    hint: Annotated[str | None, Parameter(help="What the program tells this identity from its others by.")] = None,
    dns: Annotated[
        tuple[str, ...], Parameter(help="A DNS name that its certificates are good for; may be repeated.", negative=())
    ] = (),
    federates_with: Annotated[
        tuple[str, ...], Parameter(help="A trust domain whose bundle it is given; may be repeated.", negative=())
    ] = (),
    json: Json = False,
) -> int:
    """Register a workload: a process that bears all these marks gets this identity at the node's Unix socket."""

    async def adding(client: AsyncClient) -> WorkloadEntry:
        more = {"ttl_sec": ttl, "hint": hint, "dns_names": list(dns), "federates_with": list(federates_with)}
        return await client.workloads.add(path, selector, **more)

    entry = ask(adding)
    if json:
        print_json(entry.document)
    else:
        say(f"registered {entry.spiffe_id} ({entry.workload_id})")
    return ExitCode.OK


def list_workloads(*, json: Json = False) -> int:
    """List the registered workloads, oldest first."""

    async def listing(client: AsyncClient) -> Sequence[WorkloadEntry]:
        return await client.workloads.list()

    entries = ask(listing)
    if json:
        print_json({"workloads": [entry.document for entry in entries]})
    else:
        rows = [
            (entry.workload_id, entry.spiffe_id, entry.document["hint"], ", ".join(entry.selectors)) for entry in entries
        ]
        print_rows(("WORKLOAD", "SPIFFE ID", "HINT", "SELECTORS"), rows)
    return ExitCode.OK


def remove(workload: Annotated[str, Parameter(help="The workload's id.")], /, *, json: Json = False) -> int:
    """Take an identity away. Programs that watch are told at once; certificates that are out are revoked."""

    async def removing(client: AsyncClient) -> WorkloadEntry:
        return await client.workloads.remove(workload)

    removed = ask(removing)
    if json:
        print_json(removed.document)
    else:
        say(f"removed {removed.spiffe_id} ({removed.workload_id})")
    return ExitCode.OK
