"""The node's side: mints a token, and opens what its holders made of it."""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from crank.adapters.biscuit.forms import block, claimed_claims, grant_parts, revocation_id, unverified, verified
from crank.adapters.biscuit.keys import BadTokenError, name_of, number_of, point_of, published, secret
from crank.domain.chain import Chain, Holder, Presenter
from crank.domain.json import JsonObject, canonical
from crank.errors import InvalidRequest, NotAuthenticated, Unavailable

if TYPE_CHECKING:
    from biscuit_auth import AuthorizerBuilder, Biscuit

# The library's own limit is a millisecond of wall time: on a busy machine good tokens would be refused.
EVALUATION_SEC: Final = 10.0
RETRY_SEC: Final = 5
_LIMITS_REACHED = "Reached Datalog execution limits"
_VERIFIER = "time({now}); allow if crank_grant($claims); "
_PRESENTER = "presenter({name}); "
T = TypeVar("T")


class IssuerKeys(Protocol):
    """P-256 keys of which one signs; a set of their own, that signs nothing but Biscuits."""

    def signing(self) -> ec.EllipticCurvePrivateKey:
        """Return the key that signs now."""
        ...

    def believed(self) -> Sequence[ec.EllipticCurvePublicKey]:
        """Return every key whose tokens may still live, the newest first, the signing one among them."""
        ...


class BiscuitIssuer:
    """Mints and opens the tokens of one node."""

    def __init__(self, keys: IssuerKeys, *, evaluation_sec: float = EVALUATION_SEC) -> None:
        self._keys = keys
        self._evaluation_sec = evaluation_sec

    def mint(self, claims: JsonObject, holder: Holder) -> str:
        """Make a token for a holder whose key is known; `claims` has `exp` (seconds). Raises InvalidRequest."""
        import biscuit_auth

        if holder.public_key is None or not _is_named(holder.name, holder.public_key):
            raise InvalidRequest(
                "A Biscuit is bound to a key, so its holder must prove one.",
                code="holder_key_missing",
                field="requested_token_type",
                fix="Prove the key that shall hold it by a DPoP proof or a certificate, or ask for an access token.",
            )
        signing = self._keys.signing()
        own = point_of(signing.public_key())
        builder = biscuit_auth.BiscuitBuilder()
        builder.merge(block(grant_parts(canonical(claims), claims["exp"], holder.public_key, own)))
        builder.set_root_key_id(number_of(own))
        return builder.build(secret(signing)).to_base64()

    def revocation_ids(self, token: str) -> Sequence[str]:
        """Return the ids of its blocks before anything of it is believed. Raises NotAuthenticated (`invalid_token`)."""
        return _believed(lambda: tuple(map(revocation_id, unverified(token).revocation_ids)))

    def claimed_id(self, token: str) -> str:
        """Return the id (`jti`) that its first block claims, believed by nobody yet. Raises NotAuthenticated (`invalid_token`)."""
        return str(_believed(lambda: claimed_claims(token)).get("jti"))

    def open(self, token: str) -> "OpenedBiscuit":
        """Check size, signatures and forms. Raises NotAuthenticated (`invalid_token`)."""
        points: dict[int | None, bytes] = {number_of(point): point for point in map(point_of, self._keys.believed())}
        biscuit, chain = _believed(lambda: verified(token, points.__getitem__))
        return OpenedBiscuit(biscuit, chain, self._evaluation_sec)

    def public_keys(self) -> Sequence[JsonObject]:
        """Return the public JWKs by which tokens are checked, the newest first, each with `kid` and `root_key_id`."""
        return tuple(published(key) for key in self._keys.believed())


@dataclass(frozen=True, slots=True)
class OpenedBiscuit:
    """A token whose signatures hold and whose blocks have known forms."""

    biscuit: "Biscuit"
    chain: Chain
    evaluation_sec: float

    def evaluate(self, presenter: Presenter, now_us: int) -> None:
        """Let the token's own checks speak. Raises NotAuthenticated (`invalid_token`), Unavailable (`token_check_limit`)."""
        import biscuit_auth

        now = dt.datetime.fromtimestamp(now_us // 1_000_000, dt.UTC)
        verifier = biscuit_auth.AuthorizerBuilder(_VERIFIER, {"now": now})
        for name in sorted(presenter.names):
            verifier.add_code(_PRESENTER, {"name": name})
        _allow_time(verifier, self.evaluation_sec)
        try:
            verifier.build(self.biscuit).authorize()
        except biscuit_auth.AuthorizationError as fault:
            if _LIMITS_REACHED in str(fault):
                # Blocks of known forms cost next to nothing, so the machine was slow. That is no word about the token.
                raise Unavailable(
                    "This machine is too busy to check the token; nothing was decided about it.",
                    code="token_check_limit",
                    retry_after_sec=RETRY_SEC,
                    detail=str(fault),
                ) from fault
            raise _invalid("The token has ended, or another one holds it.", str(fault)) from fault


def _is_named(name: str, point: bytes) -> bool:
    try:
        return name_of(point) == name
    except BadTokenError:
        return False


def _allow_time(verifier: "AuthorizerBuilder", sec: float) -> None:
    limits = verifier.limits()  # type: ignore[attr-defined]
    limits.max_time = dt.timedelta(seconds=sec)
    verifier.set_limits(limits)  # type: ignore[attr-defined]


def _believed(work: Callable[[], T]) -> T:
    try:
        return work()
    except BadTokenError as fault:
        raise _invalid("The token is not of this node, or it is damaged.", str(fault)) from fault


def _invalid(message: str, detail: str) -> NotAuthenticated:
    return NotAuthenticated(
        message, code="invalid_token", fix="Ask the node, or whoever passed it on, for another token.", detail=detail
    )
