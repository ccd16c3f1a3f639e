"""The sessions of one worker: each a sandbox that lives on between jobs, with two clocks kept beside it.

A session ends once, for the first reason that comes. Its end is told again on every new link until the
controller has noted it. A session dies with its worker; nothing of it is on disk.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from crank.domain.capability import Accelerator
from crank.domain.ids import JobId, SessionId
from crank.domain.job_codec import end_document
from crank.domain.outcome import End, Reason
from crank.domain.profile import LIMIT_RANGES, Limits
from crank.domain.quantity import GIB
from crank.domain.rules import session as rules
from crank.domain.session import SessionEnd, SessionReason
from crank.domain.worker import GpuDevice
from crank.errors import CrankError, Unavailable
from crank.ports import ControllerLink, MountBinding, SandboxSession, SandboxSpec
from crank.wire import Close, Ended, Lease, Message, Open, Opened, Touch
from crank.wire import Sessions as SessionList
from crank.worker.attempt import Bench
from crank.worker.current import CurrentLink
from crank.worker.devices import DevicePool
from crank.worker.offers import Offer, ScriptOffer

_log = structlog.get_logger(__name__)

# How exact the clocks are; a session may outlive its clock by this much.
TICK_SEC = 0.25
# A sandbox that does not stand after so long never will.
BUILD_SEC = 60.0
_CLOSE_SEC = 30.0


@dataclass(frozen=True, slots=True)
class SessionBounds:
    """How many sessions a worker keeps, and what the memory limits of all of them may add up to."""

    count_max: int = 8
    memory_bytes_max: int = 8 * GIB


class Kept:
    """One session as its worker knows it."""

    def __init__(self, session_id: SessionId, offer: ScriptOffer, limits: Limits, clocks: rules.Clocks) -> None:
        self.session_id = session_id
        self.offer = offer
        self.limits = limits
        self.clocks = clocks
        self.device: GpuDevice | None = None
        self.sandbox: SandboxSession | None = None
        self.running: JobId | None = None
        self.end: SessionEnd | None = None
        self.rested = asyncio.Event()
        self.rested.set()
        self.building: asyncio.Task[None] | None = None


class Sessions:
    """Opens, keeps and ends sessions. A job of one takes a slot only while it runs; the session itself takes none."""

    def __init__(
        self,
        bench: Bench,
        current: CurrentLink,
        devices: DevicePool,
        *,
        bounds: SessionBounds,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._bench = bench
        self._current = current
        self._devices = devices
        self._bounds = bounds
        self._spawn = spawn
        self._kept: dict[SessionId, Kept] = {}
        self._leaving = False
        self._winding: set[asyncio.Task[None]] = set()

    # --- opening ---

    def open(self, wanted: Open, offer: Offer | None) -> None:
        """Begin to build a session; how it went is told. One that is kept already is told as it stands."""
        session_id = SessionId(wanted.session_id)
        if session_id in self._kept:
            self._spawn(self._tell_again(self._kept[session_id]))
            return
        objection = self._objection(wanted, offer)
        if objection is not None or not isinstance(offer, ScriptOffer):
            code, message = objection or ("unknown_capability", "It runs no scripts.")
            self._spawn(self._tell(_ended(session_id, SessionEnd(SessionReason.FAILED, code, message))))
            return
        now_sec = self._bench.clock.monotonic_sec()
        clocks = rules.Clocks(wanted.idle_sec, wanted.lifetime_sec, opened_sec=now_sec, used_sec=now_sec)
        kept = Kept(session_id, offer, _session_limits(offer, wanted.memory_bytes), clocks)
        if offer.capability.accelerator is Accelerator.GPU:
            kept.device = self._devices.take()
        self._kept[session_id] = kept
        kept.building = self._spawn(self._build(kept, wanted))

    def _objection(self, wanted: Open, offer: Offer | None) -> tuple[str, str] | None:
        if self._leaving:
            return "draining", "This worker is leaving."
        if not isinstance(offer, ScriptOffer) or self._bench.sandbox is None:
            return "unknown_capability", f"This worker keeps no sessions of {wanted.capability}."
        live = [kept for kept in self._kept.values() if kept.end is None]
        memory_bytes = sum(kept.limits.memory_bytes for kept in live)
        if len(live) >= self._bounds.count_max:
            return "sessions_full", f"This worker keeps {self._bounds.count_max} sessions already."
        if memory_bytes + _session_limits(offer, wanted.memory_bytes).memory_bytes > self._bounds.memory_bytes_max:
            return "sessions_full", "The memory that this worker sets aside for sessions is taken."
        if offer.capability.accelerator is Accelerator.GPU and not self._devices.free:
            return "sessions_full", "Every GPU of this worker is held."
        for mount in wanted.mounts:
            path = Path(mount.host_path)
            if not path.is_absolute() or not path.is_dir():
                return "mount_missing", f"The folder mounted as {mount.name!r} is not there any more."
        return None

    async def _build(self, kept: Kept, wanted: Open) -> None:
        assert self._bench.sandbox is not None, "checked before"
        mounts = tuple(MountBinding(mount.name, Path(mount.host_path)) for mount in wanted.mounts)
        nodes = kept.device.nodes if kept.device else ()
        spec = SandboxSpec(kept.offer.build, kept.limits, mounts, nodes, lasting=True)
        try:
            async with asyncio.timeout(BUILD_SEC):
                kept.sandbox = await self._bench.sandbox.open(spec)
        except TimeoutError:
            message = f"Its sandbox did not stand within {BUILD_SEC:g} s."
            self._end(kept, SessionEnd(SessionReason.FAILED, "sandbox_slow", message))
            return
        except CrankError as fault:
            _log.warning("session.not_built", session=kept.session_id, code=fault.error_code, detail=fault.detail)
            self._end(kept, SessionEnd(SessionReason.FAILED, fault.error_code, fault.message))
            return
        kept.clocks = rules.touched(kept.clocks, self._bench.clock.monotonic_sec(), None, None)
        if kept.end is None:
            await self._tell(Opened(kept.session_id, kept.sandbox.tier))

    # --- the controller's words ---

    def touch(self, message: Touch) -> None:
        """Begin the idle clock anew, and change the clocks that are named."""
        kept = self._kept.get(SessionId(message.session_id))
        if kept is not None:
            now_sec = self._bench.clock.monotonic_sec()
            kept.clocks = rules.touched(kept.clocks, now_sec, message.idle_sec, message.lifetime_sec)

    def close(self, message: Close) -> None:
        """End a session now, with what runs in it."""
        session_id = SessionId(message.session_id)
        kept = self._kept.get(session_id)
        if kept is None:
            self._spawn(self._tell(_ended(session_id, SessionEnd(SessionReason.CLOSED))))
        else:
            self._end(kept, SessionEnd(SessionReason.CLOSED))

    def noted(self, session_id: str) -> None:
        """Forget a session whose end is durable."""
        kept = self._kept.get(SessionId(session_id))
        if kept is not None and kept.end is not None:
            del self._kept[kept.session_id]

    # --- use ---

    def find(self, session_id: str) -> Kept | None:
        """Return a session that stands and can be used, or None."""
        kept = self._kept.get(SessionId(session_id))
        return kept if kept is not None and kept.end is None and kept.sandbox is not None else None

    def enter(self, lease: Lease) -> Kept | tuple[str, str]:
        """Begin a job in its session; or return why it cannot run: a code and a sentence."""
        kept = self._kept.get(SessionId(lease.session_id or ""))
        if kept is None:
            return rules.SESSION_UNKNOWN, "The session has ended: its worker does not hold it any more."
        if kept.end is not None:
            return rules.SESSION_ENDED, rules.ended_sentence(kept.end)
        if kept.sandbox is None or kept.running is not None:
            return "busy", "The session runs another job, or is not open yet."
        kept.running = JobId(lease.job_id)
        kept.clocks = rules.begun(kept.clocks)
        kept.rested.clear()
        return kept

    def rest(self, kept: Kept, job_id: JobId, end: End | None) -> None:
        """Note that the session's job is over. A sandbox that did not outlive it ends the session with its cause."""
        if kept.running != job_id:
            return
        kept.running = None
        kept.clocks = rules.rested(kept.clocks, self._bench.clock.monotonic_sec())
        kept.rested.set()
        if kept.sandbox is not None and not kept.sandbox.alive:
            why = "" if end is None else f": {end.message or end.reason}"
            code = None if end is None else str(end.reason)
            message = f"The job {job_id} ended its sandbox{why}"
            self._end(kept, SessionEnd(SessionReason.CRASHED, code, message, job_id, end))
        elif self._leaving:
            self._end(kept, _LEFT)

    # --- clocks and ends ---

    def tick(self) -> None:
        """End every session whose clock has run out, or whose sandbox died by itself."""
        now_sec = self._bench.clock.monotonic_sec()
        for kept in list(self._kept.values()):
            reason = rules.expired(kept.clocks, now_sec) if kept.end is None else None
            if reason is not None:
                self._end(kept, SessionEnd(reason))
            elif kept.sandbox is not None and kept.running is None and not kept.sandbox.alive:
                self._end(kept, SessionEnd(SessionReason.CRASHED, message="Its sandbox died while no job ran in it."))

    async def keep_clocks(self) -> None:
        """Look at the clocks for as long as the worker lives."""
        while True:
            await asyncio.sleep(TICK_SEC)
            self.tick()

    def _end(self, kept: Kept, end: SessionEnd) -> None:
        if kept.end is None:
            kept.end = end
            _log.info("session.ended", session=kept.session_id, reason=str(end.reason))
            winding = self._spawn(self._wind_up(kept, end))
            self._winding.add(winding)
            winding.add_done_callback(self._winding.discard)

    async def _wind_up(self, kept: Kept, end: SessionEnd) -> None:
        await self._tell(_ended(kept.session_id, end))
        await self._free(kept)

    async def _free(self, kept: Kept) -> None:
        if kept.building is not None and kept.building is not asyncio.current_task():
            await asyncio.wait([kept.building])
        if kept.sandbox is not None:
            try:
                async with asyncio.timeout(_CLOSE_SEC):
                    if kept.running is not None:
                        await kept.sandbox.stop(Reason.CANCELLED)
                        await kept.rested.wait()
            except (TimeoutError, CrankError) as fault:
                _log.error("session.job_not_stopped", session=kept.session_id, cause=str(fault))
            await kept.sandbox.close()
        if kept.device is not None:
            self._devices.give_back(kept.device)
            kept.device = None

    def leave(self) -> None:
        """Take no new session; end those that rest now, and the others when their job is over."""
        self._leaving = True
        for kept in self._kept.values():
            if kept.running is None:
                self._end(kept, _LEFT)

    async def settle(self) -> None:
        """Wait until every end that was begun is told and its sandbox is gone."""
        if self._winding:
            await asyncio.wait(self._winding, timeout=_CLOSE_SEC)

    async def stop(self) -> None:
        """Kill everything: the worker ends."""
        for kept in self._kept.values():
            if kept.building is not None:
                kept.building.cancel()
            if kept.sandbox is not None:
                await kept.sandbox.close()

    # --- telling ---

    def listing(self) -> SessionList:
        """Return every session that lives now, as the first word on a new link."""
        live = [kept for kept in self._kept.values() if kept.end is None]
        return SessionList(
            opened=[Opened(kept.session_id, kept.sandbox.tier) for kept in live if kept.sandbox is not None],
            opening=[kept.session_id for kept in live if kept.sandbox is None],
        )

    def names(self) -> list[str]:
        """Return every session that is known, those too whose end is not noted yet."""
        return [str(session_id) for session_id in self._kept]

    async def resume(self, link: ControllerLink) -> None:
        """Tell what may have been missed since `listing`: repeats change nothing."""
        for kept in list(self._kept.values()):
            if (message := _standing(kept)) is not None:
                await link.send(message)

    async def _tell_again(self, kept: Kept) -> None:
        if (message := _standing(kept)) is not None:
            await self._tell(message)

    async def _tell(self, message: Message) -> None:
        # Without a link it is told by `resume` on the next one.
        if self._current.link is not None:
            with suppress(Unavailable):
                await self._current.link.send(message)


_LEFT = SessionEnd(SessionReason.WORKER_LOST, "draining", "Its worker is leaving.")


def _standing(kept: Kept) -> Message | None:
    if kept.end is not None:
        return _ended(kept.session_id, kept.end)
    return None if kept.sandbox is None else Opened(kept.session_id, kept.sandbox.tier)


def _ended(session_id: SessionId, end: SessionEnd) -> Ended:
    job_end = None if end.job_end is None else end_document(end.job_end)
    return Ended(session_id, str(end.reason), end.code, end.message, end.job_id, job_end)


def _session_limits(offer: ScriptOffer, memory_bytes: int | None) -> Limits:
    wanted = offer.limits.memory_bytes if memory_bytes is None else memory_bytes
    least = int(LIMIT_RANGES["memory_bytes"][0])
    return replace(offer.limits, memory_bytes=min(offer.limits.memory_bytes, max(wanted, least)))
