"""The two ends of the connection between a worker and its controller."""

from collections.abc import AsyncIterator
from typing import BinaryIO, Protocol

from crank.domain.ids import Digest
from crank.wire import Message, Trust


class WorkerLink(Protocol):
    """The controller's side of one open connection to a worker."""

    async def send(self, message: Message) -> None:
        """Send one message. Raises Unavailable when the connection is gone."""
        ...

    async def close(self, code: str, message: str) -> None:
        """End the connection, telling why."""
        ...


class ControllerLink(Protocol):
    """The worker's side of one open connection to its controller."""

    async def send(self, message: Message) -> None:
        """Send one message. Raises Unavailable when the connection is gone."""
        ...

    def messages(self) -> AsyncIterator[Message]:
        """Yield messages until the connection ends.

        Raises ProtocolError; Unavailable (`identity_revoked`, `identity_expired`) when that is why it ended.
        """
        ...

    async def fetch_blob(self, digest: Digest, target: BinaryIO) -> None:
        """Copy a blob from the controller into `target`, and check it. Raises NotFound, Unavailable."""
        ...

    async def has_blob(self, digest: Digest) -> bool:
        """Tell whether the controller has a blob that this worker brought, or that a job of its own uses.

        Of any other the answer is no, whether it is there or not. Raises Unavailable.
        """
        ...

    async def send_blob(self, digest: Digest, source: BinaryIO, size_bytes: int) -> None:
        """Copy a blob to the controller; doing it twice changes nothing. Raises Unavailable, TooLarge, InvalidRequest."""
        ...

    async def close(self) -> None:
        """End the connection. Safe to call twice."""
        ...


class Connector(Protocol):
    """Opens links to the controller."""

    async def connect(self) -> ControllerLink:
        """Open a mutually authenticated link.

        Raises Unavailable when nobody answers, UntrustedPeer when the controller cannot prove who it is.
        """
        ...


class OwnIdentity(Protocol):
    """What a worker shows its peers, and by what it checks them. A new certificate is for the connections to come."""

    def due_in_sec(self) -> float:
        """Return in how many seconds half of the certificate's life is over, by this machine's clock."""
        ...

    async def renew(self) -> float:
        """Get the next certificate; return in how many seconds the one after it is due, whatever this clock says.

        Raises Unavailable, NotAllowed (`identity_revoked`, `identity_unknown`), ProtocolError, UntrustedPeer.
        """
        ...

    def doubt(self) -> None:
        """Show another certificate from now on, where there is one: the controller does not believe this one."""
        ...

    def believe(self, trust: Trust) -> None:
        """Check peers by this from now on. Raises ProtocolError when it cannot be read; then nothing changes."""
        ...
