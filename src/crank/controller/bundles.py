"""Whom this node believes at this moment: its own trust domain, and those that it is federated with, each by itself."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crank.controller.followers import Followers
from crank.domain.rules import root_rotation
from crank.domain.trust import TrustBundle
from crank.ports import Authority, BundleFormat, BundlePublishers, Clock

# Callers that are remembered, and how many looks one may miss until nobody waits for it any more.
POLLERS_MAX = 256
POLLS_MISSED_MAX = 3
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Published:
    """Our bundle as text, with the entity tag that stands for exactly these bytes."""

    bundle: TrustBundle
    raw: bytes
    tag: str


class Bundles:
    """Bundles by the name of their trust domain. They are never merged: whoever verifies asks for one domain's."""

    def __init__(self, authority: Authority, clock: Clock) -> None:
        self._authority = authority
        self._clock = clock
        self._foreign: dict[str, tuple[TrustBundle, int]] = {}
        self._changed = asyncio.Event()
        self.generation = 0
        # How many callers wait for the next bundle of our own, and which of it proven ones showed that they have.
        self.waiting = 0
        # Written once for each bundle, however many ask.
        self.published: Published | None = None
        self._pollers = Followers(POLLERS_MAX)
        # Since when it is known who asks, and when somebody asked last of whom nothing is known.
        self._since_us = clock.now_us()
        self._asked_us: int | None = None

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

    def forget_stale(self) -> Sequence[str]:
        """Drop the bundles that were not confirmed for too long, so that followers hear of it; return their domains."""
        stale = [name for name in self._foreign if self.find(name) is None]
        for name in stale:
            self.drop(name)
        return stale

    def acknowledged(self, subject: str, sequence: int) -> None:
        """Note that a proven caller has our bundle of this sequence."""
        self._pollers.acknowledged(subject, sequence, self._clock.now_us())

    def behind(self, sequence: int) -> Sequence[str]:
        """Return the proven callers that follow our bundle and do not have this sequence yet."""
        since_us = self._clock.now_us() - POLLS_MISSED_MAX * self._authority.bundle().refresh_hint_sec * _US
        return self._pollers.behind(sequence, since_us)

    def asked(self) -> None:
        """Note that somebody asked for our bundle who did not say, as one that is proven, which one they have."""
        self._asked_us = self._clock.now_us()

    def may_be_followed(self, born_us: int) -> bool:
        """Tell whether somebody may follow our bundle who never says which one they have; `born_us`: since when there is one."""
        return root_rotation.may_be_followed(
            asked_us=self._asked_us,
            since_us=self._since_us,
            born_us=born_us,
            hint_sec=self._authority.bundle().refresh_hint_sec,
            now_us=self._clock.now_us(),
        )

    async def changed(self, generation: int) -> int:
        """Return the generation of the foreign bundles once it is another than this one."""
        while self.generation == generation:
            await self._changed.wait()
        return self.generation

    def _tell(self) -> None:
        self.generation += 1
        self._changed.set()
        self._changed = asyncio.Event()


@dataclass(frozen=True, slots=True)
class Trust:
    """What a controller needs to publish its own bundle and to keep those of others.

    publishers  asks for foreign bundles
    """

    authority: Authority
    bundles: Bundles
    bundle_format: BundleFormat
    publishers: BundlePublishers
