"""The issuing tier: a key in memory alone, signed by the authority, replaced by itself at half of its life."""

import threading

from crank.adapters.authority.files import new_key
from crank.adapters.authority.linter import lint_chain, lint_signing
from crank.adapters.authority.shapes import Shapes, Signer

# Twelve lives of the longest leaf are left when it is replaced.
ISSUING_SEC = 24 * 3600.0
_HALF = 0.5


class Issuing:
    """The issuing key of one authority."""

    def __init__(self, authority: Signer, shapes: Shapes, *, life_sec: float = ISSUING_SEC) -> None:
        self.authority = authority
        self._shapes = shapes
        self._life_sec = life_sec
        self._lock = threading.Lock()
        self._current: Signer | None = None

    def signer(self) -> Signer:
        """Return the key to sign with now. Raises ConfigurationError when the authority's key cannot be used."""
        with self._lock:
            if self._current is None or self._shapes.is_gone(self._current.certificate, _HALF):
                self._current = self._make()
            return self._current

    def current(self) -> Signer | None:
        """Return the key that signed last; None before the first."""
        with self._lock:
            return self._current

    def _make(self) -> Signer:
        key = new_key()
        certificate = self._shapes.issuing(key.public_key(), self.authority, self._life_sec)
        lint_signing(certificate, self.authority.certificate, self._shapes.trust_domain)
        # Once for each issuing key: a leaf below it needs no proof of what lies above.
        lint_chain((certificate, self.authority.certificate))
        return Signer(key, certificate)
