"""Publish: our own bundle for whoever asks, at once or when it changes. It is no secret; that it comes from us TLS proves."""

import asyncio
import contextlib
import hashlib
import re
from collections.abc import Collection

from crank.controller.bundles import Published, Trust

# Callers that nobody knows may hold a connection while they wait: so many, and no more.
WAITERS_MAX = 512
_TAG = re.compile(r'"([0-9]{1,19})-[0-9a-f]{16}"')


async def publish(trust: Trust, *, seen: Collection[str], wait_sec: float = 0) -> Published:
    """Return our bundle; where the caller has seen it already, wait so long for the next one.

    seen  entity tags
    """
    now = _published(trust)
    if now.tag in seen and wait_sec > 0 and trust.bundles.waiting < WAITERS_MAX:
        trust.bundles.waiting += 1
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_sec):
                    await trust.authority.next_bundle(now.bundle.sequence)
        finally:
            trust.bundles.waiting -= 1
        now = _published(trust)
    return now


def acknowledge(trust: Trust, *, subject: str, seen: Collection[str]) -> bool:
    """Note that a proven caller has our bundle, by the entity tags that it showed; tell whether it showed one."""
    shown = [int(match[1]) for tag in seen if (match := _TAG.fullmatch(tag)) is not None]
    if shown:
        trust.bundles.acknowledged(subject, max(shown))
    return bool(shown)


def _published(trust: Trust) -> Published:
    bundle, known = trust.authority.bundle(), trust.bundles.published
    if known is None or known.bundle is not bundle:
        raw = trust.bundle_format.write(bundle)
        tag = f'"{bundle.sequence}-{hashlib.sha256(raw).hexdigest()[:16]}"'
        known = trust.bundles.published = Published(bundle, raw, tag)
    return known
