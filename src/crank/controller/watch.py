"""Wakes those who wait for a job or a session to change, without polling the store."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from crank.domain.ids import TenantId


class Watch:
    """One event for each waiter; a change sets all of a job's events."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[TenantId, str], set[asyncio.Event]] = {}
        self.work = asyncio.Event()

    def changed(self, tenant: TenantId, name: str) -> None:
        """Say that the job with this id, its stream, or the session with this id changed."""
        for event in self._waiting.get((tenant, name), ()):
            event.set()

    def has(self, tenant: TenantId, name: str) -> bool:
        """Tell whether somebody waits for this job or session now."""
        return (tenant, name) in self._waiting

    @contextmanager
    def on(self, tenant: TenantId, name: str) -> Iterator[asyncio.Event]:
        """Give an event that is set at every change; clear it before looking."""
        event = asyncio.Event()
        waiters = self._waiting.setdefault((tenant, name), set())
        waiters.add(event)
        try:
            yield event
        finally:
            waiters.discard(event)
            if not waiters:
                self._waiting.pop((tenant, name), None)
