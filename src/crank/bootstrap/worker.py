"""The node's own worker process, wired from top to bottom in the order it starts; closed in reverse."""

import asyncio
import ssl
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

import crank
from crank.adapters.clock import SystemClock, SystemIdSource
from crank.adapters.controller_link import WebSocketConnector
from crank.adapters.nvml import NvmlProbe
from crank.adapters.process_runner import ProcessRunner
from crank.adapters.spool import FileSpool
from crank.bootstrap.controller import RENEW_EVERY_SEC, make_failpoints, worker_id_of
from crank.bootstrap.files import node_id
from crank.bootstrap.leash import Leash
from crank.bootstrap.logs import log_to_stderr
from crank.bootstrap.processes import watched
from crank.bootstrap.profiles import Profiles
from crank.config import Settings
from crank.domain.quantity import TIMEOUT_SEC_MAX
from crank.sandbox.runner import NamespaceRunner
from crank.security import client_context
from crank.worker.attempt import Bench
from crank.worker.offers import script_offers
from crank.worker.serve import EXIT_LEFT, Worker, WorkerIdentity
from crank.worker.sessions import SessionBounds

# As long as the longest job that anybody may ask for.
RENEW_DRAIN_SEC = float(TIMEOUT_SEC_MAX)
DRAIN_MARGIN_SEC = 5.0
_log = structlog.get_logger(__name__)


async def serve_worker(settings: Settings, leash: Leash) -> None:
    """Run the worker until told to stop; then it drains.

    Raises SandboxError when no sandbox can be built here, ConfigurationError for a damaged identity.
    """
    ids = SystemIdSource()
    async with AsyncExitStack() as opened:
        sandbox = NamespaceRunner()
        await sandbox.start()
        opened.push_async_callback(sandbox.stop)
        devices = NvmlProbe().devices()
        offers = script_offers(await asyncio.to_thread(lambda: Profiles(settings).built()), devices)
        folder = settings.identity_dir
        tls = client_context(
            certificate_file=folder / "cert.pem", key_file=folder / "key.pem", ca_file=folder / "ca.pem"
        )
        worker = Worker(
            WebSocketConnector(workers_url(settings), tls, settings.trust_domain),
            WorkerIdentity(
                worker_id=worker_id_of(settings),
                instance_id=ids.uuid7(),
                node_id=node_id(settings),
                software=f"crank/{crank.__version__}",
            ),
            offers=offers,
            bench=Bench(
                sandbox=sandbox,
                functions=ProcessRunner(python=sys.executable, directory=settings.worker_dir, environment={}),
                spool=FileSpool(settings.worker_dir / "spool"),
                clock=SystemClock(),
                ids=ids,
                failpoints=make_failpoints(settings),
            ),
            slots=settings.worker_slots,
            bounds=SessionBounds(settings.worker_sessions, settings.worker_sessions_bytes),
            devices=devices,
        )
        reloading = asyncio.create_task(reload_identity(tls, folder), name="reload")
        opened.callback(reloading.cancel)
        _log.info("worker_ready", capabilities=[offer.capability.name for offer in offers])
        leash.tell({"capabilities": [offer.capability.name for offer in offers]})
        await run_until_told(worker, leash, drain_sec=settings.drain_sec)


async def reload_identity(tls: ssl.SSLContext, folder: Path) -> None:
    """Take up a renewed certificate for the connections to come, for as long as the process runs."""
    while True:
        await asyncio.sleep(RENEW_EVERY_SEC)
        try:
            tls.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        except OSError as fault:
            _log.error("renewal_failed", cause=str(fault))


def workers_url(settings: Settings) -> str:
    """Return where this node's controller listens for workers."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.bind, settings.bind)  # noqa: S104 - compared, not bound
    return f"wss://{f'[{host}]' if ':' in host else host}:{settings.workers_port}/v1/worker"


async def run_until_told(worker: Worker, leash: Leash, *, drain_sec: float) -> int:
    """Run a worker until it leaves by itself, or drain it when told to; return its exit code.

    Told to stop, it waits `drain_sec` for its jobs; told to make room for a fresh one, as long as they take.
    """
    running = asyncio.create_task(worker.run())
    stopping, renewing = asyncio.create_task(leash.stopping.wait()), asyncio.create_task(leash.renewing.wait())
    await asyncio.wait({running, stopping, renewing}, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        _log.info("worker_leaves", renewing=not stopping.done())
        worker.drain(limit_sec=drain_sec if stopping.done() else RENEW_DRAIN_SEC)
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        # One that was already making room was given more time than this.
        await asyncio.wait({running}, timeout=drain_sec + DRAIN_MARGIN_SEC)
        running.cancel()
    for telling in (stopping, renewing):
        telling.cancel()
    await asyncio.gather(stopping, renewing, return_exceptions=True)
    try:
        return await running
    except asyncio.CancelledError:
        return EXIT_LEFT


def run_worker(settings: Settings, leash_descriptor: int | None) -> None:
    """Be the worker until told to stop. Raises what kept it from starting."""
    log_to_stderr("worker")
    asyncio.run(watched(serve_worker, settings, Leash(leash_descriptor)))
