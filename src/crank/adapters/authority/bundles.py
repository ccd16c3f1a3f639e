"""The bundle as it stands, and everybody who waits for the next one; safe in threads."""

import asyncio
import contextlib
import hashlib
import json
import threading

from crank.domain.trust import TrustBundle

REFRESH_HINT_SEC = 300


class Bundles:
    """Holds one bundle; waiters sit in event loops, changes may come from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current: TrustBundle | None = None
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def current(self) -> TrustBundle | None:
        """Return the bundle, or None before the first."""
        with self._lock:
            return self._current

    def put(self, bundle: TrustBundle) -> None:
        """Replace the bundle and wake whoever waits."""
        with self._lock:
            self._current = bundle
            waiting = tuple(self._waiting)
        for loop, changed in waiting:
            # A loop that has ended waits for nothing.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(changed.set)

    async def next(self, sequence: int) -> TrustBundle:
        """Return the bundle once its sequence is another than this one."""
        entry = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiting.add(entry)
        try:
            while True:
                current = self.current()
                if current is not None and current.sequence != sequence:
                    return current
                await entry[1].wait()
                entry[1].clear()
        finally:
            with self._lock:
                self._waiting.discard(entry)


def digest_of(bundle: TrustBundle) -> str:
    """Return a digest of all that a bundle says, its sequence left out."""
    said = {
        "trust_domain": bundle.trust_domain,
        "refresh_hint_sec": bundle.refresh_hint_sec,
        "x509": [each.hex() for each in bundle.x509_authorities],
        "jwt": [each.jwk for each in bundle.jwt_authorities],
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
