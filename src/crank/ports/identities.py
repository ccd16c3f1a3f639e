"""What was issued and what was revoked, inside one transaction."""

from collections.abc import Sequence
from typing import Protocol

from crank.domain.identity import SpiffeId
from crank.domain.issued import Ban, IssuedIdentity
from crank.domain.workload import EntryId


class IdentityStore(Protocol):
    """Certificates by their serial, and the SPIFFE IDs that get none."""

    def insert(self, identity: IssuedIdentity) -> None:
        """Add a certificate. Raises Conflict (`serial_taken`)."""
        ...

    def find(self, serial: str) -> IssuedIdentity | None:
        """Return the certificate with this serial, or None."""
        ...

    def of(self, spiffe_id: SpiffeId, *, valid_at_us: int) -> Sequence[IssuedIdentity]:
        """Return the certificates of a SPIFFE ID that expire after that time, oldest first, the revoked ones too."""
        ...

    def of_workload(self, entry_id: EntryId, *, valid_at_us: int) -> Sequence[IssuedIdentity]:
        """Return the certificates of a workload's entry that expire after that time, oldest first, the revoked ones too."""
        ...

    def page(self, *, limit: int, valid_at_us: int) -> Sequence[IssuedIdentity]:
        """Return certificates that expire after that time, newest first, the revoked ones too."""
        ...

    def revoke(self, serial: str, at_us: int, reason: str) -> None:
        """Note that a certificate was revoked; the first time and reason stay. Raises NotFound."""
        ...

    def revoked(self, *, valid_at_us: int) -> Sequence[IssuedIdentity]:
        """Return the revoked certificates that expire after that time, oldest first."""
        ...

    def ban(self, ban: Ban) -> None:
        """Note that a SPIFFE ID gets no certificate; the first time and reason stay."""
        ...

    def lift(self, spiffe_id: SpiffeId) -> bool:
        """Let a SPIFFE ID get certificates again; tell whether it was banned."""
        ...

    def is_banned(self, spiffe_id: SpiffeId) -> bool:
        """Tell whether a SPIFFE ID is banned."""
        ...

    def bans(self) -> Sequence[Ban]:
        """Return all bans, by SPIFFE ID."""
        ...

    def purge(self, before_us: int) -> int:
        """Forget certificates that expired before that time; return how many. Bans stay."""
        ...

    def next_number(self) -> int:
        """Return the number of the next list of revocations: greater than every one before, from 1."""
        ...
