"""Issued identities of the store in memory."""

from collections.abc import Sequence
from dataclasses import replace

from crank.domain.identity import SpiffeId
from crank.domain.issued import Ban, IssuedIdentity
from crank.domain.workload import EntryId
from crank.errors import Conflict, NotFound
from crank.testing.memory_state import Part


class Identities(Part):
    """Keeps the promises of `ports.IdentityStore`; a dict keeps the order of insertion."""

    def insert(self, identity: IssuedIdentity) -> None:
        """Add a certificate. Raises Conflict (`serial_taken`)."""
        state = self._change()
        if identity.serial in state.identities:
            raise Conflict(f"A certificate has the serial {identity.serial} already.", code="serial_taken")
        state.identities[identity.serial] = identity

    def find(self, serial: str) -> IssuedIdentity | None:
        """Return the certificate with this serial, or None."""
        return self._state.identities.get(serial)

    def of(self, spiffe_id: SpiffeId, *, valid_at_us: int) -> Sequence[IssuedIdentity]:
        """Return the certificates of a SPIFFE ID that expire after that time, oldest first."""
        return [one for one in self._valid(valid_at_us) if one.spiffe_id == spiffe_id]

    def of_workload(self, entry_id: EntryId, *, valid_at_us: int) -> Sequence[IssuedIdentity]:
        """Return the certificates of a workload's entry that expire after that time, oldest first."""
        return [one for one in self._valid(valid_at_us) if one.workload == entry_id]

    def page(self, *, limit: int, valid_at_us: int) -> Sequence[IssuedIdentity]:
        """Return certificates that expire after that time, newest first."""
        return self._valid(valid_at_us)[::-1][:limit]

    def revoke(self, serial: str, at_us: int, reason: str) -> None:
        """Note that a certificate was revoked; the first time and reason stay. Raises NotFound."""
        state = self._change()
        found = state.identities.get(serial)
        if found is None:
            raise NotFound("There is no such certificate.", code="identity_not_found")
        if found.revoked_us is None:
            state.identities[serial] = replace(found, revoked_us=at_us, reason=reason)

    def revoked(self, *, valid_at_us: int) -> Sequence[IssuedIdentity]:
        """Return the revoked certificates that expire after that time, oldest first."""
        return [one for one in self._valid(valid_at_us) if one.revoked_us is not None]

    def ban(self, ban: Ban) -> None:
        """Note that a SPIFFE ID gets no certificate; the first time and reason stay."""
        self._change().bans.setdefault(ban.spiffe_id, ban)

    def lift(self, spiffe_id: SpiffeId) -> bool:
        """Let a SPIFFE ID get certificates again; tell whether it was banned."""
        return self._change().bans.pop(spiffe_id, None) is not None

    def is_banned(self, spiffe_id: SpiffeId) -> bool:
        """Tell whether a SPIFFE ID is banned."""
        return spiffe_id in self._state.bans

    def bans(self) -> Sequence[Ban]:
        """Return all bans, by SPIFFE ID."""
        return sorted(self._state.bans.values(), key=lambda ban: str(ban.spiffe_id))

    def purge(self, before_us: int) -> int:
        """Forget certificates that expired before that time; return how many."""
        state = self._change()
        old = [one.serial for one in state.identities.values() if one.not_after_us < before_us]
        for serial in old:
            del state.identities[serial]
        return len(old)

    def next_number(self) -> int:
        """Return the number of the next list of revocations."""
        state = self._change()
        state.revocation_lists += 1
        return state.revocation_lists

    def _valid(self, at_us: int) -> list[IssuedIdentity]:
        return [one for one in self._state.identities.values() if one.not_after_us > at_us]
