"""Capability tokens: what their claims are (RFC 9068), whether they hold here and now, and what a proof must say."""

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final

from crank.domain.grant import THUMBPRINT_URN, Grant, GrantId
from crank.domain.grant_codec import details_document, scope_of
from crank.domain.ids import is_uuid7
from crank.domain.job import Refusal
from crank.domain.json import JsonObject

__all__ = [
    "ACCESS_TYPE",
    "JTI_CHARS_MAX",
    "LEEWAY_US",
    "PROOF_AGE_US",
    "PROOF_CHARS_MAX",
    "PROOF_TYPE",
    "THUMBPRINT_URN",
    "TOKEN_CHARS_MAX",
    "Presented",
    "Proven",
    "act_of",
    "agrees",
    "claims_of",
    "is_thumbprint",
    "peer_refusal",
    "read_claims",
    "read_proof",
]

ACCESS_TYPE: Final = "at+jwt"
PROOF_TYPE: Final = "dpop+jwt"
# What a request's head may take, with room for all else in it.
TOKEN_CHARS_MAX: Final = 20 * 1024
PROOF_CHARS_MAX: Final = 4 * 1024
JTI_CHARS_MAX: Final = 256
# How far clocks may differ.
LEEWAY_US: Final = 60_000_000
# Beyond this a proof is old, whatever it says.
PROOF_AGE_US: Final = 60_000_000
_US = 1_000_000
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")


def claims_of(grant: Grant, *, issuer: str, audience: str) -> JsonObject:
    """Return the claims of a grant's token; whole seconds, the end rounded down so that it never lasts longer."""
    claims: JsonObject = {
        "iss": issuer,
        "sub": grant.subject,
        "aud": audience,
        "client_id": grant.actors[0] if grant.actors else grant.subject,
        "iat": grant.issued_us // _US,
        "nbf": grant.issued_us // _US,
        "exp": grant.expires_us // _US,
        "jti": grant.grant_id,
        "scope": scope_of(grant.rights),
        "authorization_details": details_document(grant.rights),
    }
    if grant.actors:
        claims["act"] = act_of(grant.actors)
    if grant.holder_jkt is not None:
        claims["cnf"] = {"jkt": grant.holder_jkt}
    return claims


def act_of(actors: tuple[str, ...]) -> JsonObject:
    """Return the `act` claim (RFC 8693 section 4.1): the present actor outermost, those before inside."""
    found: JsonObject = {}
    for actor in reversed(actors):
        found = {"sub": actor, **({"act": found} if found else {})}
    return found


@dataclass(frozen=True, slots=True)
class Presented:
    """What a token of this node says, as far as it has to be believed: the rest is looked up by its id."""

    grant_id: GrantId
    subject: str
    holder_jkt: str | None
    expires_us: int


def read_claims(claims: JsonObject, *, issuer: str, audience: str, now_us: int) -> Presented | Refusal:
    """Return what a token says, or why it does not hold here and now (`invalid_token`)."""
    times = [claims.get(name) for name in ("iat", "nbf", "exp")]
    if not all(isinstance(time, int) and not isinstance(time, bool) and 0 <= time < 2**40 for time in times):
        return _invalid("iat, nbf and exp are whole seconds, and each is there.")
    issued_us, begins_us, ends_us = (int(time or 0) * _US for time in times)
    if claims.get("iss") != issuer:
        return _invalid("Another issuer made it.")
    # One text, never a list: a token of this node is for this node alone.
    if claims.get("aud") != audience:
        return _invalid("It is for another audience.")
    if issued_us > now_us + LEEWAY_US or begins_us > now_us + LEEWAY_US:
        return _invalid("It is not valid yet.")
    # The grant behind it ends without leeway; this only says it early.
    if now_us >= ends_us + LEEWAY_US:
        return _invalid("It has expired.")
    jti, subject = claims.get("jti"), claims.get("sub")
    if not isinstance(jti, str) or not is_uuid7(jti) or not isinstance(subject, str) or not subject:
        return _invalid("It has no jti or sub of this node.")
    bound = _bound_to(claims)
    if isinstance(bound, Refusal):
        return bound
    return Presented(GrantId(jti), subject, bound, ends_us)


def _bound_to(claims: JsonObject) -> str | Refusal | None:
    if "cnf" not in claims:
        return None
    cnf = claims["cnf"]
    if not isinstance(cnf, dict) or set(cnf) != {"jkt"} or not is_thumbprint(cnf["jkt"]):
        return _invalid("Its cnf is none that this node writes.")
    return str(cnf["jkt"])


def is_thumbprint(text: Any) -> bool:
    """Tell whether text is a SHA-256 thumbprint in base64url."""
    return isinstance(text, str) and _THUMBPRINT.fullmatch(text) is not None


def agrees(presented: Presented, grant: Grant) -> bool:
    """Tell whether a token says of its grant what the store says."""
    return (presented.subject, presented.holder_jkt, presented.expires_us // _US) == (
        grant.subject,
        grant.holder_jkt,
        grant.expires_us // _US,
    )


def peer_refusal(grant: Grant, peer: str | None) -> Refusal | None:
    """Return why a token may not be used over a connection, or None (`token_not_yours`).

    peer  SPIFFE ID of the certificate that the connection showed; None: it showed none
    The chain of actors is a claim; the certificate is proof. A holder that is no SPIFFE ID cannot be compared with one.
    """
    if peer is None or peer == grant.holder or not grant.holder.startswith("spiffe://"):
        return None
    return Refusal(
        "token_not_yours",
        f"This token is for {grant.holder[:300]}, and the certificate of this connection is another's.",
        "Use a connection with the holder's own certificate, or with none and a DPoP proof (RFC 9449).",
        "authorization",
    )


def _invalid(cause: str) -> Refusal:
    return Refusal(
        "invalid_token",
        f"This token is not valid here: {cause}",
        "Exchange your credential for a new token at /v1/token.",
    )


# --- proofs ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proven:
    """What a fresh proof of possession establishes.

    made_us     when its maker's clock says that it was made
    replay_key  is seen once only, until `until_us`
    """

    jkt: str
    made_us: int
    replay_key: bytes
    until_us: int


def read_proof(
    claims: JsonObject, jkt: str, *, method: str, url: str, token: str | None, now_us: int
) -> Proven | Refusal:
    """Check what a proof says against the request it came with; `token` is the access token beside it."""
    jti, issued = claims.get("jti"), claims.get("iat")
    if not isinstance(jti, str) or not 0 < len(jti) <= JTI_CHARS_MAX:
        return _unproven("It has no jti.")
    if not isinstance(issued, int) or isinstance(issued, bool) or not 0 <= issued < 2**40:
        return _unproven("Its iat is no time in whole seconds.")
    if not now_us - PROOF_AGE_US <= issued * _US <= now_us + LEEWAY_US:
        return _unproven("It was not made just now; set your clock, and make one for each request.")
    if claims.get("htm") != method:
        return _unproven("It is for another method.")
    if _without_query(claims.get("htu")) != _without_query(url):
        return _unproven("It is for another address.")
    if token is not None and claims.get("ath") != _hash(token):
        return _unproven("It was not made for this token.")
    key = hashlib.sha256(f"{jkt}\0{jti}".encode("utf-8", "surrogatepass")).digest()
    return Proven(jkt, issued * _US, key, issued * _US + PROOF_AGE_US + LEEWAY_US)


def _without_query(url: Any) -> str | None:
    """Return an address in the form in which two of them are compared (RFC 3986 section 6.2.2, the parts that occur)."""
    if not isinstance(url, str) or len(url) > PROOF_CHARS_MAX:
        return None
    scheme, found, rest = url.partition("#")[0].partition("?")[0].partition("://")
    place, slash, path = rest.partition("/")
    if not found or not place:
        return None
    scheme, place = scheme.lower(), place.lower()
    for kind, port in (("https", ":443"), ("http", ":80")):
        if scheme == kind:
            place = place.removesuffix(port)
    return f"{scheme}://{place}/{path if slash else ''}"


def _hash(token: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()


def _unproven(cause: str) -> Refusal:
    return Refusal(
        "invalid_dpop_proof",
        f"The proof of possession does not hold: {cause}",
        "Send a fresh DPoP proof (RFC 9449) by the token's key, ES256, for this method and address.",
    )
