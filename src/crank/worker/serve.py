"""Serve: a worker's life. It connects out, enrolls, beats, takes leases, and comes back after every cut."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import structlog

from crank.domain.capability import Accelerator
from crank.domain.ids import Digest, JobId
from crank.domain.outcome import End, Outcome, Reason
from crank.domain.rules import slots
from crank.domain.rules.standing import IDENTITY_EXPIRED, IDENTITY_NOT_ACCEPTED, IDENTITY_REVOKED
from crank.domain.worker import GpuDevice
from crank.errors import NotAllowed, ProtocolError, Unavailable, UntrustedPeer
from crank.ports import Connector, ControllerLink
from crank.wire import (
    HELLO_SINCE,
    TRUST_SINCE,
    VERSION_MAX,
    Beat,
    Cancel,
    Close,
    Declined,
    Draining,
    Files,
    Held,
    Hello,
    Holding,
    Interrupt,
    Lease,
    Message,
    Noted,
    Open,
    Pool,
    Pools,
    Rejected,
    Settled,
    Stdin,
    Touch,
    Trust,
    Trusted,
    Welcome,
)
from crank.wire.calls import CallAnswer
from crank.worker.attempt import Attempt, Bench, Key
from crank.worker.current import CurrentLink, Relay
from crank.worker.deliver import deliver
from crank.worker.devices import DevicePool
from crank.worker.execute import Order, Seat, execute, keep
from crank.worker.hand_over import WELCOME_SEC, Way, follow
from crank.worker.identity import WorkerIdentity
from crank.worker.offers import Offer, find_offer, lowered, unfit
from crank.worker.reach import Reach
from crank.worker.renewing import Renewing
from crank.worker.sessions import Kept, SessionBounds, Sessions

_log = structlog.get_logger(__name__)

EXIT_LEFT = 0
EXIT_REJECTED = 4
DRAIN_SEC = 30.0
BACKOFF_FIRST_SEC = 0.2
BACKOFF_MAX_SEC = 10.0
REFUSED_BACKOFF_MAX_SEC = 30.0
# Words of a controller that no second try will change.
_FOR_GOOD = frozenset({"version_mismatch", "identity_mismatch", "not_allowed", "not_supported", "too_deep"})


class Worker:
    """One worker process. `run` ends when it was drained or is not wanted; everything else it survives."""

    def __init__(
        self,
        connector: Connector,
        identity: WorkerIdentity,
        *,
        offers: Sequence[Offer],
        bench: Bench,
        slots: int,
        devices: Sequence[GpuDevice] = (),
        bounds: SessionBounds | None = None,
    ) -> None:
        self._connector = connector
        self._renewing = None if identity.own is None else Renewing(identity.own, bench.clock, bench.ids)
        self._identity = identity
        self._offers = tuple(offers)
        self._bench = bench
        self._slots = slots
        self._devices = DevicePool(devices)
        self._current = CurrentLink()
        self._attempts: dict[Key, Attempt] = {}
        self._interrupted: set[Key] = set()
        self._deliveries: dict[Key, asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[Any]] = set()
        self._changed = asyncio.Event()
        self._leave = asyncio.Event()
        self._draining = False
        self._sessions = Sessions(
            bench, self._current, self._devices, bounds=bounds or SessionBounds(), spawn=self._spawn
        )
        self._reach = Reach(self._attempts, self._sessions, self._current, bench)

    # --- life ---

    async def run(self) -> int:
        """Serve until drained (exit code 0) or turned away for good (exit code 4)."""
        try:
            await self._restore()
            self._spawn(self._sessions.keep_clocks())
            if self._renewing is not None:
                self._spawn(self._renewing.keep())
            return await self._serve()
        finally:
            await self._stop()

    def drain(self, *, limit_sec: float = DRAIN_SEC) -> None:
        """Take no new lease, wait for what runs, then leave. Safe in a signal handler; once is enough."""
        if not self._draining:
            self._draining = True
            self._spawn(self._drain(limit_sec))

    async def _serve(self) -> int:
        failures = 0
        while not self._leave.is_set():
            longest_sec = BACKOFF_MAX_SEC
            # Asked before: a certificate that comes while the link is opened is not the one that it shows.
            shown = 0 if self._renewing is None else self._renewing.generation
            try:
                link = await self._connector.connect()
                welcomed, rejected = await self._meet(link, shown)
                failures = 0 if welcomed else failures + 1
                if rejected is not None:
                    longest_sec = REFUSED_BACKOFF_MAX_SEC
                    if rejected.code.startswith("invalid_") or rejected.code in _FOR_GOOD:
                        return EXIT_REJECTED
            except NotAllowed as fault:
                failures += 1
                longest_sec = REFUSED_BACKOFF_MAX_SEC
                _log.error(fault.message, code=fault.error_code, fix=fault.fix)
                self._heed(fault.error_code)
            except UntrustedPeer as fault:
                failures += 1
                longest_sec = REFUSED_BACKOFF_MAX_SEC
                _log.error(f"This worker refuses the controller: {fault.message}", code=fault.error_code, fix=fault.fix)
            except Unavailable as fault:
                failures += 1
                _log.warning("link.unavailable", code=fault.error_code, cause=fault.message, tries=failures)
                self._heed(fault.error_code)
            await self._back_off(failures, longest_sec)
        return EXIT_LEFT

    async def _back_off(self, failures: int, longest_sec: float) -> None:
        ceiling = min(longest_sec, BACKOFF_FIRST_SEC * 2 ** min(failures, 16))
        # Full jitter, so that workers that lost one controller do not return in step.
        with suppress(TimeoutError):
            await asyncio.wait_for(self._leave.wait(), ceiling * self._bench.ids.jitter())

    async def _drain(self, limit_sec: float) -> None:
        _log.info("worker.draining", running=len(self._attempts))
        self._sessions.leave()
        if self._current.link is not None:
            with suppress(Unavailable):
                await self._current.link.send(Draining())
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_sec):
                while self._attempts:
                    self._changed.clear()
                    await self._changed.wait()
        await self._sessions.settle()
        self._leave.set()

    async def _stop(self) -> None:
        self._detach()
        for attempt in list(self._attempts.values()):
            # What still runs is cut off here; its note in the spool says so at the next start.
            await attempt.abandon()
        await self._sessions.stop()
        for work in list(self._background):
            work.cancel()
        if self._background:
            await asyncio.wait(self._background)

    async def _restore(self) -> None:
        for spooled in await asyncio.to_thread(self._bench.spool.attempts):
            key = spooled.job_id, spooled.epoch
            document = await asyncio.to_thread(self._bench.spool.outcome, *key) if spooled.finished else None
            if document is None:
                self._interrupted.add(key)
            else:
                self._attempts[key] = Attempt(*key, live_bytes_max=0, outcome=document)

    # --- one link ---

    async def _meet(self, link: ControllerLink, shown: int) -> tuple[bool, Rejected | None]:
        """Enroll on a link and serve on it to its end. Tell whether it was welcome, and who turned it away."""
        welcomed = False
        relay = Relay(link)
        try:
            await relay.send(self.hello(renews=False))
            stream = relay.messages()
            async with asyncio.timeout(WELCOME_SEC):
                first = await anext(stream, None)
            if isinstance(first, Rejected):
                _log.error(f"The controller turned this worker away: {first.message}", code=first.code, fix=first.fix)
                self._heed(first.code)
                return False, first
            if not isinstance(first, Welcome):
                raise ProtocolError("The controller did not answer hello with welcome or rejected.")
            welcomed = True
            await self._enrolled(relay, first, stream, shown)
        except (Unavailable, ProtocolError, TimeoutError) as fault:
            code = getattr(fault, "error_code", "timeout")
            _log.warning("link.lost", code=code, cause=str(fault) or "no answer in time")
            self._heed(code)
        finally:
            self._detach()
            await relay.close()
        return welcomed, None

    def _heed(self, code: str) -> None:
        """Act on what the controller said of this identity. Of one that was revoked it has decided all that ran."""
        if self._renewing is not None and code in (IDENTITY_REVOKED, IDENTITY_EXPIRED, IDENTITY_NOT_ACCEPTED):
            self._renewing.own.doubt()
        if code == IDENTITY_REVOKED:
            for key in [attempt.key for attempt in self._attempts.values() if attempt.outcome is None]:
                self._settled(key)

    def hello(self, *, renews: bool) -> Hello:
        """Return the first message of a link."""
        holding = self._holding()
        holding += [Holding(job_id, epoch, "interrupted") for job_id, epoch in sorted(self._interrupted)]
        return Hello(
            version_min=HELLO_SINCE,
            version_max=VERSION_MAX,
            worker_id=self._identity.worker_id,
            instance_id=self._identity.instance_id,
            node_id=self._identity.node_id,
            software=self._identity.software,
            slots=self._slots,
            capabilities=[],
            holding=holding,
            renews=renews,
            manifest=self._identity.sign(self._offers, self._bench.clock, self._bench.ids),
        )

    def _holding(self) -> list[Holding]:
        return [Holding(attempt.job_id, attempt.epoch, attempt.phase) for attempt in self._attempts.values()]

    async def _enrolled(self, relay: Relay, welcome: Welcome, stream: AsyncIterator[Message], shown: int) -> None:
        _log.info("worker.enrolled", controller=welcome.controller_id, holding=len(welcome.resumed))
        # Before anything else is said, so that the controller knows what it may send.
        await relay.send(self._sessions.listing())
        self._current.put(relay)
        self.resume(welcome, relay)
        await self._sessions.resume(relay)
        if self._draining:
            await relay.send(Draining())
        parts: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._beat(relay, welcome.beat_sec)),
            asyncio.create_task(self._follow(relay, stream, shown, hands_over=welcome.version >= TRUST_SINCE)),
            asyncio.create_task(self._leave.wait()),
        ]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.wait(parts)
        for part in done:
            part.result()

    async def _follow(self, relay: Relay, stream: AsyncIterator[Message], shown: int, *, hands_over: bool) -> None:
        """Read a link to its end, and the next one after each renewal of the certificate."""
        if self._renewing is None or not hands_over:
            await self.read(stream)
        else:
            await follow(self, relay, stream, Way(self._connector, self._renewing, self._bench.ids, shown))

    async def pause(self) -> None:
        """Stop what tells of events; what carries bytes goes on."""
        telling = [key for key in self._deliveries if key not in self._attempts or not self._attempts[key].carrying]
        stopped = [self._deliveries.pop(key) for key in telling]
        for delivery in stopped:
            delivery.cancel()
        if stopped:
            await asyncio.wait(stopped)

    def held(self) -> Held:
        """Return all that is held now."""
        return Held(self._holding(), self._sessions.names())

    async def tell_sessions(self, link: ControllerLink) -> None:
        """Tell of sessions what may have been missed."""
        await self._sessions.resume(link)

    async def _beat(self, link: ControllerLink, beat_sec: float) -> None:
        told: list[Pool] = []
        while True:
            await link.send(Beat(self._free()))
            kept = self._bench.sandbox.pools() if self._bench.sandbox is not None else ()
            pools = [Pool(pool.profile, pool.parked, pool.burnt) for pool in kept]
            if pools != told:
                await link.send(Pools(pools))
                told = pools
            await asyncio.sleep(beat_sec)

    async def read(self, stream: AsyncIterator[Message]) -> None:
        """Act on every message until the link ends. Raises ProtocolError, Unavailable."""
        async for message in stream:
            match message:
                case Lease():
                    await self._lease(message)
                case Cancel() | CallAnswer():
                    self._of_attempt(message)
                case Settled():
                    self._settled((JobId(message.job_id), message.epoch))
                case Open() | Touch() | Close() | Noted():
                    self._session(message)
                case Interrupt() | Stdin() | Files():
                    self._spawn(self._reach.answer(message))
                case Trust():
                    await self._believe(message)
                case _:
                    raise ProtocolError(f"A controller may not send {type(message).__name__} now.")

    def _of_attempt(self, message: Cancel | CallAnswer) -> None:
        attempt = self._attempts.get((JobId(message.job_id), message.epoch))
        if isinstance(message, CallAnswer) and attempt is not None:
            attempt.answered(message)
        elif attempt is not None:
            self._spawn(attempt.cancel())

    async def _believe(self, trust: Trust) -> None:
        if self._renewing is not None:
            self._renewing.own.believe(trust)
            link = await self._current.wait()
            await link.send(Trusted(trust.sequence, trust.revision))

    def _session(self, message: Open | Touch | Close | Noted) -> None:
        match message:
            case Open():
                self._sessions.open(message, find_offer(self._offers, message))
            case Touch():
                self._sessions.touch(message)
            case Close():
                self._sessions.close(message)
            case Noted():
                self._sessions.noted(message.session_id)

    def resume(self, welcome: Welcome, link: ControllerLink) -> None:
        """Tell everything that the controller has not heard, on this link."""
        answered = {(JobId(entry.job_id), entry.epoch): entry for entry in welcome.resumed}
        for key in self._interrupted & set(answered):
            self._interrupted.discard(key)
            self._spawn(self._forget(key))
        for key, attempt in list(self._attempts.items()):
            entry = answered.get(key)
            if entry is not None and entry.verdict == "abandon":
                self._settled(key)
                continue
            if key in self._deliveries and entry is None:
                # Its lease came by the older link just now; its delivery begins on this one.
                continue
            attempt.feed.rewind(entry.next_seq if entry is not None else 1)
            if key in self._deliveries and attempt.carrying:
                attempt.retell = True
                continue
            if key in self._deliveries:
                self._deliveries.pop(key).cancel()
            self._deliver(attempt, link)

    def _deliver(self, attempt: Attempt, link: ControllerLink) -> None:
        self._deliveries[attempt.key] = self._spawn(deliver(attempt, link, self._bench))

    def _detach(self) -> None:
        self._current.clear()
        for delivery in self._deliveries.values():
            delivery.cancel()
        self._deliveries.clear()

    # --- leases ---

    def _free(self, *, called_for: bool = False) -> int:
        running = [attempt for attempt in self._attempts.values() if attempt.outcome is None]
        waiting = sum(attempt.waiting for attempt in running)
        called = sum(attempt.called for attempt in running)
        return slots.free(self._slots, len(running), waiting, called, called_for=called_for)

    async def _lease(self, lease: Lease) -> None:
        link = await self._current.wait()
        key = (JobId(lease.job_id), lease.epoch)
        if key in self._attempts:
            return
        for older in [held for held in self._attempts if held[0] == key[0]]:
            # One job under two leases: the controller has given up on the older one.
            self._settled(older)
        offer = find_offer(self._offers, lease)
        objection = self._objection(lease, offer)
        if objection is not None or offer is None:
            await link.send(Declined(lease.job_id, lease.epoch, *(objection or ("unknown_capability", ""))))
            return
        kept = None if lease.session_id is None else self._sessions.enter(lease)
        if isinstance(kept, tuple):
            await link.send(Declined(lease.job_id, lease.epoch, *kept))
            return
        device = self._devices.take() if kept is None and offer.capability.accelerator is Accelerator.GPU else None
        attempt = Attempt(*key, live_bytes_max=lowered(offer.limits, lease).output_bytes)
        attempt.known.update(Digest(file.sha256) for file in lease.files)
        attempt.called = lease.called
        self._attempts[key] = attempt
        attempt.work = self._spawn(self._work(attempt, Order(lease, offer, device, self._seat(kept))))
        self._deliver(attempt, link)

    def _seat(self, kept: Kept | None) -> Seat | None:
        return None if kept is None else Seat(self._sessions, kept)

    def _objection(self, lease: Lease, offer: Offer | None) -> tuple[str, str] | None:
        if self._draining:
            return "draining", "This worker is leaving."
        if offer is None:
            return "unknown_capability", f"This worker does not offer {lease.capability} on {lease.accelerator}."
        if not self._free(called_for=lease.called):
            return "busy", "Every slot of this worker is taken."
        needs_gpu = offer.capability.accelerator is Accelerator.GPU and lease.session_id is None
        if needs_gpu and not self._devices.free:
            return "busy", "Every GPU of this worker is held by a job."
        return unfit(offer, lease)

    async def _work(self, attempt: Attempt, order: Order) -> None:
        try:
            (fault,) = await asyncio.gather(execute(attempt, order, self._bench, self._current), return_exceptions=True)
            if isinstance(fault, Exception):
                _log.error("attempt.defect", job_id=attempt.job_id, exc_info=fault)
                end = End(Reason.SANDBOX_FAILED, code="internal_error", message="The worker failed; its log says how.")
                await keep(attempt, Outcome(end=end), self._bench)
        finally:
            if order.device is not None:
                self._devices.give_back(order.device)
            if order.seat is not None:
                # Left already, unless it was cut off before there was a run.
                self._sessions.rest(order.seat.kept, attempt.job_id, None)

    def _settled(self, key: Key) -> None:
        attempt = self._drop(key)
        if attempt is not None:
            self._spawn(self._forget(key, attempt))

    def _drop(self, key: Key) -> Attempt | None:
        delivery = self._deliveries.pop(key, None)
        if delivery is not None:
            delivery.cancel()
        attempt = self._attempts.pop(key, None)
        self._changed.set()
        return attempt

    async def _forget(self, key: Key, attempt: Attempt | None = None) -> None:
        if attempt is not None:
            await attempt.abandon()
        try:
            await asyncio.to_thread(self._bench.spool.forget, *key)
        except Unavailable as fault:
            # Harmless: at the next start it is told again, and the controller answers that it knows.
            _log.warning("spool.not_forgotten", job_id=key[0], cause=fault.message)

    # --- tasks of the event loop ---

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        running = asyncio.create_task(work)
        self._background.add(running)
        running.add_done_callback(self._ended)
        return running

    def _ended(self, work: asyncio.Task[Any]) -> None:
        self._background.discard(work)
        if not work.cancelled() and work.exception() is not None:
            _log.error("worker.defect", exc_info=work.exception())
