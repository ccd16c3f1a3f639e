"""Wakes those who wait for a job to change, without polling the store."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from crank.domain.ids import JobId, TenantId


class Watch:
    """One event for each waiter; a change sets all of a job's events."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[TenantId, JobId], set[asyncio.Event]] = {}
        self.work = asyncio.Event()

    def changed(self, tenant: TenantId, job_id: JobId) -> None:
        """Say that the job or its stream changed."""
        for event in self._waiting.get((tenant, job_id), ()):
            event.set()

    @contextmanager
    def on(self, tenant: TenantId, job_id: JobId) -> Iterator[asyncio.Event]:
        """Give an event that is set at every change; clear it before looking."""
        event = asyncio.Event()
        waiters = self._waiting.setdefault((tenant, job_id), set())
        waiters.add(event)
        try:
            yield event
        finally:
            waiters.discard(event)
            if not waiters:
                self._waiting.pop((tenant, job_id), None)
