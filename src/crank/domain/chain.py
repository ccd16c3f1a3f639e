"""A chain: a token that its holders narrow and pass on by themselves, one signed hop after the other."""

from dataclasses import dataclass, field

from crank.domain.json import JsonObject


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
    spiffe_id  whom a certificate for that key names; None: there was none
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
