"""The node's own worker process, wired from top to bottom in the order it starts; closed in reverse."""

import asyncio
import json
import os
import traceback
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import structlog

import crank
from crank.adapters.clock import SystemClock, SystemIdSource
from crank.adapters.failpoints import make_failpoints
from crank.adapters.nvml import NvmlProbe
from crank.adapters.signed import FileManifestSigner
from crank.adapters.spool import FileSpool
from crank.bootstrap.confinement import dialer_to, document, give_folders, log_layers, shut_in, spool_dir, worker_view
from crank.bootstrap.files import node_id, worker_id_of
from crank.bootstrap.leash import Leash
from crank.bootstrap.logs import log_to_stderr
from crank.bootstrap.processes import telling, watched
from crank.bootstrap.profiles import Profiles
from crank.bootstrap.verifying import connector_to, own_identity
from crank.config import Settings
from crank.domain.isolation import Tier, require
from crank.domain.quantity import TIMEOUT_SEC_MAX
from crank.domain.rules.enrolment import EVERYTHING, allows
from crank.domain.worker import GpuDevice
from crank.sandbox.confine import Layer, abilities
from crank.sandbox.dialer import Dialer
from crank.sandbox.link import LauncherLink, launch
from crank.sandbox.tiers import RUNNERS, strongest
from crank.worker.attempt import Bench
from crank.worker.identity import WorkerIdentity
from crank.worker.offers import Offer, ScriptOffer, script_offers, shipped_offers
from crank.worker.serve import EXIT_LEFT, Worker
from crank.worker.sessions import SessionBounds

# As long as the longest job that anybody may ask for.
RENEW_DRAIN_SEC = float(TIMEOUT_SEC_MAX)
DRAIN_MARGIN_SEC = 5.0
BESIDE_LOOK_SEC = 0.5
# What ran went with its launcher; this is for telling how it ended.
BESIDE_LOST_DRAIN_SEC = 5.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker belongs.

    url              where its controller listens for workers; an address, because nobody looks names up inside the walls
    mounts_register  which folders of this machine its jobs may see
    allowed          patterns of what it may offer
    rings            whether its keeper wants to hear that the controller spoke of trust, to look at that itself
    """

    worker_id: str
    node_id: str
    url: str
    mounts_register: Path
    allowed: tuple[str, ...] = EVERYTHING
    rings: bool = False


def own_place(settings: Settings) -> Place:
    """Return the place of this node's own worker."""
    return Place(worker_id_of(settings), node_id(settings), workers_url(settings), settings.mounts_register)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a worker gathered while it could still see the machine, and the walls that stand around it now.

    link    the launcher, which stays outside the walls
    dialer  makes the connections to the controller, in walls of its own
    """

    place: Place
    link: LauncherLink
    dialer: Dialer
    identity: WorkerIdentity
    offers: tuple[Offer, ...]
    devices: tuple[GpuDevice, ...]
    layers: tuple[Layer, ...]


def prepare(settings: Settings, place: Place) -> Prepared:
    """Start launcher and dialer, gather what the worker needs to know, then shut this process in.

    From here on the process can reach its own folders and its controller, nothing else. Blocking, in a single
    thread. Raises SandboxError when no sandbox or no confinement can be had here.
    """
    # What the launcher may show to jobs is not this process's to say.
    link = strongest(settings.sandbox_tier, partial(_launch, settings, place))
    try:
        devices = find_devices()
        offers = find_offers(Profiles(settings, devices), devices, link.tier)
        offers = tuple(offer for offer in offers if allows(place.allowed, offer.capability.name))
        identity = WorkerIdentity(
            worker_id=place.worker_id,
            instance_id=SystemIdSource().uuid7(),
            node_id=place.node_id,
            software=f"crank/{crank.__version__}",
            signer=FileManifestSigner(settings.identity_dir),
        )
        able = abilities()
        give_folders(settings, able.account)
        dialer = dialer_to(place.url, able)
        layers = shut_in(settings, worker_view(settings), able)
        log_layers(layers)
    except BaseException:
        link.close()
        raise
    return Prepared(place, link, dialer, identity, offers, devices, layers)


def find_offers(profiles: Profiles, devices: Sequence[GpuDevice], tier: str) -> tuple[Offer, ...]:
    """Return what this node's own worker offers: scripts in every profile that is built, and what comes with Crank."""
    builds = profiles.built()
    return (*script_offers(builds, devices, tier), *shipped_offers(builds, profiles.shipped(), tier))


def _launch(settings: Settings, place: Place, tier: Tier) -> LauncherLink:
    roots = [settings.profiles_builds.resolve()]
    return launch(roots=roots, mounts_register=place.mounts_register, tier=tier)


def find_devices() -> tuple[GpuDevice, ...]:
    """Return this machine's GPUs, asked by a child: what the driver's library starts or breaks stays there."""
    answer_from, answer_to = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(answer_to, json.dumps([asdict(device) for device in NvmlProbe().devices()]).encode())
        except BaseException:  # noqa: BLE001 - the border of a forked process: it is logged, then the process ends
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(answer_to)
    with os.fdopen(answer_from, "rb") as source:
        raw = source.read()
    os.waitpid(pid, 0)
    if not raw:
        _log.error("gpu_probe_failed", fix="Jobs that ask for a GPU are refused; run 'nvidia-smi' to see why.")
    return tuple(GpuDevice(**{**each, "nodes": tuple(each["nodes"])}) for each in json.loads(raw or b"[]"))


async def serve_worker(settings: Settings, leash: Leash, prepared: Prepared) -> None:
    """Run the worker until told to stop; then it drains.

    Raises SandboxError when no sandbox can be built here, ConfigurationError for a damaged identity.
    """
    async with AsyncExitStack() as opened:
        sandbox = RUNNERS[prepared.link.tier](prepared.link)
        await sandbox.start()
        require(Tier(sandbox.tier), settings.sandbox_tier)
        opened.push_async_callback(sandbox.stop)
        for offer in prepared.offers:
            if isinstance(offer, ScriptOffer) and offer.build.accelerator == "cpu":
                # Imports begin now, so that no job waits for them. A GPU's sandboxes wait until it is known which.
                sandbox.warm(offer.build)
        own = own_identity(settings, settings.identity_dir)
        if prepared.place.rings:
            own.rings(lambda: leash.tell({"ring": "trust"}))
        worker = Worker(
            connector_to(settings, prepared.place.url, own, prepared.dialer.dial),
            replace(prepared.identity, own=own),
            offers=prepared.offers,
            bench=Bench(
                sandbox=sandbox,
                functions=None,
                spool=FileSpool(spool_dir(settings)),
                clock=SystemClock(),
                ids=SystemIdSource(),
                failpoints=make_failpoints(settings.failpoints),
            ),
            slots=settings.worker_slots,
            bounds=SessionBounds(settings.worker_sessions, settings.worker_sessions_bytes),
            devices=prepared.devices,
        )
        opened.callback(asyncio.create_task(leave_when_lost(prepared.link, prepared.dialer, worker)).cancel)
        names = [offer.capability.name for offer in prepared.offers]
        _log.info("worker_ready", capabilities=names)
        leash.tell({"capabilities": names, "confinement": document(prepared.layers)})
        await run_until_told(worker, leash, drain_sec=settings.drain_sec)


async def leave_when_lost(link: LauncherLink, dialer: Dialer, worker: Worker) -> None:
    """End the worker when launcher or dialer has died: from inside it cannot start another, its keeper can."""
    while link.alive and dialer.alive:
        await asyncio.sleep(BESIDE_LOOK_SEC)
    _log.error("launcher_lost" if dialer.alive else "dialer_lost")
    worker.drain(limit_sec=BESIDE_LOST_DRAIN_SEC)


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
    for word in (stopping, renewing):
        word.cancel()
    await asyncio.gather(stopping, renewing, return_exceptions=True)
    try:
        return await running
    except asyncio.CancelledError:
        return EXIT_LEFT


def run_worker(settings: Settings, leash_descriptor: int | None, place: Callable[[], Place] | None = None) -> None:
    """Be the worker until told to stop. Raises what kept it from starting.

    place  finds where the worker belongs; its own node's unless said
    """
    log_to_stderr("worker")
    leash = Leash(leash_descriptor)
    with telling(leash):
        prepared = prepare(settings, own_place(settings) if place is None else place())

    async def serve(settings: Settings, leash: Leash) -> None:
        await serve_worker(settings, leash, prepared)

    asyncio.run(watched(serve, settings, leash))
