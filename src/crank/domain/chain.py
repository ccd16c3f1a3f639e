"""A chain: a token that its holders narrow and pass on by themselves, one signed hop after the other."""

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

from crank.domain.json import JsonObject

_COORDINATE_BYTES = 32
# A key's number, then the first block, then its content: no secret of a key is so long and begins so.
_KEY_NUMBER, _FIRST_BLOCK, _CONTENT = 0x08, 0x12, 0x0A
_HEAD_CHARS = 20
_CHAIN_CHARS_MIN = 300


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom a token is bound to.

    name        RFC 7638 SHA-256 thumbprint of their P-256 key, or their SPIFFE ID
    public_key  that key as a compressed point (SEC 1, 33 bytes); None: only the name is known, so they cannot pass it on
    """

    name: str
    public_key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Presenter:
    """Who shows a token now, as the verifier proved it.

    jkt        thumbprint of the key that they proved
    spiffe_id  whom the connection's certificate names, by whatever the key was proven; None: there was none
    """

    jkt: str
    spiffe_id: str | None = None

    @property
    def names(self) -> frozenset[str]:
        """Return every name by which a token may be bound to them."""
        return frozenset(name for name in (self.jkt, self.spiffe_id) if name)


@dataclass(frozen=True, slots=True)
class Hop:
    """One block after the first. It only takes away.

    revocation_id  names this hop alone, whatever its signature's encoding; ends all that follows it
    signer         thumbprint of the key that signed it as a third party; None: anybody who had the token
    holder         whom it is passed on to; None: it stays with whom it was
    claims         what it leaves: `authorization_details`, `exp`, `depth`, each only where it takes something away
    """

    revocation_id: str
    signer: str | None
    holder: Holder | None
    claims: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chain:
    """A token's content: the claims that the issuer signed, whom it was given to, and the hops since."""

    revocation_id: str
    claims: JsonObject
    holder: Holder
    hops: tuple[Hop, ...] = ()

    @property
    def revocation_ids(self) -> tuple[str, ...]:
        """Return the ids of all blocks, the first one's first. One of them revoked ends the token."""
        return (self.revocation_id, *(hop.revocation_id for hop in self.hops))

    @property
    def present_holder(self) -> Holder:
        """Return whom it was passed on to last."""
        return next((hop.holder for hop in reversed(self.hops) if hop.holder is not None), self.holder)


def looks_like_chain(text: str) -> bool:
    """Tell whether a credential is a Biscuit that names its key, by its length and its first bytes."""
    if len(text) < _CHAIN_CHARS_MIN or not text.isascii():
        return False
    try:
        head = base64.b64decode(text[:_HEAD_CHARS], b"-_", validate=True)
    except binascii.Error:
        return False
    block = _after_varint(head, 1) if head[0] == _KEY_NUMBER else None
    content = _after_varint(head, block + 1) if block is not None and head[block] == _FIRST_BLOCK else None
    return content is not None and head[content] == _CONTENT


def _after_varint(head: bytes, start: int) -> int | None:
    """Return where a number of at most five bytes has ended."""
    return next((place + 1 for place in range(start, start + 5) if head[place] < 0x80), None)


def point_of_jwk(jwk: JsonObject) -> bytes | None:
    """Return a public P-256 JWK, whose form was checked, as a compressed point; None where it is none."""
    parts = [_coordinate(jwk.get(name)) for name in ("x", "y")]
    if parts[0] is None or parts[1] is None:
        return None
    return bytes([2 + (parts[1][-1] & 1)]) + parts[0]


def _coordinate(text: Any) -> bytes | None:
    try:
        raw = base64.urlsafe_b64decode(text + "=")
    except (TypeError, ValueError):
        return None
    return raw if len(raw) == _COORDINATE_BYTES else None
