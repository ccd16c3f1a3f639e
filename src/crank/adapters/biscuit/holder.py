"""The holder's side: looks at a token, narrows it and passes it on, without the node."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from crank.adapters.biscuit.forms import BLOCKS_MAX, block, claimed_issuer, hop_parts, verified
from crank.adapters.biscuit.keys import BadTokenError, point_of, public, read_private, read_public, secret, thumbprint
from crank.domain.chain import Chain, Holder
from crank.domain.identity import parse_spiffe_id
from crank.domain.json import JsonObject, canonical
from crank.domain.rules.token import TOKEN_CHARS_MAX
from crank.errors import InvalidRequest

if TYPE_CHECKING:
    from biscuit_auth import Biscuit

_JKT = re.compile(r"[A-Za-z0-9_-]{43}")
T = TypeVar("T")


class BiscuitHolder:
    """Works on a token as its holder. Whether its issuer is to be trusted, it cannot tell."""

    def look(self, token: str) -> Chain:
        """Return what a token says. Raises InvalidRequest (`not_a_biscuit`)."""
        return _readable(lambda: _own(token))[1]

    def narrow(self, token: str, claims: JsonObject) -> str:
        """Append a hop for the same holder. Raises InvalidRequest."""
        biscuit, _ = _readable(lambda: _own(token))
        return _fitting(biscuit.append(block(hop_parts(canonical(claims), claims.get("exp"), None))))

    def pass_on(self, token: str, claims: JsonObject, holder: Holder, private_key_pem: bytes) -> str:
        """Append a hop to another holder, signed by the present one's key. Raises InvalidRequest."""
        biscuit, chain = _readable(lambda: _own(token))
        own = read_private(private_key_pem)
        if thumbprint(own.public_key()) != chain.present_holder.name:
            raise InvalidRequest(
                "This key is not that of the token's holder, so it cannot pass the token on.",
                code="not_the_holder",
                field="key",
                fix="Sign with the key that the token is bound to; 'crank token inspect' shows its thumbprint.",
            )
        turn = 1 + sum(hop.holder is not None for hop in chain.hops)
        made = block(hop_parts(canonical(claims), claims.get("exp"), (turn, holder)))
        signed = biscuit.third_party_request().create_block(secret(own), made)
        return _fitting(biscuit.append_third_party(public(point_of(own.public_key())), signed))

    def holder(self, text: str) -> Holder:
        """Read a thumbprint, a SPIFFE ID or a public key in PEM. Raises InvalidRequest (`invalid_holder`)."""
        text = text.strip()
        if text.startswith("spiffe://"):
            return Holder(str(parse_spiffe_id(text)))
        if _JKT.fullmatch(text):
            return Holder(text)
        key = read_public(text)
        if key is None:
            raise InvalidRequest(
                "The next holder is a key's thumbprint, a SPIFFE ID, or a P-256 public key in PEM.",
                code="invalid_holder",
                field="holder",
                fix="With the public key they may pass it on; with a name alone they may not.",
            )
        return Holder(thumbprint(key), point_of(key))


def _own(token: str) -> "tuple[Biscuit, Chain]":
    # A token names its issuer's key, so that a holder needs no copy of it: whom to trust is not asked here.
    issuer = claimed_issuer(token)
    return verified(token, lambda _: issuer)


def _readable(work: Callable[[], T]) -> T:
    try:
        return work()
    except BadTokenError as fault:
        raise InvalidRequest(
            "This is not a Biscuit of Crank, or it is damaged.",
            code="not_a_biscuit",
            field="token",
            fix="Use the token's text as the node gave it.",
            detail=str(fault),
        ) from fault


def _fitting(biscuit: "Biscuit") -> str:
    text = biscuit.to_base64()
    if len(text) > TOKEN_CHARS_MAX or biscuit.block_count() > BLOCKS_MAX:
        raise InvalidRequest(
            "The token would grow beyond what a node reads.",
            code="token_too_large",
            field="token",
            fix="Narrow an earlier token, in one step.",
        )
    return text
