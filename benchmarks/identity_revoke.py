"""How long a revocation takes: until the worker that it names is cut off, and until everybody who checks others was told.

The clock starts when the revocation is sent to the API, so the answer's whole way is in both numbers.
"""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from benchmarks.identity_node import FED_SEC, WATCHERS, fed
from cryptography import x509

from crank import AsyncClient
from crank.adapters.clock import SystemClock, SystemIdSource
from crank.adapters.signed import FileManifestSigner
from crank.bootstrap.authority import open_authority
from crank.bootstrap.files import worker_id_of
from crank.bootstrap.node import node_info
from crank.bootstrap.verifying import connector_to, own_identity
from crank.config import Settings, load
from crank.errors import Unavailable
from crank.ports.links import ControllerLink
from crank.wire import HELLO_SINCE, VERSION_MAX, Hello, Trust, Trusted
from crank.worker.identity import WorkerIdentity

_WORKER = "revoked"


async def revocation(count: int = WATCHERS) -> dict[str, Any]:
    """Return the seconds from the sent revocation of a worker to its link's end, and to the last watcher's new list."""
    settings = dataclasses.replace(load(), worker_name=_WORKER)
    authority = open_authority(settings, SystemClock(), SystemIdSource())
    # By its owner's authority, as whoever serves a worker on the node's own machine gets it.
    name = str(authority.issue_worker(worker_id_of(settings), settings.identity_dir).spiffe_id)
    async with contextlib.AsyncExitStack() as stack:
        streams = await fed(stack, count)
        link, messages = await _enrolled(settings)
        stack.push_async_callback(link.close)
        client = await stack.enter_async_context(AsyncClient())
        serial = await _known(client, name)
        seen: dict[bytes, bool] = {}
        began = time.perf_counter()
        told = asyncio.gather(*(_told(stream, serial, seen) for stream in streams))
        cut = asyncio.create_task(_cut_off(messages))
        await client.identities.revoke(name, reason="measured")
        answered = time.perf_counter()
        ends = await asyncio.wait_for(asyncio.gather(cut, told), FED_SEC)
    return {
        "watchers": count,
        "answered_sec": round(answered - began, 3),
        "cut_off_sec": round(ends[0] - began, 3),
        "told_sec": round(max(ends[1]) - began, 3),
    }


async def _enrolled(settings: Settings) -> tuple[ControllerLink, AsyncIterator[Any]]:
    """Return the link of a worker that offers nothing, once it acknowledged whom it trusts, and what it reads."""
    node, ids = node_info(settings), SystemIdSource()
    own = own_identity(settings, settings.identity_dir)
    link = await connector_to(settings, f"{node['workers_api']}/v1/worker", own, None).connect()
    signer = FileManifestSigner(settings.identity_dir)
    who = WorkerIdentity(worker_id_of(settings), ids.uuid7(), node["node_id"], "bench", signer, own)
    manifest = who.sign([], SystemClock(), ids)
    await link.send(
        Hello(
            HELLO_SINCE, VERSION_MAX, who.worker_id, who.instance_id, who.node_id, "bench", 1, [], [], False, manifest
        )
    )
    messages = link.messages()
    async for message in messages:
        if isinstance(message, Trust):
            await link.send(Trusted(message.sequence, message.revision))
            break
    return link, messages


async def _known(client: AsyncClient, name: str) -> int:
    """Return the number of a worker's certificate, once the node has noted it."""
    async with asyncio.timeout(FED_SEC):
        while True:
            for one in (await client.identities.list())["identities"]:
                if one["spiffe_id"] == name:
                    return int(one["serial"], 16)
            await asyncio.sleep(0.1)


async def _cut_off(messages: AsyncIterator[Any]) -> float:
    try:
        async for _ in messages:
            pass
    except Unavailable as fault:
        if fault.error_code == "identity_revoked":
            return time.perf_counter()
    raise RuntimeError("The link of the revoked worker ended for another cause.")


async def _told(stream: Any, serial: int, seen: dict[bytes, bool]) -> float:
    """Return when a watcher had a list that names this number."""
    while True:
        message = await stream.recv_message()
        if message is None:
            raise RuntimeError("A watcher's stream ended.")
        at = time.perf_counter()
        if _names(message.crl, serial, seen):
            return at


def _names(lists: Sequence[bytes], serial: int, seen: dict[bytes, bool]) -> bool:
    # All get the same lists, so each is read once: what is measured is the node's work.
    for raw in lists:
        if raw not in seen:
            found = x509.load_der_x509_crl(raw).get_revoked_certificate_by_serial_number(serial)
            seen[raw] = found is not None
    return any(seen[raw] for raw in lists)
