"""What is left of a grant after its holders narrowed it and passed it on by themselves, hop by hop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from crank.domain.chain import Chain, Holder, Hop, Presenter
from crank.domain.grant import Grant, GrantId, Right
from crank.domain.ids import CredentialId
from crank.domain.job import Refusal
from crank.domain.json import JsonObject, JsonValue

_FIELDS = frozenset({"authorization_details", "exp", "depth"})
_MICRO = 1_000_000

# Rights that lie within both lists (`rules.grant.meet_rights`), and rights from their written form, or what is wrong.
Meet = Callable[[Sequence[Right], Sequence[Right]], tuple[Right, ...] | Refusal]
Read = Callable[[JsonValue], tuple[Right, ...] | Refusal]
# How a holder is called, and where a grant's new holder works.
Call = Callable[[Holder], str]
Place = Callable[[Grant], CredentialId]


@dataclass(frozen=True, slots=True)
class Ways:
    """What this rule leaves to others."""

    meet: Meet
    read: Read
    call: Call = lambda holder: holder.name
    place: Place = lambda grant: grant.space


def walk(grant: Grant, chain: Chain, presenter: Presenter, ways: Ways) -> tuple[Grant, ...] | Refusal:
    """Return the grant and what each hop left of it, the last one what the presenter may use, or why it is nobody's.

    Each hop lies within all before it, whatever it says of itself: a hop can only take away. Codes:
    `delegation_not_allowed` (no depth is left), `delegation_not_by_holder`, `hop_unreadable`, `token_not_yours`, and
    those of `meet`.
    """
    grants = [replace(grant, holder_jkt=chain.holder.name)]
    for hop in chain.hops:
        # Who holds it up to here stands in `holder_jkt`, also where that is a SPIFFE ID: only a key ever signs.
        narrowed = _narrowed(grants[-1], hop, ways)
        passed = narrowed if isinstance(narrowed, Refusal) else _passed(narrowed, grants[-1], hop, ways)
        if isinstance(passed, Refusal):
            return passed
        grants.append(passed)
    if grants[-1].holder_jkt not in presenter.names:
        return Refusal(
            "token_not_yours",
            "This token is bound to another key than the one that was proven.",
            "Prove the key that the token was given to, or have it passed on to yours.",
            "authorization",
        )
    grants[-1] = replace(grants[-1], holder_jkt=presenter.jkt)
    return tuple(grants)


def _narrowed(before: Grant, hop: Hop, ways: Ways) -> Grant | Refusal:
    if set(hop.claims) - _FIELDS:
        return _unreadable("it says what this node does not know")
    rights: tuple[Right, ...] | Refusal = before.rights
    if "authorization_details" in hop.claims:
        asked = ways.read(hop.claims["authorization_details"])
        rights = asked if isinstance(asked, Refusal) else ways.meet(asked, before.rights)
    if isinstance(rights, Refusal):
        return rights
    ends = _whole(hop.claims, "exp")
    if isinstance(ends, Refusal):
        return ends
    return replace(
        before,
        grant_id=GrantId(hop.revocation_id),
        parent=before.grant_id,
        rights=rights,
        expires_us=before.expires_us if ends is None else min(before.expires_us, ends * _MICRO),
    )


def _passed(narrowed: Grant, before: Grant, hop: Hop, ways: Ways) -> Grant | Refusal:
    depth = _whole(hop.claims, "depth")
    if isinstance(depth, Refusal):
        return depth
    if hop.holder is None:
        # Signed from outside or limited in depth, it would mean something that nobody checks.
        return narrowed if hop.signer is None and depth is None else _unreadable("it is passed on to nobody")
    if hop.signer is None or hop.signer != before.holder_jkt:
        return Refusal(
            "delegation_not_by_holder",
            "This token was passed on by somebody who did not hold it.",
            "Have its holder pass it on, with their own key.",
            "authorization",
        )
    if before.depth_left <= 0:
        return Refusal(
            "delegation_not_allowed",
            "This token was passed on more often than it may be.",
            "Ask its holder for one that may be passed on, or the node for one of your own.",
            "authorization",
        )
    left = before.depth_left - 1
    passed = replace(
        narrowed,
        holder_jkt=hop.holder.name,
        actors=(ways.call(hop.holder), *before.actors),
        depth_left=left if depth is None else min(left, depth),
    )
    return replace(passed, space=ways.place(passed))


def _whole(claims: JsonObject, name: str) -> int | Refusal | None:
    found = claims.get(name)
    if name in claims and (not isinstance(found, int) or isinstance(found, bool) or found < 0):
        return _unreadable(f"its {name} is no whole number")
    return found


def _unreadable(cause: str) -> Refusal:
    return Refusal(
        "hop_unreadable",
        f"A hop of this token cannot be honoured: {cause}.",
        "Narrow and pass on with 'crank token attenuate'.",
        "authorization",
    )
