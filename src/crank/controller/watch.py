"""Wakes those who wait for a job or a session to change, without polling the store."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from crank.domain.ids import TenantId


class Watch:
    """One event for each waiter; a change sets all of a job's events."""

    def __init__(self) -> None:
        # Each with whether it waits for an end alone.
        self._waiting: dict[tuple[TenantId, str], dict[asyncio.Event, bool]] = {}
        self.work = asyncio.Event()

    def changed(self, tenant: TenantId, name: str) -> None:
        """Say that the job with this id, its stream, or the session with this id changed."""
        for event in self._waiting.get((tenant, name), ()):
            event.set()

    def moved(self, tenant: TenantId, name: str) -> None:
        """Say the same of a change that is certainly no end: whoever waits for the end sleeps on."""
        for event, ends in self._waiting.get((tenant, name), {}).items():
            if not ends:
                event.set()

    def has(self, tenant: TenantId, name: str) -> bool:
        """Tell whether somebody waits for this job or session now."""
        return (tenant, name) in self._waiting

    @contextmanager
    def on(self, tenant: TenantId, name: str, *, ends: bool = False) -> Iterator[asyncio.Event]:
        """Give an event that is set at every change, or with `ends` where it may be the end; clear it before looking."""
        event = asyncio.Event()
        waiters = self._waiting.setdefault((tenant, name), {})
        waiters[event] = ends
        try:
            yield event
        finally:
            del waiters[event]
            if not waiters:
                self._waiting.pop((tenant, name), None)
