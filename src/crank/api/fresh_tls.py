"""What a listener shows and believes, replaced for connections from now on; those that are open keep what they proved.

A TLS context can be given another certificate, but a root that it believes cannot be taken from it again. So each
connection is handed the context of the moment, as soon as the other side has begun to speak.
"""

import ssl
from collections.abc import Callable


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
