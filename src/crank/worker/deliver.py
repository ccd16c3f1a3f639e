"""Deliver: tell the controller of one attempt over one link, from wherever the last link left off.

A delivery can be cut at any point and begun again on the next link: every message is either a repeat
that the controller drops (Started, events by their number, Finished by its epoch) or new to it. Equal contents
are brought once, and the controller is asked only for what it had from this attempt before: how long a delivery
takes says nothing about what others left there.
"""

import asyncio
import hashlib
import io
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import structlog

from crank.domain.ids import Digest
from crank.domain.json import JsonObject, dumps
from crank.errors import InvalidRequest, NotFound, TooLarge, Unavailable
from crank.ports import ControllerLink
from crank.wire import OUTCOME_INLINE_BYTES_MAX, Finished, Output, Started
from crank.worker.attempt import Attempt, Bench
from crank.worker.feed import GATHER_SEC

_log = structlog.get_logger(__name__)

# Of one delivery; the link has a bound of its own for all of them together.
UPLOADS_AT_ONCE = 8
_PAUSE_SEC = 0.2
_PAUSE_SEC_MAX = 10.0


async def deliver(attempt: Attempt, link: ControllerLink, bench: Bench) -> None:
    """Send what is there and what comes, until `Finished` is sent or the link is gone."""
    try:
        await _events(attempt, link)
        attempt.carrying = True
        try:
            document = await _artifacts(attempt, link, bench)
        finally:
            attempt.carrying = False
        while attempt.retell:
            attempt.retell = False
            await _events(attempt, link)
        bench.failpoints.reach("worker.uploaded")
        await _finished(attempt, link, document, bench)
        bench.failpoints.reach("worker.finished_sent")
    except Unavailable as fault:
        _log.info("delivery.cut", job_id=attempt.job_id, epoch=attempt.epoch, cause=fault.message)


async def _events(attempt: Attempt, link: ControllerLink) -> None:
    told = False
    while True:
        attempt.feed.changed.clear()
        # Read before the events: nothing is added to the feed once there is an outcome.
        finished = attempt.outcome is not None
        if attempt.started and not told:
            await link.send(Started(attempt.job_id, attempt.epoch))
            told = True
        while batch := attempt.feed.batch():
            await link.send(Output(attempt.job_id, attempt.epoch, batch))
        if finished:
            return
        await attempt.feed.changed.wait()
        if told:
            # Output comes in small pieces; but an end waits for nothing.
            await asyncio.wait([attempt.over], timeout=GATHER_SEC)


async def _artifacts(attempt: Attempt, link: ControllerLink, bench: Bench) -> JsonObject:
    """Upload the artifacts; return the outcome with those that the controller refuses named as skipped."""
    document = attempt.outcome
    assert document is not None
    sizes = {Digest(artifact["sha256"]): artifact["size_bytes"] for artifact in document["artifacts"]}
    causes = await _hand_over(attempt, link, bench, sizes)
    kept: list[Any] = []
    refused: list[JsonObject] = []
    for artifact in document["artifacts"]:
        cause = causes[Digest(artifact["sha256"])]
        if cause is None:
            kept.append(artifact)
        else:
            refused.append({"path": artifact["path"], "cause": cause})
    return {**document, "artifacts": kept, "skipped": [*document["skipped"], *refused]}


async def _hand_over(
    attempt: Attempt, link: ControllerLink, bench: Bench, sizes: Mapping[Digest, int]
) -> dict[Digest, str | None]:
    """Bring each content once, some at a time; return for each why it can never be taken, or None."""
    causes: dict[Digest, str | None] = {}
    waiting = iter(sizes.items())

    async def carry() -> None:
        for digest, size_bytes in waiting:
            causes[digest] = await _artifact(attempt, link, bench, digest, size_bytes)

    carrying = [asyncio.ensure_future(carry()) for _ in range(min(UPLOADS_AT_ONCE, len(sizes)))]
    try:
        await asyncio.gather(*carrying)
    finally:
        # After a fault of one, or when the link is gone: none goes on behind the delivery's back.
        for each in carrying:
            each.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)
    return causes


async def _artifact(
    attempt: Attempt, link: ControllerLink, bench: Bench, digest: Digest, size_bytes: int
) -> str | None:
    if digest in attempt.known:
        with suppress(Unavailable):
            if await link.has_blob(digest):
                return None
    try:
        source = await asyncio.to_thread(bench.spool.open_blob, attempt.job_id, attempt.epoch, digest)
    except NotFound:
        return "The worker lost it before it was handed over."
    with source:
        cause = await _upload(link, bench, digest, source, size_bytes)
    if cause is None:
        attempt.known.add(digest)
    return cause


async def _upload(link: ControllerLink, bench: Bench, digest: Digest, source: Any, size_bytes: int) -> str | None:
    """Send one blob, trying again while the link stands; return why it can never be taken, or None."""
    pause_sec = _PAUSE_SEC
    while True:
        source.seek(0)
        try:
            await link.send_blob(digest, source, size_bytes)
            return None
        except (TooLarge, InvalidRequest) as fault:
            return fault.message
        except Unavailable as fault:
            # When the link itself is gone, this delivery is cancelled during the pause.
            _log.warning("blob.not_taken", sha256=digest, cause=fault.message)
            await asyncio.sleep(pause_sec * (0.5 + bench.ids.jitter() / 2))
            pause_sec = min(pause_sec * 2, _PAUSE_SEC_MAX)


async def _finished(attempt: Attempt, link: ControllerLink, document: JsonObject, bench: Bench) -> None:
    encoded = dumps(document).encode()
    if len(encoded) <= OUTCOME_INLINE_BYTES_MAX:
        await link.send(Finished(attempt.job_id, attempt.epoch, document, None))
        return
    digest = Digest(hashlib.sha256(encoded).hexdigest())
    refused = await _upload(link, bench, digest, io.BytesIO(encoded), len(encoded))
    if refused is not None:
        raise Unavailable(f"The controller does not take the outcome: {refused}", code="outcome_not_taken")
    await link.send(Finished(attempt.job_id, attempt.epoch, None, digest))
