"""What a listener shows and believes, replaced for connections from now on; those that are open keep what they proved.

A TLS context can be given another certificate, but a root that it believes cannot be taken from it again. So each
connection is handed the context of the moment, as soon as the other side has begun to speak.
"""

import ssl
from collections.abc import Callable
from typing import Any


class FreshTls:
    """A context for a listener, and the one that stands behind it now.

    make  reads the certificate, its key and the roots from where they are kept. Raises ConfigurationError
    """

    def __init__(self, make: Callable[[], ssl.SSLContext]) -> None:
        self._make = make
        self._current = make()
        # The listener's own: what it demands of a peer at all is taken from here, the rest from the current one.
        self.front = make()
        self.front.sni_callback = self._choose

    def renew(self) -> None:
        """Read everything anew. Raises ConfigurationError; then what stood before stands."""
        self._current = self._make()

    def _choose(self, session: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        session.context = self._current


class ListedTls:
    """As `FreshTls`, and with lists of revocations for as long as they count: without them afterwards.

    TLS believes nobody whose issuer has no list that counts now. So that nobody is locked out by lists that could not be
    made anew, there is a context without them beside the one with them, and each connection is given one of the two.

    make   reads everything, with lists (True) or without; None where there are no lists. Raises ConfigurationError
    count  tells whether the lists that were read last still count
    """

    def __init__(self, make: Callable[[bool], ssl.SSLContext | None], count: Callable[[], bool]) -> None:
        self._make = make
        self._count = count
        self._plain, self._listed = self._read()
        self.front = _Front(ssl.PROTOCOL_TLS_SERVER)
        # Chosen as a connection is accepted: whether lists are asked for is fixed by then, and goes with who has them.
        self.front.choose = self._choose
        self.front.num_tickets = 0

    def renew(self) -> None:
        """Read everything anew. Raises ConfigurationError; then what stood before stands."""
        self._plain, self._listed = self._read()

    def _read(self) -> tuple[ssl.SSLContext, ssl.SSLContext | None]:
        plain = self._make(False)
        assert plain is not None, "only lists may be absent"
        return plain, self._make(True)

    def _choose(self) -> ssl.SSLContext:
        return self._listed if self._listed is not None and self._count() else self._plain


class _Front(ssl.SSLContext):
    """What a listener holds: it has no certificate itself, and leaves each connection to another context."""

    choose: Callable[[], ssl.SSLContext]

    def wrap_bio(self, *words: Any, **more: Any) -> ssl.SSLObject:
        """Begin a connection."""
        return self.choose().wrap_bio(*words, **more)
