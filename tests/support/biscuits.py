"""Holders with keys, tokens of an issuer of the test's own, and a knife for their bytes."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import biscuit_auth
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from crank.adapters.biscuit import BiscuitHolder, BiscuitIssuer
from crank.adapters.biscuit.keys import point_of, public, secret, thumbprint
from crank.domain.chain import Holder, Presenter
from crank.domain.json import JsonObject

NOW_SEC = 1_800_000_000
NOW_US = NOW_SEC * 1_000_000
DETAILS = [{"type": "urn:crank:capability", "identifier": "*", "mounts": ["docs", "pics"]}]


class Keys:
    """A fixed set of issuer's keys; the first one signs."""

    def __init__(self, *keys: ec.EllipticCurvePrivateKey) -> None:
        self.keys = keys or (new_key(),)

    def signing(self) -> ec.EllipticCurvePrivateKey:
        """Return the first key."""
        return self.keys[0]

    def believed(self) -> Sequence[ec.EllipticCurvePublicKey]:
        """Return all of them."""
        return [key.public_key() for key in self.keys]


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


@dataclass
class Agent:
    """Somebody with a key, and perhaps a SPIFFE ID."""

    spiffe_id: str | None = None
    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)

    @property
    def holder(self) -> Holder:
        """Return them as a token names them, with their key."""
        return Holder(self.jkt, point_of(self.key.public_key()))

    @property
    def jkt(self) -> str:
        """Return their key's thumbprint."""
        return thumbprint(self.key.public_key())

    @property
    def pem(self) -> bytes:
        """Return their private key."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def presenter(self) -> Presenter:
        """Return them as a verifier proved them."""
        return Presenter(self.jkt, self.spiffe_id)


def claims(**changed: Any) -> JsonObject:
    """Return what an issuer says of a grant, with changes."""
    return {"jti": "g-1", "sub": "local", "exp": NOW_SEC + 600, "authorization_details": DETAILS, "depth": 2, **changed}


def minted(issuer: BiscuitIssuer, agent: Agent, **changed: Any) -> str:
    """Return a token for an agent."""
    return issuer.mint(claims(**changed), agent.holder)


def passed(token: str, giver: Agent, taker: Agent, **leaves: Any) -> str:
    """Return a token that one agent passes on to another."""
    return BiscuitHolder().pass_on(token, leaves, taker.holder, giver.pem)


def appended(token: str, issuer: ec.EllipticCurvePrivateKey, source: str) -> str:
    """Return a token with a block of any Datalog, as any tool could append it."""
    own = biscuit_auth.Biscuit.from_base64(token, public(point_of(issuer.public_key())))
    return own.append(biscuit_auth.BlockBuilder(source)).to_base64()


def signed(token: str, issuer: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, source: str) -> str:
    """Return a token with a block of any Datalog, signed by any key."""
    own = biscuit_auth.Biscuit.from_base64(token, public(point_of(issuer.public_key())))
    block = own.third_party_request().create_block(secret(signer), biscuit_auth.BlockBuilder(source))
    return own.append_third_party(public(point_of(signer.public_key())), block).to_base64()


# --- bytes -----------------------------------------------------------------------------------
# A token is a message of fields: 1 key id, 2 first block, 3 each later block, 4 proof. In a signed block 1 is its content,
# 2 the next key, 3 the signature, 4 another's signature, 5 the version of what is signed.

Fields = list[tuple[int, int, bytes]]


def unpacked(token: str) -> Fields:
    """Return the fields of a token: number, wire type, content."""
    return parse(base64.urlsafe_b64decode(token))


def packed(fields: Fields) -> str:
    """Return a token of fields."""
    return base64.urlsafe_b64encode(build(fields)).decode()


def parse(raw: bytes) -> Fields:
    """Return the fields of a message, in order."""
    found: Fields = []
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        if tag & 7 == 0:
            start = at
            _, at = _varint(raw, at)
            found.append((tag >> 3, 0, raw[start:at]))
        else:
            size, at = _varint(raw, at)
            found.append((tag >> 3, 2, raw[at : at + size]))
            at += size
    return found


def build(fields: Fields) -> bytes:
    """Return a message of fields."""
    octets = b""
    for number, kind, content in fields:
        size = b"" if kind == 0 else written(len(content))
        octets += written(number << 3 | kind) + size + content
    return octets


def blocks(fields: Fields) -> list[int]:
    """Return where the blocks are among a token's fields."""
    return [place for place, (number, _, _) in enumerate(fields) if number in (2, 3)]


def with_part(fields: Fields, place: int, number: int, content: bytes) -> Fields:
    """Return a token's fields with one part of one block exchanged."""
    inner = [(own, kind, content if own == number else old) for own, kind, old in parse(fields[place][2])]
    return [*fields[:place], (*fields[place][:2], build(inner)), *fields[place + 1 :]]


def part(fields: Fields, place: int, number: int) -> bytes:
    """Return one part of one block."""
    return next(content for own, _, content in parse(fields[place][2]) if own == number)


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def written(value: int) -> bytes:
    """Return a number as a message writes it."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
