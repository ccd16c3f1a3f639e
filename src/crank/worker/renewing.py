"""Renewing: when a worker gets its next certificate, and when it tries again."""

import asyncio

import structlog

from crank.domain.rules.standing import IDENTITY_REVOKED
from crank.errors import CrankError
from crank.ports import Clock, IdSource, OwnIdentity

_log = structlog.get_logger(__name__)

TICK_SEC = 0.25
RETRY_FIRST_SEC = 1.0
RETRY_MAX_SEC = 30.0
# At most this share of the time until a renewal is due is taken off it: many workers do not come at once.
_SPREAD = 0.2


class Renewing:
    """Renews by a monotonic clock, in seconds that the controller counts: a clock that is set changes nothing.

    `generation` grows with every new certificate: a link shows the one that there was when it was opened.
    """

    def __init__(self, own: OwnIdentity, clock: Clock, ids: IdSource) -> None:
        self.own = own
        self.generation = 0
        self._changed = asyncio.Event()
        self._clock = clock
        self._ids = ids
        self._failures = 0
        self._due_at_sec = self._after(own.due_in_sec())

    async def keep(self) -> None:
        """Renew for as long as the worker lives."""
        while True:
            await self.tick()
            await asyncio.sleep(TICK_SEC)

    async def tick(self) -> None:
        """Renew if it is due."""
        if self._clock.monotonic_sec() < self._due_at_sec:
            return
        try:
            due_in_sec = await self.own.renew()
        except CrankError as fault:
            self._failures += 1
            self._due_at_sec = self._clock.monotonic_sec() + self._pause_sec(fault)
            _log.error("identity_not_renewed", code=fault.error_code, cause=fault.message, fix=fault.fix,
                       tries=self._failures)  # fmt: skip
            return
        self._failures = 0
        self._due_at_sec = self._after(due_in_sec)
        self.generation += 1
        self._changed.set()
        _log.info("identity_renewed", next_in_sec=round(due_in_sec, 1))

    async def newer_than(self, generation: int) -> None:
        """Wait until there is a certificate that a link of this generation does not show."""
        while self.generation <= generation:
            self._changed.clear()
            await self._changed.wait()

    def _after(self, due_in_sec: float) -> float:
        return self._clock.monotonic_sec() + due_in_sec * (1 - _SPREAD * self._ids.jitter())

    def _pause_sec(self, fault: CrankError) -> float:
        if fault.error_code == IDENTITY_REVOKED:
            # Only the operator changes that.
            return RETRY_MAX_SEC
        ceiling_sec: float = min(RETRY_MAX_SEC, RETRY_FIRST_SEC * 2.0 ** min(self._failures - 1, 16))
        return ceiling_sec * (0.5 + self._ids.jitter() / 2)
