"""The runner of the tier `namespaces`: starts the launcher, proves the walls, keeps sandboxes ready, opens sessions."""

import asyncio
import itertools
import os
import secrets
import time
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import replace

from crank.domain.isolation import Tier
from crank.domain.profile import Limits
from crank.domain.quantity import GIB, MIB
from crank.errors import SandboxError
from crank.ports import ModuleBuild, PoolCount, ProfileBuild, SandboxSession, SandboxSpec
from crank.sandbox.link import LauncherLink, launch, rehearse
from crank.sandbox.plan import Ground, Plan, to_json
from crank.sandbox.pool import Counts, Pool
from crank.sandbox.session import TIER, NamespaceSession

_LET_GO_SEC = 30.0
# Longer than a launcher gives a zygote for its imports.
_STAND_SEC = 240.0
_PAUSES_SEC = (0.2, 0.6, 1.8)
_PASSING = frozenset({"zygote_lost", "zygote_stuck", "layer_sandbox"})


def _bound_bytes() -> int:
    """Return what waiting sandboxes may take: an eighth of this machine's memory, between 64 MiB and 1 GiB."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(64 * MIB, min(GIB, memory // 8))


class NamespaceRunner:
    """Runs each job in a fresh process behind namespaces, mounts, Landlock, a filter, limits and a control group.

    link    a launcher that was started before the worker gave up its privilege; without one, the runner
            starts its own, and starts another if it is lost
    parked  most sandboxes of one profile that are kept ready, 0 for none
    """

    tier: str = TIER
    session_kind = NamespaceSession

    def __init__(self, link: LauncherLink | None = None, *, parked: int = 4) -> None:
        self._link = link
        self._own_link = link is None
        # A launcher that was handed over may serve more than one runner.
        self._name = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        # One that is closed is kept by nobody but whoever used it.
        self._sessions: weakref.WeakSet[NamespaceSession] = weakref.WeakSet()
        self._starting = asyncio.Lock()
        self._parked = parked
        self._pool: Pool[NamespaceSession] = Pool(
            most=parked, memory_bytes=_bound_bytes(), now_sec=time.monotonic
        )
        self._kinds: dict[tuple[Ground, Limits], str] = {}
        self._looking_after: asyncio.Task[None] | None = None
        self._stopped = False

    async def start(self) -> None:
        """Prove that the sandbox works here. Raises SandboxError that names the missing layer."""
        await asyncio.to_thread(rehearse, await self._living_link())
        self._looking_after = asyncio.create_task(self._look_after(), name="pool")

    def warm(self, build: ProfileBuild | ModuleBuild, devices: tuple[str, ...] = ()) -> None:
        """Begin to keep sandboxes of a profile ready, before the first job asks."""
        if self._parked:
            ground, limits = _ground(build, devices), build.limits
            self._kinds[ground, limits] = build.name
            self._pool.warm((ground, limits), self._maker(ground, limits))

    async def settled(self, build: ProfileBuild | ModuleBuild) -> None:
        """Wait until the pool of a profile is full. For measurements."""
        self.warm(build)
        await self._pool.settled((_ground(build, ()), build.limits))

    def pool_counts(self) -> Counts:
        """Return what the pool did and holds."""
        return self._pool.counts

    def pools(self) -> tuple[PoolCount, ...]:
        """Return what stands ready and what was burnt, by profile."""
        counts: dict[str, PoolCount] = {}
        for kind, name in self._kinds.items():
            before = counts.get(name, PoolCount(name, 0, 0))
            parked, burnt = self._pool.held(kind)
            counts[name] = PoolCount(name, before.parked + parked, before.burnt + burnt)
        return tuple(counts.values())

    async def open(self, spec: SandboxSpec) -> SandboxSession:
        """Prepare a session: on return its walls stand and were tried from inside. Raises SandboxError."""
        began = time.monotonic()
        ground, ceilings = _ground(spec.build, spec.devices), spec.build.limits
        session = None
        if self._parked and not spec.mounts and _fits(spec.limits, ceilings):
            self._kinds[ground, ceilings] = spec.build.name
            session = self._pool.take((ground, ceilings), self._maker(ground, ceilings))
        hit = session is not None
        if session is None:
            mounts = tuple((mount.name, str(mount.host_path)) for mount in spec.mounts)
            session = await self._make(ground, spec.limits, mounts)
        session.tell_doubts(lambda: self._pool.count_burnt((ground, ceilings)))
        session.give(spec.limits, lasting=spec.lasting, hit=hit, setup_sec=time.monotonic() - began)
        return session

    def _maker(self, ground: Ground, limits: Limits) -> Callable[[], Awaitable[NamespaceSession]]:
        return lambda: self._make(ground, limits, ())

    async def _make(self, ground: Ground, limits: Limits, mounts: tuple[tuple[str, str], ...]) -> NamespaceSession:
        for pause_sec in _PAUSES_SEC:
            try:
                return await self._try_to_make(ground, limits, mounts)
            except SandboxError as fault:
                if fault.error_code not in _PASSING:
                    raise
            # A zygote died, or stopped, in the middle; the next one is another. The launcher has to see it first.
            await asyncio.sleep(pause_sec)
        return await self._try_to_make(ground, limits, mounts)

    async def _try_to_make(
        self, ground: Ground, limits: Limits, mounts: tuple[tuple[str, str], ...]
    ) -> NamespaceSession:
        plan = Plan(f"{self._name}-{next(self._numbers)}", ground, mounts, limits)
        session = self.session_kind(limits, programs=ground.programs)
        self._sessions.add(session)
        try:
            link = await self._living_link()
            link.request({"kind": "open", "plan": to_json(plan)}, [session.channel.theirs.fileno()])
            # The supervisor has its own copy; with this one open, its death would go unseen.
            session.channel.theirs.close()
            async with asyncio.timeout(_STAND_SEC):
                await session.stand()
        except TimeoutError:
            await session.close()
            raise SandboxError(
                f"The sandbox did not stand within {_STAND_SEC:g} s.",
                code="sandbox_late",
                fix="Look whether this machine is overloaded, and into the worker's log.",
            ) from None
        except BaseException:
            await session.close()
            raise
        return session

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(_LET_GO_SEC)
            await self._pool.let_go()

    async def stop(self) -> None:
        """Kill every session and the launcher. Safe to call twice."""
        self._stopped = True
        if self._looking_after is not None:
            self._looking_after.cancel()
        await self._pool.stop()
        await asyncio.gather(*(session.close() for session in tuple(self._sessions)))
        if self._link is not None:
            await asyncio.to_thread(self._link.close)
            self._link = None

    async def _living_link(self) -> LauncherLink:
        async with self._starting:
            if self._stopped:
                raise SandboxError("The sandbox runner is stopped.", code="runner_stopped")
            if self._link is not None and not self._link.alive and self._own_link:
                await asyncio.to_thread(self._link.close)
                self._link = None
            if self._link is None:
                self._link = await asyncio.to_thread(launch, tier=Tier(self.tier))
            return self._link


def _ground(build: ProfileBuild | ModuleBuild, devices: tuple[str, ...]) -> Ground:
    if isinstance(build, ModuleBuild):
        return _module_ground(build, devices)
    profile = build.profile
    return Ground(
        root=str(build.rootfs),
        python=build.python,
        version=profile.python,
        site=build.site,
        programs=profile.programs,
        processes=profile.processes,
        preimports=profile.preimports,
        devices=devices,
    )


def _module_ground(build: ModuleBuild, devices: tuple[str, ...]) -> Ground:
    return Ground(
        root=None,
        python=build.python,
        version=build.version,
        site=build.paths[0],
        programs=build.programs,
        processes=bool(build.programs),
        preimports=build.modules,
        devices=devices,
        layers=tuple((place, str(path)) for place, path in build.layers),
        paths=build.paths,
    )


def _fits(limits: Limits, ceilings: Limits) -> bool:
    """Tell whether a sandbox made for the ceilings serves a job with these limits.

    Clocks, memory and what is kept of output can be lowered when the job comes; the rest stands with the walls.
    """
    same = replace(
        limits,
        wall_sec=ceilings.wall_sec,
        cpu_sec=ceilings.cpu_sec,
        idle_sec=ceilings.idle_sec,
        no_output_sec=ceilings.no_output_sec,
        memory_bytes=ceilings.memory_bytes,
        output_bytes=ceilings.output_bytes,
        output_flood_bytes=ceilings.output_flood_bytes,
    )
    return same == ceilings and limits.memory_bytes <= ceilings.memory_bytes
