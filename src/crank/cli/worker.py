"""`crank worker …`: offer capabilities of your own, and see who offers what."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from crank.bootstrap.author import run_author_worker
from crank.cli.exit_codes import ExitCode
from crank.cli.reach import ask
from crank.cli.show import print_json, print_rows
from crank.client import AsyncClient
from crank.config import load
from crank.domain.json import JsonObject

Json = Annotated[bool, Parameter(help="Print JSON.", negative=(), show_default=False)]


def serve(
    target: Annotated[str, Parameter(help="module:name of your crank.Worker.")],
    /,
    *,
    name: Annotated[str | None, Parameter(help="Name of this worker; the module's unless given.")] = None,
    slots: Annotated[int, Parameter(help="Calls that may run at once.")] = 2,
) -> int:
    """Offer your own capabilities to this machine's node until Ctrl-C."""
    # As with `python -m`: what lies in the folder one stands in can be imported.
    sys.path.insert(0, str(Path.cwd()))
    run_author_worker(load(), target, name=name, slots=slots)
    return ExitCode.OK


def list_workers(*, json: Json = False) -> int:
    """List the workers that the node knows."""

    async def listing(client: AsyncClient) -> JsonObject:
        return await client.workers()

    document = ask(listing)
    if json:
        print_json(document)
        return ExitCode.OK
    rows = [
        (
            each["worker_id"],
            "draining" if each["draining"] else "connected" if each["connected"] else "away",
            f"{each['free_slots']}/{each['slots']}",
            each.get("tier"),
            sum(pool["parked"] for pool in each.get("pools", ())),
            ", ".join(each["capabilities"]),
        )
        for each in document["workers"]
    ]
    print_rows(("WORKER", "STATE", "FREE", "TIER", "PARKED", "CAPABILITIES"), rows)
    return ExitCode.OK
