"""Token exchange (RFC 8693) as a decision: who the new holder is, in whose name, and how much may be passed on."""

import hashlib
from dataclasses import dataclass, replace
from typing import Final

from crank.domain.credential import Credential
from crank.domain.grant import (
    DEPTH_MAX,
    OF_A_KEY,
    OF_THE_OWNER,
    THUMBPRINT_URN,
    Ceiling,
    Grant,
    GrantId,
    Right,
)
from crank.domain.ids import CredentialId
from crank.domain.job import Refusal

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a kind
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
# A grant as a Biscuit; as with keys of this node, no standard has a name for it.
BISCUIT: Final = "urn:crank:params:token-type:biscuit"
# An API key of this node. No standard has a name for such a thing, so it has one of ours.
API_KEY: Final = "urn:crank:params:token-type:api-key"
_SPACE_DIGITS = 16
_FAR_US = 2**62
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Subject:
    """What is exchanged: the authority that it holds, and who holds it.

    grant     the one that is exchanged; None: a key itself
    identity  SPIFFE ID of the workload that a role lets act by the key; None: whoever holds the key
    """

    credential: Credential
    grant: Grant | None = None
    identity: str | None = None

    @property
    def name(self) -> str:
        """Return for whom what comes of it acts."""
        if self.grant is not None:
            return self.grant.subject
        return self.credential.subject if self.identity is None else self.identity

    @property
    def held(self) -> Ceiling:
        """Return the most that can come of it."""
        if self.grant is not None:
            return Ceiling(self.grant.rights, self.grant.expires_us, self.grant.depth_left)
        rights = self.credential.rights
        if rights is None:
            rights = OF_A_KEY if self.credential.bounded else OF_THE_OWNER
        ends_us = self.credential.expires_us
        return Ceiling(rights, _FAR_US if ends_us is None else ends_us, DEPTH_MAX)


@dataclass(frozen=True, slots=True)
class NewHolder:
    """Who shall hold what comes of it.

    actor  how a proven credential or peer is called; None: the same principal as before
    jkt    the key that it will be bound to; None: none
    """

    actor: str | None
    jkt: str | None


def new_holder(
    subject: Subject, *, proven: str | None, named: str | None, actor: str | None, actor_jkt: str | None
) -> NewHolder | Refusal:
    """Decide who holds the new token, and see that whoever asks may give it to them.

    proven     thumbprint of the key that the request proves
    named      one that it names for the next holder
    actor      who acts from now on, as their own proven credential says; actor_jkt the key that it is bound to
    """
    own = None if subject.grant is None else subject.grant.holder_jkt
    if own is not None and proven != own:
        return Refusal(
            "holder_not_proven",
            "The token to be exchanged is bound to a key, and the request does not prove that key.",
            "Let its holder ask, with a DPoP proof by its key.",
            "subject_token",
        )
    if actor_jkt is not None:
        if named not in (None, actor_jkt):
            return Refusal(
                "holder_contradicted",
                "The actor's token is bound to another key than the one that is named.",
                "Leave holder_jkt out, or name the actor's own key.",
                "holder_jkt",
            )
        return NewHolder(actor, actor_jkt)
    if named is not None and named != proven:
        # A key that nobody vouches for is called by itself.
        return NewHolder(actor if actor is not None else THUMBPRINT_URN + named, named)
    if actor is not None and own is not None:
        # The proof is by the one who gives, not by the one who shall act.
        return NewHolder(actor, None)
    return NewHolder(actor, proven)


def delegates(subject: Subject, holder: NewHolder) -> bool:
    """Tell whether a token passes from one holder to another, rather than from a key to its first."""
    return subject.grant is not None and holder.actor is not None


def delegation_refusal(subject: Subject, holder: NewHolder) -> Refusal | None:
    """Return why this may not be passed on to somebody else, or None."""
    if not delegates(subject, holder) or (subject.grant is not None and subject.grant.depth_left > 0):
        return None
    return Refusal(
        "delegation_not_allowed",
        "This token may not be passed on to another holder.",
        "Ask whoever gave it to you for one that may, or for one in the other's name.",
        "subject_token",
    )


def issue(
    subject: Subject,
    holder: NewHolder,
    granted: Ceiling,
    *,
    grant_id: GrantId,
    now_us: int,
    depth_wanted: int | None = None,
) -> Grant:
    """Make the new grant; it begins and ends at whole seconds, which is what a token can say."""
    before = subject.grant
    depth = granted.depth - 1 if delegates(subject, holder) else granted.depth
    actors = before.actors if before is not None else ()
    made = Grant(
        grant_id=grant_id,
        tenant=subject.credential.tenant,
        credential_id=subject.credential.credential_id,
        subject=subject.name,
        rights=_stable(granted.rights),
        issued_us=now_us // _US * _US,
        expires_us=granted.expires_us // _US * _US,
        actors=actors if holder.actor is None else (holder.actor, *actors),
        holder_jkt=holder.jkt,
        parent=None if before is None else before.grant_id,
        depth_left=max(0, depth if depth_wanted is None else min(depth, depth_wanted)),
    )
    return replace(made, space=_space(subject, holder, made))


def _stable(rights: tuple[Right, ...]) -> tuple[Right, ...]:
    return tuple(sorted(rights, key=lambda right: (right.capability, right.version or "")))


def _space(subject: Subject, holder: NewHolder, made: Grant) -> CredentialId:
    """Return where the new holder works.

    The same principal goes on where it worked. A key's own tokens work where the key does. Everybody else has a space
    of their own, the same one each time they are given a token in the same name, which nobody else can be given.
    """
    credential = subject.credential
    if holder.actor is None:
        if subject.grant is not None:
            return subject.grant.space
        if subject.identity is not None:
            return _named_space(credential, "identity", subject.identity)
        if credential.bounded:
            return credential.credential_id
        # The owner's jobs are not for whoever holds one token of theirs.
        return _named_space(credential, "key", made.holder_jkt or made.grant_id)
    return _named_space(credential, "actors", made.subject, *made.actors)


def holders_space(grant: Grant) -> CredentialId:
    """Return where the holder works whom a grant was passed on to without this node."""
    return _space_of(grant.tenant, grant.credential_id, "actors", grant.subject, *grant.actors)


def _named_space(credential: Credential, *parts: str) -> CredentialId:
    return _space_of(credential.tenant, credential.credential_id, *parts)


def _space_of(*parts: str) -> CredentialId:
    text = "\0".join(parts)
    return CredentialId("g-" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_SPACE_DIGITS])
