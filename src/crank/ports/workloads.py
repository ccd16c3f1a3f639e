"""Workloads: the store of what was registered, who vouches for a caller, and where their keys come from."""

import socket
from collections.abc import Callable, Sequence
from typing import Protocol

from crank.domain.ids import TenantId
from crank.domain.json import JsonObject
from crank.domain.workload import EntryId, Selector, WorkloadEntry


class WorkloadStore(Protocol):
    """Registered workloads, inside one transaction."""

    def insert(self, entry: WorkloadEntry) -> None:
        """Add an entry. Raises Conflict (`hint_taken`, `entry_taken`: its id, or the same identity for the same marks)."""
        ...

    def all(self) -> Sequence[WorkloadEntry]:
        """Return the entries of every tenant, oldest first."""
        ...

    def of(self, tenant: TenantId) -> Sequence[WorkloadEntry]:
        """Return a tenant's entries, oldest first."""
        ...

    def find(self, tenant: TenantId, entry_id: EntryId) -> WorkloadEntry | None:
        """Return an entry, or None."""
        ...

    def remove(self, tenant: TenantId, entry_id: EntryId) -> bool:
        """Remove an entry; tell whether it was there."""
        ...


class Caller(Protocol):
    """The process at the other end of one local connection, as the kernel knows it."""

    @property
    def uid(self) -> int:
        """Return the account that connected."""
        ...

    def marks(self, *, digest: bool) -> frozenset[Selector]:
        """Return what is true of the process now. Blocking; looks anew at each call.

        digest  whether the program's SHA-256 is wanted, too
        Raises NotAllowed (`caller_changed`) when the process ended, became another program, or cannot be vouched for;
        Unavailable (`machine_short`) when this machine has no room to look.
        """
        ...


class CallerWitness(Protocol):
    """Takes connections of local processes and keeps to whom each belongs."""

    def listen(self, path: str, *, shared: bool) -> socket.socket:
        """Make the socket; `shared` lets every local account connect. Raises ConfigurationError."""
        ...

    def receive(self, connection: socket.socket) -> tuple[socket.socket, Caller]:
        """Return an accepted connection as one that only its own process can speak through, and that process. Blocking.

        Raises NotAllowed (`caller_unknown`) when the kernel does not tell who connected; the connection is closed then.
        """
        ...


class JwtSvidReader(Protocol):
    """Reads JWT-SVIDs: signature and form; what their claims mean is decided elsewhere. Quick, without effects."""

    def read(self, token: str, keys_of: Callable[[str], Sequence[JsonObject]]) -> JsonObject:
        """Return the claims of a token that one of the keys signed which `keys_of` gives for its subject.

        Raises InvalidRequest (`invalid_jwt_svid`), and what `keys_of` raises.
        """
        ...


class KeyMaker(Protocol):
    """Makes private keys for others; keeps none."""

    def make(self) -> tuple[bytes, bytes]:
        """Return a new P-256 key: private (DER, PKCS#8, unencrypted) and public (DER SubjectPublicKeyInfo)."""
        ...
