"""What a grant allows: how authority is narrowed on its way from one holder to the next, and whether it covers a call.

Nothing here can widen: each result lies within every side that it was made from, in every field. A token's content is
made by `narrow`, and a call is let through by `covering`, for the grant itself and for each grant above it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product

from crank.domain.grant import (
    CONSTRAINTS_MAX,
    DEPTH_MAX,
    EVERYTHING,
    MOUNTS_MAX,
    NODE_PREFIX,
    OF_A_KEY,
    OF_THE_OWNER,
    RIGHTS_MAX,
    Ceiling,
    Grant,
    Right,
)
from crank.domain.ids import MountId
from crank.domain.job import Refusal
from crank.domain.json import JsonObject, JsonValue, canonical

__all__ = [
    "CONSTRAINTS_MAX",
    "DEPTH_MAX",
    "EVERYTHING",
    "MOUNTS_MAX",
    "NODE_PREFIX",
    "OF_A_KEY",
    "OF_THE_OWNER",
    "RIGHTS_MAX",
    "Call",
    "Ceiling",
    "Satisfies",
    "could_have_made",
    "covering",
    "is_within",
    "lasts",
    "lives",
    "meet",
    "meet_rights",
    "names_whole",
    "narrow",
    "reaches",
    "spent",
    "within",
]

# Each is compared with each; lists that meet more often than this are no honest request.
_PAIRS_MAX = 4 * RIGHTS_MAX
_MICRO = 1_000_000


@dataclass(frozen=True, slots=True)
class Call:
    """What somebody wants to do.

    version  as asked for; None: any
    mounts   each with the name it has on the node, None where it has none
    has_code whether something is run that the caller wrote or chose: a script, a program, what goes to its stdin, or
             the jobs of a session
    """

    capability: str
    version: str | None = None
    args: JsonValue = None
    mounts: tuple[tuple[MountId, str | None], ...] = ()
    has_code: bool = False


# Whether args satisfy a schema: the pure side does not know who checks.
Satisfies = Callable[[JsonObject, JsonValue], bool]


def within(inner: str, outer: str) -> bool:
    """Tell whether one pattern of capabilities names nothing that the other does not."""
    if outer == EVERYTHING:
        return not inner.startswith(NODE_PREFIX)
    if outer.endswith(".*"):
        return inner == outer or (inner != EVERYTHING and inner.startswith(outer[:-1]))
    return inner == outer


def narrow(requested: Ceiling, *others: Ceiling) -> Ceiling | Refusal:
    """Return what lies within all of them, or why nothing does (`nothing_granted`, `too_many_rights`)."""
    rights = requested.rights
    for other in others:
        met = meet_rights(rights, other.rights)
        if isinstance(met, Refusal):
            return met
        rights = met
    sides = (requested, *others)
    if not rights:
        return Refusal(
            "nothing_granted",
            "Nothing of what is asked for is both held and allowed.",
            "Ask for capabilities that the token or key you exchange may use, and that the role gives.",
            "authorization_details",
        )
    return Ceiling(rights, min(side.expires_us for side in sides), max(0, min(side.depth for side in sides)))


def meet_rights(left: Sequence[Right], right: Sequence[Right]) -> tuple[Right, ...] | Refusal:
    """Return the rights that lie within both lists.

    Where one limited right meets several, its limit is shared out among them: their sum is never more than it was.
    """
    texts = _Texts()
    met_ones = ((a, b, met) for a, b in product(left, right) if (met := meet(a, b, texts)) is not None)
    pairs = list(islice(met_ones, _PAIRS_MAX + 1))
    among = [met for _, _, met in pairs]
    is_too_much = len(pairs) > _PAIRS_MAX
    kept = [] if is_too_much else [one for place, one in enumerate(pairs) if not _is_idle(one[2], place, among, texts)]
    if is_too_much or len(kept) > RIGHTS_MAX:
        return Refusal(
            "too_many_rights",
            f"What both sides allow takes more than {RIGHTS_MAX} rights to write down.",
            "Ask for fewer capabilities, or for a pattern that holds them.",
            "authorization_details",
        )
    result = [
        replace(
            met,
            calls_max=_share([(a, a.calls_max), (b, b.calls_max)], kept, place),
            budget_max=_share([(a, a.budget_max), (b, b.budget_max)], kept, place),
        )
        for place, (a, b, met) in enumerate(kept)
    ]
    return tuple(one for one in result if one.calls_max != 0)


_Pair = tuple[Right, Right, Right]


class _Texts:
    """Constraints in their canonical form: rights are compared each with each, and each is written once."""

    def __init__(self) -> None:
        # With the right itself, so that its number is nobody else's meanwhile.
        self._known: dict[int, tuple[Right, dict[bytes, JsonObject]]] = {}

    def of(self, right: Right) -> dict[bytes, JsonObject]:
        known = self._known.get(id(right))
        if known is None:
            known = self._known[id(right)] = right, {canonical(schema): schema for schema in right.constraints}
        return known[1]


def _share(sources: Sequence[tuple[Right, int | None]], kept: Sequence[_Pair], place: int) -> int | None:
    """Return what this result gets of its sources' limits: the first ones get what cannot be divided."""
    limit = None
    for side, (source, own) in enumerate(sources):
        if own is None:
            continue
        mine = [index for index, pair in enumerate(kept) if pair[side] is source]
        whole, rest = divmod(own, len(mine))
        part = whole + (1 if mine.index(place) < rest else 0)
        limit = part if limit is None else min(limit, part)
    return limit


def _is_idle(right: Right, place: int, among: Sequence[Right], texts: _Texts) -> bool:
    """Tell whether another result allows all of this one; of equal ones the first stays."""
    return any(
        is_within(right, other, texts) and (index < place or not is_within(other, right, texts))
        for index, other in enumerate(among)
        if index != place
    )


def meet(left: Right, right: Right, texts: _Texts | None = None) -> Right | None:
    """Return what both rights allow, or None when that is nothing that could be used or written down."""
    texts = texts or _Texts()
    capability = _narrower(left.capability, right.capability)
    if capability is None or (None not in (left.version, right.version) and left.version != right.version):
        return None
    constraints = {**texts.of(left), **texts.of(right)}
    if len(constraints) > CONSTRAINTS_MAX:
        return None
    return Right(
        capability=capability,
        version=left.version if left.version is not None else right.version,
        constraints=tuple(constraints[key] for key in sorted(constraints)),
        mounts=_common(left.mounts, right.mounts),
        calls_max=_least(left.calls_max, right.calls_max),
        budget_max=_least(left.budget_max, right.budget_max),
        expires_at_sec=_least(left.expires_at_sec, right.expires_at_sec),
    )


def _narrower(left: str, right: str) -> str | None:
    if within(left, right):
        return left
    return right if within(right, left) else None


def _common(left: tuple[str, ...] | None, right: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if left is None or right is None:
        return right if left is None else left
    return tuple(sorted(set(left) & set(right)))


def _least(left: int | None, right: int | None) -> int | None:
    return min((limit for limit in (left, right) if limit is not None), default=None)


def is_within(inner: Right, outer: Right, texts: _Texts | None = None) -> bool:
    """Tell whether one right allows nothing that the other does not, in any field."""
    texts = texts or _Texts()
    return (
        within(inner.capability, outer.capability)
        and outer.version in (None, inner.version)
        and texts.of(outer).keys() <= texts.of(inner).keys()
        and (outer.mounts is None or (inner.mounts is not None and set(inner.mounts) <= set(outer.mounts)))
        and _at_most(inner.calls_max, outer.calls_max)
        and _at_most(inner.budget_max, outer.budget_max)
        and _at_most(inner.expires_at_sec, outer.expires_at_sec)
    )


def _at_most(inner: int | None, outer: int | None) -> bool:
    return outer is None or (inner is not None and inner <= outer)


def lives(grant: Grant, now_us: int) -> bool:
    """Tell whether a grant allows anything now: begun, neither ended nor revoked."""
    return grant.revoked_us is None and grant.issued_us <= now_us < grant.expires_us


def lasts(right: Right, now_us: int) -> bool:
    """Tell whether the right's own end, where it has one, is still to come."""
    return right.expires_at_sec is None or now_us < right.expires_at_sec * _MICRO


def could_have_made(rights: Sequence[Right], call: Call, made_by: Sequence[Right] | None) -> bool:
    """Tell whether these rights name what was made before, whenever that was.

    made_by  the rights under which it was made; None: these very ones, or what was made of them
    A right with constraints names what was made under constraints that hold all of its own. No schema is asked again:
    that would cost whatever its writer likes, each time that somebody looks.
    """
    texts = _Texts()
    made_under = None if made_by is None else [right for right in made_by if _names(right, call)]
    return any(
        _names(right, call)
        and (
            not right.constraints
            or made_under is None
            or (bool(made_under) and all(texts.of(right).keys() <= texts.of(one).keys() for one in made_under))
        )
        for right in rights
    )


def _names(right: Right, call: Call) -> bool:
    return within(call.capability, right.capability) and _scope_refusal(right, call) is None


def reaches(rights: Sequence[Right], capability: str) -> bool:
    """Tell whether some right names the capability, whatever else it asks of a call."""
    return any(within(capability, right.capability) for right in rights)


def names_whole(rights: Sequence[Right], action: str) -> bool:
    """Tell whether some right names something that the owner alone may do, and limits it in no way.

    What is no call is neither counted nor has it args: a limit on it would be kept by nobody.
    """
    return any(within(action, right.capability) and right == Right(right.capability) for right in rights)


def covering(
    rights: Sequence[Right], call: Call, satisfies: Satisfies, *, now_us: int
) -> tuple[int, ...] | Refusal:
    """Return the places of the rights that allow a call, those without a count first, or why none does.

    Codes: `capability_not_granted`, `right_expired`, `version_not_granted`, `mounts_not_granted`,
    `code_not_granted`, `args_not_granted`. Counts and budgets are looked at by who keeps them.
    """
    found: list[int] = []
    closest: Refusal | None = None
    for place, right in enumerate(rights):
        refused = _refusal(right, call, satisfies, now_us)
        if refused is None:
            found.append(place)
        elif closest is None or _ORDER.index(refused.code) > _ORDER.index(closest.code):
            closest = refused
    if found:
        return tuple(sorted(found, key=lambda place: rights[place].calls_max is not None))
    return closest or _not_named(call)


def spent(right: Right, calls: int, cost_before: int, cost: int) -> Refusal | None:
    """Return why a right has nothing left for one more call at this cost, or None (`calls_spent`, `budget_spent`)."""
    if right.calls_max is not None and calls >= right.calls_max:
        return Refusal(
            "calls_spent",
            f"This token allowed {right.calls_max} calls of {right.capability}, and they were made.",
            "Ask for a new token, or one with a higher count.",
            "capability",
        )
    if right.budget_max is not None and cost_before + cost > right.budget_max:
        return Refusal(
            "budget_spent",
            f"This token's budget for {right.capability} does not last for one more call.",
            "Ask for a new token, or one with a higher budget.",
            "capability",
        )
    return None


# How far a call came before it was refused: the last one of these says most about what to change.
_ORDER = (
    "capability_not_granted",
    "right_expired",
    "version_not_granted",
    "mounts_not_granted",
    "code_not_granted",
    "args_not_granted",
)


def _refusal(right: Right, call: Call, satisfies: Satisfies, now_us: int) -> Refusal | None:
    if not within(call.capability, right.capability):
        return _not_named(call)
    if not lasts(right, now_us):
        return Refusal(
            "right_expired",
            f"This credential allowed {call.capability} until a moment that has passed.",
            "Ask for a new token; 'crank token inspect' shows how long each right lasts.",
            "capability",
        )
    return _scope_refusal(right, call) or _args_refusal(right, call, satisfies)


def _scope_refusal(right: Right, call: Call) -> Refusal | None:
    if right.version is not None and call.version != right.version:
        return Refusal(
            "version_not_granted",
            f"This credential allows version {right.version} of {call.capability} and no other.",
            f"Send 'version': {right.version!r}.",
            "version",
        )
    allowed = right.mounts
    if allowed is not None and any(mount_id not in allowed and name not in allowed for mount_id, name in call.mounts):
        return Refusal(
            "mounts_not_granted",
            "This credential does not allow one of the mounts.",
            f"Name only {', '.join(allowed)}." if allowed else "Leave the mounts out.",
            "mounts",
        )
    return None


def _args_refusal(right: Right, call: Call, satisfies: Satisfies) -> Refusal | None:
    if right.constraints and call.has_code:
        # A schema of args says nothing of what code does: it would be a limit that limits nothing.
        return Refusal(
            "code_not_granted",
            "This credential allows the capability only for args that satisfy its constraints, and so for no code.",
            "Ask for a token that allows this capability without constraints, or call a function, which takes args alone.",
            "code",
        )
    # Most words of a schema say nothing about values that are no objects: left to themselves they would pass.
    args = {} if call.args is None else call.args
    if not right.constraints or (
        isinstance(args, dict) and all(satisfies(schema, args) for schema in right.constraints)
    ):
        return None
    return Refusal(
        "args_not_granted",
        "This credential allows the capability only for args that satisfy its constraints.",
        "Look at the constraints of the token or key, or ask for one that allows these args.",
        "args",
    )


def _not_named(call: Call) -> Refusal:
    return Refusal(
        "capability_not_granted",
        f"This credential does not allow {call.capability}.",
        "Ask for a token or key that names this capability.",
        "capability",
    )
