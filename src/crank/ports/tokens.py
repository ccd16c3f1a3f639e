"""What reads tokens and proofs: it checks signature and form; what their claims mean is decided elsewhere."""

from typing import Protocol

from crank.domain.json import JsonObject


class TokenReader(Protocol):
    """Reads tokens of one kind, signed by one set of keys. Quick, without effects, safe in threads."""

    def read(self, token: str) -> JsonObject:
        """Return the claims of a token that a key of this set signed.

        Raises NotAuthenticated (`invalid_token`) for every other: another kind, algorithm, key or spelling.
        """
        ...


class ProofReader(Protocol):
    """Reads proofs that somebody holds a key (RFC 9449)."""

    def read(self, proof: str) -> tuple[JsonObject, str]:
        """Return a proof's claims, and the RFC 7638 thumbprint of the key that signed it.

        Raises NotAuthenticated (`invalid_dpop_proof`).
        """
        ...
