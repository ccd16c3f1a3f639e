"""The process of `crank up`: starts controller and worker, restarts what dies, stops both in order."""

import asyncio
import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

import crank
from crank.adapters.clock import SystemClock
from crank.bootstrap.files import held_lock, make_home, node_id, write_whole
from crank.bootstrap.leash import Child, Leash
from crank.bootstrap.logs import log_to_stderr
from crank.bootstrap.node import client_options
from crank.bootstrap.processes import held
from crank.client import AsyncClient
from crank.config import Settings
from crank.domain.identity import make_spiffe_id
from crank.domain.json import JsonObject
from crank.errors import CrankError, Unavailable

DELAY_MIN_SEC = 0.1
DELAY_MAX_SEC = 5.0
# A process that ran this long is sound; its next end is a new trouble.
SOUND_AFTER_SEC = 5.0
READY_SEC = 60.0
# After the worker has drained, this long for it and then for the controller to close.
GRACE_SEC = 10.0
_log = structlog.get_logger(__name__)


def next_delay_sec(previous_sec: float | None, ran_sec: float) -> float:
    """Return how long to wait before a dead process is started again."""
    if previous_sec is None or ran_sec >= SOUND_AFTER_SEC:
        return DELAY_MIN_SEC
    return min(previous_sec * 2, DELAY_MAX_SEC)


class Keeper:
    """One run of a node. `ready` is called with the node's document when both processes are up."""

    def __init__(self, settings: Settings, *, ready: Callable[[JsonObject], None]) -> None:
        self._settings = settings
        self._ready = ready
        self._children: dict[str, Child] = {}
        self._started_at = datetime.fromtimestamp(SystemClock().now_us() / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._addresses: JsonObject = {}
        self._confinement: list[JsonObject] = []
        self.up = False
        # Drain may take its time; the controller has nothing to wait for.
        self._grace_sec = {"worker": settings.drain_sec + GRACE_SEC, "controller": GRACE_SEC}

    async def run(self, stop: asyncio.Event, renew: asyncio.Event) -> None:
        """Keep the node up until `stop`. `renew` restarts the worker, so that it offers new profiles.

        Raises what kept a process from its first start.
        """
        try:
            await self._start("controller")
            await self._start("worker")
            await self._enrolled()
            self._publish()
            self.up = True
            self._ready(self._document())
            await self._guard(stop, renew)
        finally:
            self._settings.node_file.unlink(missing_ok=True)
            for role in ("worker", "controller"):
                if role in self._children:
                    await self._children[role].stop(self._grace_sec[role])

    async def _start(self, role: str) -> None:
        child = Child.spawn(role, self._settings, self._settings.logs_dir / f"{role}.log")
        self._children[role] = child
        told = await child.ready(READY_SEC)
        if role == "controller":
            self._addresses = {name: told[name] for name in ("api", "workers_api", "e2b", "spiffe_socket") if name in told}
            # A later start must listen where clients already look.
            self._settings = dataclasses.replace(
                self._settings, api_port=told["api_port"], workers_port=told["workers_port"]
            )
            if "e2b" in told:
                self._settings = dataclasses.replace(self._settings, e2b_port=told["e2b"]["port"])
        else:
            self._confinement = told["confinement"]

    async def _enrolled(self) -> None:
        """Wait until the controller knows the worker: until then every job would be refused."""
        until_sec = time.monotonic() + READY_SEC
        async with AsyncClient(client_options(self._document())) as client:
            while True:
                try:
                    await client.ready()
                except Unavailable:
                    if time.monotonic() > until_sec:
                        raise
                    await asyncio.sleep(0.02)
                else:
                    return

    async def _guard(self, stop: asyncio.Event, renew: asyncio.Event) -> None:
        guards = [asyncio.create_task(self._restart(role), name=f"keep-{role}") for role in ("controller", "worker")]
        renewing = asyncio.create_task(self._renew(renew), name="renew")
        try:
            await stop.wait()
        finally:
            for guard in (*guards, renewing):
                guard.cancel()
            await asyncio.gather(*guards, renewing, return_exceptions=True)

    async def _restart(self, role: str) -> None:
        delay_sec: float | None = None
        while True:
            began_sec = time.monotonic()
            status = await self._children[role].ended()
            self._children[role].kill()
            delay_sec = next_delay_sec(delay_sec, time.monotonic() - began_sec)
            _log.warning("process_ended", role=role, status=status, restart_in_sec=delay_sec)
            # A failpoint of a test has done its work; the next process lives.
            self._settings = dataclasses.replace(self._settings, failpoints="")
            await asyncio.sleep(delay_sec)
            try:
                await self._start(role)
                self._publish()
            except CrankError as fault:
                _log.error("process_not_started", role=role, code=fault.error_code, message=fault.message)
                await self._children[role].stop(GRACE_SEC)

    async def _renew(self, renew: asyncio.Event) -> None:
        while True:
            await renew.wait()
            renew.clear()
            self._children["worker"].ask_to_renew()

    def _document(self) -> JsonObject:
        settings = self._settings
        name = node_id(settings)
        return {
            **self._addresses,
            "ca_file": str(settings.api_ca_file),
            "token_file": str(settings.token_file),
            "pid": os.getpid(),
            "controller_pid": self._children["controller"].pid,
            "worker_pids": [self._children["worker"].pid],
            "worker_confinement": self._confinement,
            "home": str(settings.home),
            "version": crank.__version__,
            "spiffe_id": str(make_spiffe_id(settings.trust_domain, "controller", name)),
            "node_id": name,
            "started_at": self._started_at,
            "lowest_tier": str(settings.sandbox_tier),
            "ceilings": dict(settings.ceilings),
        }

    def _publish(self) -> None:
        text = json.dumps(self._document(), indent=2) + "\n"
        write_whole(self._settings.node_file, text.encode(), mode=0o600)


async def keep(settings: Settings, leash: Leash, ready: Callable[[JsonObject], None]) -> None:
    """Run a node until SIGTERM, SIGINT or the end of whoever holds the leash."""
    make_home(settings)
    with held_lock(settings):
        leash.watch()
        stop = asyncio.Event()
        keeper = Keeper(settings, ready=ready)
        running = asyncio.create_task(keeper.run(stop, leash.renewing))
        stopping = asyncio.create_task(leash.wait())
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        stop.set()
        if not keeper.up:
            # Told to stop while it starts: the children it has go with it.
            running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def run_background_keeper(settings: Settings, leash_descriptor: int | None, *, bound: bool) -> None:
    """Be the keeper of a node that another process started; `bound` ends it with that process."""
    log_to_stderr("keeper")

    async def serve(settings: Settings, leash: Leash) -> None:
        def ready(document: JsonObject) -> None:
            leash.tell(document)
            if not bound:
                leash.release()

        await keep(settings, leash, ready)

    asyncio.run(held(serve, settings, Leash(leash_descriptor)))


def run_keeper(settings: Settings, ready: Callable[[JsonObject], None]) -> None:
    """Be the keeper in the foreground until Ctrl-C or SIGTERM. Raises what kept the node from starting."""
    log_to_stderr("keeper", plain=True)
    asyncio.run(keep(settings, Leash(None), ready))
