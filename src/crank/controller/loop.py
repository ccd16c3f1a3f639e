"""The controller's background services: dispatch when there is work, reap each second, sweep each hour."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from crank.controller.attended import end_unattended, recall
from crank.controller.cut_off import cut_off_all
from crank.controller.desk import Desk
from crank.controller.dispatch import BATCH_JOBS_MAX, dispatch
from crank.controller.forsake import end_forsaken
from crank.controller.identities import load_standing
from crank.controller.reap import reap, sweep
from crank.controller.tell_trust import follow_bundle
from crank.errors import CrankError

REAP_EVERY_SEC = 1.0
SWEEP_EVERY_SEC = 3600.0
# A certificate that expires in mid-connection is believed for no longer than this beyond its end.
CUT_OFF_EVERY_SEC = 1.0
LOOK_AGAIN_SEC = 0.5
_log = structlog.get_logger(__name__)


class ControllerLoop:
    """Owns the services. Stopping twice, or before starting, is legal."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._running: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin; jobs that were held before a restart get the length of a lease to be claimed again."""
        if self._running:
            return
        await recall(self._desk)
        await load_standing(self._desk)
        self._desk.watch.work.set()
        self._running = [
            asyncio.create_task(self._dispatch(), name="dispatch"),
            asyncio.create_task(self._every(REAP_EVERY_SEC, reap), name="reap"),
            asyncio.create_task(self._every(REAP_EVERY_SEC, end_unattended), name="end-unattended"),
            asyncio.create_task(self._every(REAP_EVERY_SEC, end_forsaken), name="end-forsaken"),
            asyncio.create_task(self._every(SWEEP_EVERY_SEC, sweep), name="sweep"),
            asyncio.create_task(self._every(CUT_OFF_EVERY_SEC, cut_off_all), name="cut-off"),
        ]
        if self._desk.authority is not None:
            self._running.append(asyncio.create_task(follow_bundle(self._desk), name="follow-bundle"))

    async def stop(self) -> None:
        """End the services."""
        for service in self._running:
            service.cancel()
        for service in self._running:
            with contextlib.suppress(asyncio.CancelledError):
                await service
        self._running = []

    async def _dispatch(self) -> None:
        work = self._desk.watch.work
        while True:
            # The time-out only covers a paused worker that becomes free without saying so.
            # (asyncio.timeout, because wait_for can swallow a cancellation on Python 3.11.)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN_SEC):
                    await work.wait()
            work.clear()
            try:
                while await dispatch(self._desk) == BATCH_JOBS_MAX:
                    pass
            except CrankError as fault:
                _log.error("dispatch_failed", code=fault.error_code, message=fault.message, detail=fault.detail)
                await asyncio.sleep(1.0)

    async def _every(self, period_sec: float, service: Callable[[Desk], Awaitable[int]]) -> None:
        while True:
            await asyncio.sleep(period_sec)
            try:
                await service(self._desk)
            except CrankError as fault:
                _log.error("service_failed", service=str(service), code=fault.error_code, message=fault.message)
