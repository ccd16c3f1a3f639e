"""Narrowing and passing on tokens where their holder is: no node is asked, and none has to be there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from crank.adapters.biscuit import BiscuitHolder, new_holder_key
from crank.adapters.clock import SystemClock
from crank.adapters.json_schema import JsonSchemaChecker
from crank.domain.chain import Chain, Presenter
from crank.domain.grant import Grant, GrantId, Right
from crank.domain.ids import LOCAL_TENANT, CredentialId
from crank.domain.job import Refusal
from crank.domain.json import JsonObject, JsonValue
from crank.domain.rules.authorization import details_document, parse_details
from crank.domain.rules.delegation import Ways, walk
from crank.domain.rules.grant import is_within, meet_rights, within
from crank.errors import InvalidRequest

_MICRO = 1_000_000
make_key = new_holder_key


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What is to be left of a token; None and nothing leave it as it is.

    capabilities  names or patterns; of what each may be used for, the other fields take away
    mounts        names that calls may mount; an empty tuple: none
    expires_sec   from now
    depth         how often whom it is passed on to may pass it on
    """

    capabilities: tuple[str, ...] = ()
    version: str | None = None
    mounts: tuple[str, ...] | None = None
    constraints: tuple[JsonObject, ...] = ()
    calls_max: int | None = None
    budget_max: int | None = None
    expires_sec: float | None = None
    depth: int | None = None

    @property
    def narrows_rights(self) -> bool:
        """Tell whether it takes anything from the rights."""
        return replace(self, expires_sec=None, depth=None) != Narrowing()


def attenuate(
    token: str, wanted: Narrowing, *, holder: str | None = None, key_pem: bytes | None = None, now_us: int | None = None
) -> str:
    """Return a narrower token, for the same holder or passed on to another.

    holder   the next one's public key (PEM), thumbprint or SPIFFE ID; None: it stays yours
    key_pem  your private key, to sign the passing on
    Raises InvalidRequest: not a Biscuit, wider than the token, passed on oftener than it may be, a wrong key.
    """
    offline, token = BiscuitHolder(), token.strip()
    present = _present(offline.look(token))
    now_us = SystemClock().now_us() if now_us is None else now_us
    claims = _claims(present, wanted, now_us)
    if holder is None:
        if wanted.depth is not None:
            raise InvalidRequest(
                "A depth is for whom the token is passed on to.",
                code="usage",
                field="depth",
                fix="Name the holder, too.",
            )
        return offline.narrow(token, claims)
    if key_pem is None:
        raise InvalidRequest(
            "To pass a token on, its holder signs.",
            code="usage",
            field="key",
            fix="Name the file with your private key.",
        )
    if present.depth_left <= 0:
        raise InvalidRequest(
            "This token may not be passed on.",
            code="delegation_not_allowed",
            field="holder",
            fix="Ask for one that may be, or let the next holder ask the node.",
        )
    return offline.pass_on(token, claims, offline.holder(holder), key_pem)


def describe(token: str) -> JsonObject:
    """Return what a Biscuit says, hop by hop, and what is left of it. Raises InvalidRequest (`not_a_biscuit`).

    Its signatures fit together; that a node believes in whoever signed first, only that node can say.
    """
    chain = BiscuitHolder().look(token.strip())
    present = _present(chain)
    return {
        "kind": "biscuit",
        "claims": chain.claims,
        "holder": chain.holder.name,
        "hops": [
            {
                "revocation_id": hop.revocation_id,
                "holder": hop.holder.name if hop.holder else None,
                "leaves": hop.claims,
            }
            for hop in chain.hops
        ],
        "revocation_ids": list(chain.revocation_ids),
        "present": {
            "holder": present.holder_jkt,
            "authorization_details": details_document(present.rights),
            "exp": present.expires_us // _MICRO,
            "depth": present.depth_left,
        },
    }


def _present(chain: Chain) -> Grant:
    """Return what is left of a token after all of its hops, as a node would find it."""
    claims = chain.claims
    ends, depth = (claims.get(name) for name in ("exp", "depth"))
    if not isinstance(ends, int) or not isinstance(depth, int):
        raise _unreadable("its claims are not those of a grant")
    grant_id, subject = (str(claims.get(name)) for name in ("jti", "sub"))
    root = Grant(
        GrantId(grant_id), LOCAL_TENANT, CredentialId(""), subject, _rights(claims.get("authorization_details")),
        issued_us=0, expires_us=ends * _MICRO, depth_left=depth,
    )  # fmt: skip
    found = walk(root, chain, Presenter(chain.present_holder.name), Ways(meet_rights, _rights))
    if isinstance(found, Refusal):
        raise InvalidRequest(found.message, code=found.code, field="token", fix=found.fix)
    return found[-1]


def _rights(details: JsonValue) -> tuple[Right, ...]:
    return () if details == [] else parse_details(details, _schema_problem)


def _schema_problem(schema: JsonObject) -> str | None:
    problem = JsonSchemaChecker().check_schema(schema)
    return None if problem is None else problem.cause


def _claims(present: Grant, wanted: Narrowing, now_us: int) -> JsonObject:
    claims: JsonObject = {}
    if wanted.narrows_rights:
        claims["authorization_details"] = details_document(_narrowed(present.rights, wanted))
    if wanted.expires_sec is not None:
        ends = min(now_us + int(wanted.expires_sec * _MICRO), present.expires_us) // _MICRO
        if ends * _MICRO <= now_us:
            raise InvalidRequest("The token would have ended already.", code="token_expired", field="expires")
        claims["exp"] = ends
    if wanted.depth is not None:
        claims["depth"] = wanted.depth
    return claims


def _narrowed(held: Sequence[Right], wanted: Narrowing) -> tuple[Right, ...]:
    patterns = wanted.capabilities or tuple(dict.fromkeys(right.capability for right in held))
    mounts = None if wanted.mounts is None else tuple(sorted(set(wanted.mounts)))
    limits = (wanted.version, wanted.constraints, mounts, wanted.calls_max, wanted.budget_max)
    # Through the reader, so that no token is made that a node would not read.
    asked = _rights(details_document([Right(pattern, *limits) for pattern in patterns]))
    for right in asked:
        # Said here, where it can be mended: a node would only take away what is too much, without a word.
        if not any(is_within(replace(right, constraints=each.constraints), each) for each in _held_for(held, right)):
            raise InvalidRequest(
                f"The token does not allow {right.capability} as far as that.",
                code="wider_than_token",
                field="capability",
                fix="Ask for less; 'crank token inspect' shows what the token allows.",
            )
    found = meet_rights(asked, held)
    if isinstance(found, Refusal):
        raise InvalidRequest(found.message, code=found.code, fix=found.fix)
    return found


def _held_for(held: Sequence[Right], asked: Right) -> list[Right]:
    """Return the rights held that name what is asked for, each without the limits on which nothing was asked."""
    return [
        replace(
            right,
            version=right.version if asked.version is not None else None,
            mounts=right.mounts if asked.mounts is not None else None,
            calls_max=right.calls_max if asked.calls_max is not None else None,
            budget_max=right.budget_max if asked.budget_max is not None else None,
            expires_at_sec=None,
        )
        for right in held
        if within(asked.capability, right.capability)
    ]


def _unreadable(cause: str) -> InvalidRequest:
    return InvalidRequest(f"This token cannot be narrowed: {cause}.", code="not_a_biscuit", field="token")
