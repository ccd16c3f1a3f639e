"""The forms that blocks may have, written and read: a closed set.

Datalog in a block is a program of whoever appended it, and the library looks at its clock only between rounds of
evaluation: one join over thirty facts would hold the whole process for hours. So no block is evaluated that does not
read, letter for letter, like one that this file writes from the values in it; and what may be done follows from those
values, by the same rules as for every other token. The checks in the blocks are evaluated all the same: a second wall,
and all that a verifier without Crank's rules would have.
"""

import datetime as dt
import hashlib
import re
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from crank.adapters.biscuit.keys import COORDINATE_BYTES, BadTokenError, b64, name_of, public
from crank.adapters.biscuit.measure import check_printable
from crank.domain.chain import Chain, Holder, Hop
from crank.domain.identity import parse_spiffe_id
from crank.domain.json import JsonObject, loads_strict
from crank.domain.rules.token import TOKEN_CHARS_MAX, is_thumbprint
from crank.errors import InvalidRequest

if TYPE_CHECKING:
    from biscuit_auth import Biscuit, BlockBuilder, UnverifiedBiscuit

# More than delegation allows hops, since narrowing takes a block each time.
BLOCKS_MAX: Final = 16
# The order of P-256: (r, s) and (r, ORDER - s) sign the same.
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_EXP_SEC_MAX = 253_402_300_799  # the end of the year 9999, the last that dates of both sides know

_GRANT = "crank_grant({claims}); holder_key({key}); issued_by({issuer}); "
_HOP = "crank_hop({claims}); "
_PASSED = "delegated({turn}, {name}); "
_PASSED_KEY = "next_key({key}); "
_ENDS = "check if time($time), $time < {exp}; "
# Whoever is named shows it, or has passed it on with a signature: then the next hop's check says the same of the next one.
# Turns are counted, because a block believes its own facts: without a number it would satisfy itself.
_BOUND = "check if presenter({name}) or delegated({after}, $to) trusting {next}; "
_BOUND_LAST = "check if presenter({name}); "

_GRANT_FORM = re.compile(
    r"crank_grant\(hex:([0-9a-f]+)\);\nholder_key\(hex:([0-9a-f]{66})\);\nissued_by\(hex:([0-9a-f]{66})\);\n"
)
_HOP_FORM = re.compile(
    r'crank_hop\(hex:([0-9a-f]+)\);\n(?:delegated\((\d+), "([A-Za-z0-9_:/.-]+)"\);\n(?:next_key\(hex:([0-9a-f]{66})\);\n)?)?'
)
# What any tool for Biscuits appends to let a token end sooner.
_TTL_FORM = re.compile(r"check if time\(\$([a-z]{1,16})\), \$\1 (<|<=) (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ);\n", re.ASCII)
_EXTERNAL = re.compile(r"secp256r1/([0-9a-f]{66})")

# A block's text with places in it, the values for them, and the keys that it trusts, as compressed points.
Parts = tuple[str, dict[str, Any], dict[str, bytes]]
_PLACE = re.compile(r"\{(\w+)\}")


def grant_parts(written: bytes, exp: Any, holder: bytes, issuer: bytes) -> Parts:
    """Return the first block's text, with the values for its places. Raises BadTokenError."""
    values = {
        "claims": written, "key": holder, "issuer": issuer, "exp": _date(exp), "name": name_of(holder), "after": 1,
    }  # fmt: skip
    return _GRANT + _ENDS + _BOUND, values, {"next": holder}


def hop_parts(written: bytes, exp: Any, passed: "tuple[int, Holder] | None") -> Parts:
    """Return a later block's text, with the values for its places. Raises BadTokenError.

    passed  whom it is passed on to, and how many times that happened with this one; None: it stays where it is
    """
    source = _HOP
    values: dict[str, Any] = {"claims": written}
    keys: dict[str, Any] = {}
    bound = ""
    if passed is not None:
        turn, holder = passed
        source, bound = source + _PASSED, _BOUND_LAST
        values |= {"turn": turn, "name": holder.name}
        if holder.public_key is not None:
            source, bound = source + _PASSED_KEY, _BOUND
            values |= {"key": holder.public_key, "after": turn + 1}
            keys["next"] = holder.public_key
    if exp is not None:
        source += _ENDS
        values["exp"] = _date(exp)
    return source + bound, values, keys


def block(parts: Parts) -> "BlockBuilder":
    """Make a block. Values reach Datalog as values: its text is never built from them."""
    import biscuit_auth

    source, values, keys = parts
    return biscuit_auth.BlockBuilder(source, values, {name: public(point) for name, point in keys.items()})


def printed(parts: Parts) -> str:
    """Return how the library prints that block: to compare with, never to be read as Datalog."""
    source, values, keys = parts
    return _PLACE.sub(lambda place: _term(place[1], values, keys), source.replace("; ", ";\n"))


def _term(name: str, values: dict[str, Any], keys: dict[str, bytes]) -> str:
    if name in keys:
        return f"secp256r1/{keys[name].hex()}"
    value = values[name]
    if isinstance(value, bytes):
        return f"hex:{value.hex()}"
    if isinstance(value, dt.datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(value) if isinstance(value, int) else f'"{value}"'


def unverified(token: str) -> "UnverifiedBiscuit":
    """Parse a token of bearable size, believing nothing. Raises BadTokenError."""
    import biscuit_auth

    if not 0 < len(token) <= TOKEN_CHARS_MAX or not token.isascii():
        raise BadTokenError("its length or its letters are not those of a token")
    check_printable(token)
    try:
        found = biscuit_auth.UnverifiedBiscuit.from_base64(token)
    except (biscuit_auth.BiscuitValidationError, ValueError) as fault:
        raise BadTokenError(str(fault)) from fault
    if found.block_count() > BLOCKS_MAX:
        raise BadTokenError(f"it has more than {BLOCKS_MAX} blocks")
    return found


def claimed_issuer(token: str) -> bytes:
    """Return the key that a token says it was signed by. Raises BadTokenError."""
    return bytes.fromhex(_first_block(token)[3])


def claimed_claims(token: str) -> JsonObject:
    """Return what the first block says, believed by nobody yet. Raises BadTokenError."""
    return _claims(bytes.fromhex(_first_block(token)[1]))


def _first_block(token: str) -> re.Match[str]:
    found = _GRANT_FORM.match(unverified(token).block_source(0))
    if found is None:
        raise BadTokenError("its first block is not of a known form")
    return found


def verified(token: str, issuer_of: Callable[[int | None], bytes]) -> "tuple[Biscuit, Chain]":
    """Return a token with every signature checked, and what it says. Raises BadTokenError."""
    import biscuit_auth

    parsed = unverified(token)
    try:
        issuer = issuer_of(parsed.root_key_id())
        biscuit = parsed.verify(public(issuer))
    except (KeyError, ValueError, biscuit_auth.BiscuitValidationError) as fault:
        raise BadTokenError(str(fault)) from fault
    # One spelling of each token: what compares or keeps tokens must not meet the same one in many forms.
    if biscuit.to_base64().rstrip("=") != token.rstrip("="):
        raise BadTokenError("it is not spelled as its content is")
    return biscuit, _read(biscuit, issuer)


def _read(biscuit: "Biscuit", issuer: bytes) -> Chain:
    ids = tuple(map(revocation_id, biscuit.revocation_ids))
    source = biscuit.block_source(0)
    found = _GRANT_FORM.match(source)
    if found is None or biscuit.block_external_key(0) is not None:
        raise BadTokenError("its first block is not of a known form")
    written, point, by = (bytes.fromhex(part) for part in found.groups())
    claims, holder = _claims(written), Holder(name_of(point), point)
    if by != issuer or printed(grant_parts(written, claims.get("exp"), point, by)) != source:
        raise BadTokenError("its first block is not of a known form")
    hops: list[Hop] = []
    for place in range(1, len(ids)):
        turn = 1 + sum(hop.holder is not None for hop in hops)
        hops.append(_hop(biscuit, place, turn, ids[place]))
    return Chain(ids[0], claims, holder, tuple(hops))


def _hop(biscuit: "Biscuit", place: int, turn: int, name: str) -> Hop:
    source, external = biscuit.block_source(place), biscuit.block_external_key(place)
    signer = None if external is None else _signer(repr(external))
    ending = _TTL_FORM.fullmatch(source)
    if ending is not None and signer is None:
        return Hop(name, None, None, {"exp": _moment(ending[3]) + (ending[2] == "<=")})
    found = _HOP_FORM.match(source)
    if found is None:
        raise BadTokenError(f"block {place} is not of a known form")
    written = bytes.fromhex(found[1])
    claims = _claims(written)
    holder = None if found[3] is None else _holder(found[3], found[4])
    passed = None if holder is None else (turn, holder)
    if printed(hop_parts(written, claims.get("exp"), passed)) != source:
        raise BadTokenError(f"block {place} is not of a known form")
    return Hop(name, signer, holder, claims)


def _holder(name: str, key_hex: str | None) -> Holder:
    if key_hex is None:
        # Whoever passes a token on writes the name, and records tell it: it is none that a key of the node could have.
        if not is_thumbprint(name) and not _is_spiffe_id(name):
            raise BadTokenError("it names a holder by no name that could be proven")
        return Holder(name)
    point = bytes.fromhex(key_hex)
    if name_of(point) != name:
        raise BadTokenError("it names one holder and the key of another")
    return Holder(name, point)


def _is_spiffe_id(name: str) -> bool:
    try:
        return str(parse_spiffe_id(name)) == name
    except InvalidRequest:
        return False


def _claims(written: bytes) -> JsonObject:
    try:
        found = loads_strict(written)
    except InvalidRequest as fault:
        raise BadTokenError(fault.message) from fault
    if not isinstance(found, dict):
        raise BadTokenError("its claims are no object")
    return found


def _date(exp: Any) -> dt.datetime:
    if not isinstance(exp, int) or isinstance(exp, bool) or not 0 < exp <= _EXP_SEC_MAX:
        raise BadTokenError("its end is no time")
    return dt.datetime.fromtimestamp(exp, dt.UTC)


def _moment(text: str) -> int:
    try:
        return int(dt.datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError) as fault:
        raise BadTokenError("its end is no time") from fault


def _signer(external: str) -> str:
    found = _EXTERNAL.fullmatch(external)
    if found is None:
        raise BadTokenError("a block is signed by a key that is not of P-256")
    return name_of(bytes.fromhex(found[1]))


def revocation_id(signature_hex: str) -> str:
    """Return one name for a block's signature, however it is written.

    Of an ECDSA signature everybody can make a second one that is as good. Named by its bytes, what was revoked would
    live again after that.
    """
    raw = bytes.fromhex(signature_hex)
    # Ed25519 is left as it is: its library takes one form alone.
    with suppress(ValueError, OverflowError):
        r, s = decode_dss_signature(raw)
        raw = b"".join(part.to_bytes(COORDINATE_BYTES, "big") for part in (r, min(s, _ORDER - s)))
    return b64(hashlib.sha256(raw).digest())
