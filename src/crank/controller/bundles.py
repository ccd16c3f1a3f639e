"""Whom this node believes at this moment: its own trust domain, and those that it is federated with, each by itself."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from crank.domain.trust import TrustBundle
from crank.ports import Authority, BundleFormat, BundlePublishers, Clock


class Bundles:
    """Bundles by the name of their trust domain. They are never merged: whoever verifies asks for one domain's."""

    def __init__(self, authority: Authority, clock: Clock) -> None:
        self._authority = authority
        self._clock = clock
        self._foreign: dict[str, tuple[TrustBundle, int]] = {}
        self._changed = asyncio.Event()
        self.generation = 0
        # How many callers wait for the next bundle of our own.
        self.waiting = 0

    def find(self, trust_domain: str) -> TrustBundle | None:
        """Return the bundle of a domain; None for one that is not known, or was not confirmed for too long."""
        if trust_domain == self._authority.trust_domain:
            return self._authority.bundle()
        bundle, until_us = self._foreign.get(trust_domain, (None, 0))
        return bundle if self._clock.now_us() < until_us else None

    def foreign(self) -> Mapping[str, TrustBundle]:
        """Return the bundles of the other domains that are believed now, by name."""
        found = ((name, self.find(name)) for name in sorted(self._foreign))
        return {name: bundle for name, bundle in found if bundle is not None}

    def put(self, bundle: TrustBundle, until_us: int) -> None:
        """Believe a foreign domain's bundle until then."""
        assert bundle.trust_domain != self._authority.trust_domain, "nobody else says whom to believe in our own domain"
        before = self._foreign.get(bundle.trust_domain)
        self._foreign[bundle.trust_domain] = (bundle, until_us)
        if before is None or before[0] != bundle:
            self._tell()

    def drop(self, trust_domain: str) -> None:
        """Believe nobody of a foreign domain any more."""
        if self._foreign.pop(trust_domain, None) is not None:
            self._tell()

    async def changed(self, generation: int) -> int:
        """Return the generation of the foreign bundles once it is another than this one."""
        while self.generation == generation:
            await self._changed.wait()
        return self.generation

    def _tell(self) -> None:
        self.generation += 1
        self._changed.set()
        self._changed = asyncio.Event()


def nobody_counts(_subject: str, _sequence: int) -> None:
    """Let it be: nothing waits for acknowledgements."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What a controller needs to publish its own bundle and to keep those of others.

    publishers    asks for foreign bundles
    acknowledged  told who, proven, has our bundle of which sequence; what rotates roots waits for that
    """

    authority: Authority
    bundles: Bundles
    bundle_format: BundleFormat
    publishers: BundlePublishers
    acknowledged: Callable[[str, int], None] = nobody_counts
