"""The list of revocations (CRL) for who is not told by a link: signed when it changed, or when the last one ages."""

import asyncio
from dataclasses import dataclass

from crank.controller.desk import Desk
from crank.controller.issue import authority_of

# Clients may believe a list for so long; a new one is signed after half of that.
NEXT_UPDATE_SEC = 3600.0
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A signed list (DER, RFC 5280 section 5); `number` grows with every one that is signed."""

    der: bytes
    number: int
    made_us: int
    revision: int
    sequence: int


class RevocationLists:
    """Keeps the last list, so that nobody who asks often makes the node sign often."""

    def __init__(self) -> None:
        self._last: RevocationList | None = None
        self._gate = asyncio.Lock()

    async def current(self, desk: Desk) -> RevocationList:
        """Return the list of now. Raises Unavailable where this desk has no authority, or the disk is full."""
        async with self._gate:
            if self._last is None or self._is_old(desk, self._last):
                self._last = await _sign(desk)
            return self._last

    def _is_old(self, desk: Desk, last: RevocationList) -> bool:
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
    der = authority.sign_revocations(entries, number=number, next_update_sec=NEXT_UPDATE_SEC)
    return RevocationList(der, number, now_us, revision, sequence)
