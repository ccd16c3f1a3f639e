"""What is revoked, kept in memory because every request of a peer asks for it; the store is the truth."""

from collections.abc import Iterable

from crank.domain.identity import SpiffeId
from crank.domain.issued import Ban, IssuedIdentity
from crank.domain.rules import standing
from crank.domain.trust import Peer
from crank.errors import NotAllowed
from crank.ports import Transaction


class Standing:
    """Who may still be believed. `revision` grows with every change, so that peers can say what they have heard."""

    def __init__(self) -> None:
        self._bans: dict[SpiffeId, Ban] = {}
        self._revoked: dict[str, IssuedIdentity] = {}
        self._names: frozenset[str] = frozenset()
        self.revision = 0

    def load(self, bans: list[Ban], revoked: list[IssuedIdentity]) -> None:
        """Believe what the store says: all bans, and the revoked certificates that have not expired."""
        before = (self._bans, self._revoked)
        self._bans = {ban.spiffe_id: ban for ban in bans}
        self._names = frozenset(str(ban.spiffe_id) for ban in bans)
        self._revoked = {identity.serial: identity for identity in revoked}
        self.revision += before != (self._bans, self._revoked)

    @property
    def bans(self) -> list[Ban]:
        """Return the SPIFFE IDs that are revoked as a whole."""
        return list(self._bans.values())

    @property
    def revoked(self) -> list[IssuedIdentity]:
        """Return the revoked certificates."""
        return list(self._revoked.values())

    def is_banned(self, spiffe_id: SpiffeId) -> bool:
        """Tell whether nothing may be issued to this SPIFFE ID."""
        return spiffe_id in self._bans

    def bars(self, names: Iterable[str]) -> bool:
        """Tell whether one of these, SPIFFE IDs or not, is the name of who was revoked as a whole."""
        return not self._names.isdisjoint(names)

    def is_revoked(self, serial: str) -> bool:
        """Tell whether this certificate was revoked."""
        return serial in self._revoked

    def check(self, peer: Peer, now_us: int) -> None:
        """Let a peer pass that may still be believed. Raises NotAllowed (`identity_revoked`, `identity_expired`)."""
        refused = standing.refusal(peer, banned=self._bans, revoked=self._revoked, now_us=now_us)
        if refused is not None:
            raise NotAllowed(refused.message, code=refused.code, fix=refused.fix)


def read_standing(tx: Transaction, now_us: int) -> tuple[list[Ban], list[IssuedIdentity]]:
    """Return what `Standing.load` takes, inside a transaction."""
    return list(tx.identities.bans()), list(tx.identities.revoked(valid_at_us=now_us))
