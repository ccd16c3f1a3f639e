"""Both real listeners over real TLS on loopback, with identities of a fresh authority."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from crank.adapters.authority import FileAuthority, Identity
from crank.adapters.certificate_request import read_request
from crank.adapters.clock import SystemClock, SystemIdSource
from crank.api.app import build_api
from crank.api.server import Listener, serve
from crank.api.workers import build_workers_app
from crank.controller.desk import Desk
from crank.controller.issue import note_issued
from crank.security import Verifier, bearer_server_context, bundle_from_pem, client_context, server_context
from tests.support.desk import TRUST_DOMAIN

# Tests of old connections lower it.
AGE_SEC_MAX = 900.0


@dataclass(frozen=True)
class Listeners:
    """Where the listeners are, and what issues identities for them."""

    api_port: int
    workers_port: int
    authority: FileAuthority
    folder: Path

    async def known(self, desk: Desk, name: str = "w1") -> Identity:
        """Issue a worker's identity and note it, as the controller does."""
        identity = self.worker(name)
        svid = self.authority.read_local(identity.folder)
        assert svid is not None
        await note_issued(desk, svid, node="n1", asked_by="test")
        return identity

    def worker(self, name: str = "w1") -> Identity:
        """Issue a worker's identity."""
        return self.authority.issue_worker(name, self.folder / name)

    @property
    def url(self) -> str:
        """Return the worker listener's WebSocket."""
        return f"wss://127.0.0.1:{self.workers_port}/v1/worker"


def authority(folder: Path, *, trust_domain: str = TRUST_DOMAIN, clock=None) -> FileAuthority:
    """Make an authority in a folder."""
    return FileAuthority(folder, trust_domain=trust_domain, clock=clock or SystemClock(), ids=SystemIdSource())


def context_of(identity: Identity) -> ssl.SSLContext:
    """Return what a worker connects with."""
    return client_context(
        certificate_file=identity.certificate_file, key_file=identity.key_file, ca_file=identity.ca_file
    )


@contextlib.asynccontextmanager
async def open_listeners(
    desk: Desk,
    folder: Path,
    *,
    issuer: FileAuthority | None = None,
    serving_as: FileAuthority | None = None,
    workers_tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Listeners]:
    """Serve both listeners on free ports until the test is over.

    issuer      the authority that the desk has
    serving_as  one that issues the controller's certificate, where its clock differs
    workers_tls what the worker listener speaks; None: what it does with no list of revocations
    """
    issuer = issuer or authority(folder / "authority")
    own = (serving_as or issuer).issue_controller("c1")
    files = {"certificate_file": own.certificate_file, "key_file": own.key_file}
    api = Listener(build_api(desk, version="0"), "127.0.0.1", 0, bearer_server_context(**files), "api", AGE_SEC_MAX)
    bundle = bundle_from_pem(TRUST_DOMAIN, own.ca_file.read_bytes())
    verifier = Verifier(lambda domain: bundle if domain == TRUST_DOMAIN else None, now_us=SystemClock().now_us)
    workers = Listener(
        build_workers_app(desk, identify=verifier.peer, read_request=read_request),
        "127.0.0.1",
        0,
        workers_tls or server_context(**files, ca_file=own.ca_file),
        "workers",
    )
    async with serving(api, workers) as (api_port, workers_port):
        yield Listeners(api_port, workers_port, issuer, folder)


@contextlib.asynccontextmanager
async def serving(api: Listener, workers: Listener) -> AsyncIterator[tuple[int, int]]:
    """Serve two listeners until the test is over; give their ports."""
    ports: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    served = asyncio.create_task(
        serve(api=api, workers=workers, started=lambda *both: ports.set_result(both), stop=stop)
    )
    try:
        yield await asyncio.wait_for(ports, 20)
    finally:
        stop.set()
        await asyncio.wait_for(served, 30)
