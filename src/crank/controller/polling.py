"""Looks at the publishers of foreign bundles, each as often as its bundle asks for."""

import asyncio
import contextlib

import structlog

from crank.controller.bundles import Trust
from crank.controller.desk import Desk
from crank.controller.federate import kept_bundle, poll, recall
from crank.domain.federation import Federated
from crank.domain.rules.federation import POLL_SEC_MIN, poll_after_sec
from crank.errors import CrankError

# How often it is asked whom to look at: a new federation is fetched when it is added, so nobody waits for this.
LOOK_SEC = 5.0
_US = 1_000_000
_log = structlog.get_logger(__name__)


class Polling:
    """A service of the controller. Stopping twice, or before starting, is legal."""

    def __init__(self, desk: Desk, trust: Trust) -> None:
        self._desk = desk
        self._trust = trust
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Believe what was kept, then look for news. Raises StoreError."""
        await recall(self._desk)
        self._running = asyncio.create_task(self._run(), name="poll-bundles")

    async def stop(self) -> None:
        """End it; what is under way is given up."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running

    async def _run(self) -> None:
        while True:
            try:
                await self.poll_due()
            except CrankError as fault:
                _log.error("service_failed", service="poll-bundles", code=fault.error_code, message=fault.message)
            await asyncio.sleep(LOOK_SEC)

    async def poll_due(self) -> int:
        """Look at every publisher whose time has come; return how many that were. One that hangs delays no other."""
        now_us = self._desk.clock.now_us()
        known = await self._desk.store.read(lambda tx: list(tx.federation.all()))
        due = [each for each in known if self._is_due(each, now_us)]
        outcomes = await asyncio.gather(*(poll(self._desk, each) for each in due), return_exceptions=True)
        for each, outcome in zip(due, outcomes, strict=True):
            # One that was removed meanwhile is nobody's trouble. A defect with one publisher must not silence the rest.
            if isinstance(outcome, Exception) and not isinstance(outcome, CrankError):
                _log.error("poll_failed", trust_domain=each.trust_domain, exc_info=outcome)
        for name in self._trust.bundles.forget_stale():
            _log.error("federation_stale", trust_domain=name, fix="Nobody of it is believed until its publisher answers.")
        return len(due)

    def _is_due(self, federated: Federated, now_us: int) -> bool:
        bundle = kept_bundle(self._trust, federated)
        wait_sec = POLL_SEC_MIN if bundle is None else poll_after_sec(bundle)
        # A clock that was set back must not silence a publisher.
        return not 0 <= now_us - federated.tried_us < wait_sec * _US
