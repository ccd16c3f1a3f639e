"""The lists of revocations (CRL) for who is not told by a link: signed when something changed, or when the last ones age."""

import asyncio
import base64
from dataclasses import dataclass

from crank.controller.desk import Desk
from crank.controller.issue import authority_of
from crank.domain.trust import SignedLists

# Clients may believe a list for so long; a new one is signed after half of that.
NEXT_UPDATE_SEC = 3600.0
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class RevocationList:
    """What is revoked, signed by everybody whose leaves may live; `number` grows with every time that it is signed."""

    lists: SignedLists
    number: int
    made_us: int
    revision: int
    sequence: int

    @property
    def der(self) -> bytes:
        """Return the list of the authority that signs."""
        return self.lists.by_authorities[0]

    @property
    def pem(self) -> bytes:
        """Return every list, as a file holds them."""
        return b"".join(
            b"-----BEGIN X509 CRL-----\n%s-----END X509 CRL-----\n" % base64.encodebytes(one) for one in self.lists.all
        )


class RevocationLists:
    """Keeps what was signed last, so that nobody who asks often, and no number of them, makes the node sign often."""

    def __init__(self) -> None:
        self._last: RevocationList | None = None
        self._gate = asyncio.Lock()

    async def current(self, desk: Desk) -> RevocationList:
        """Return what is revoked now. Raises Unavailable where this desk has no authority, or the disk is full."""
        async with self._gate:
            if self._last is None or self.is_old(desk, self._last):
                self._last = await _sign(desk)
            return self._last

    def is_old(self, desk: Desk, last: RevocationList) -> bool:
        """Tell whether something changed since, or half of the time for which this one may be believed is over."""
        aged = desk.clock.now_us() - last.made_us
        changed = last.revision != desk.standing.revision or last.sequence != authority_of(desk).bundle().sequence
        return changed or not 0 <= aged < NEXT_UPDATE_SEC * _US / 2


async def _sign(desk: Desk) -> RevocationList:
    authority, now_us = authority_of(desk), desk.clock.now_us()
    revision, sequence = desk.standing.revision, authority.bundle().sequence
    # What has expired since needs no entry: no chain that holds it is valid.
    entries = [
        (one.serial, one.revoked_us)
        for one in desk.standing.revoked
        if one.revoked_us is not None and one.not_after_us > now_us
    ]
    number = await desk.store.transact(lambda tx: tx.identities.next_number())
    # Thousands of entries take a while, and so does a key in a module of its own.
    lists = await asyncio.to_thread(
        authority.sign_revocations, entries, number=number, next_update_sec=NEXT_UPDATE_SEC
    )
    return RevocationList(lists, number, now_us, revision, sequence)
