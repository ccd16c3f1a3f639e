"""Tests of Biscuits: what is written is read back, and vectors of every kind that the specification's samples show.

The vectors are made here, by the library and by hand: bits turned, blocks exchanged, cut, taken from elsewhere.
"""

import base64
import subprocess
import sys
from dataclasses import replace
from typing import Any

import biscuit_auth
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from crank.adapters.biscuit import BiscuitHolder, BiscuitIssuer
from crank.adapters.biscuit.forms import BLOCKS_MAX
from crank.adapters.biscuit.keys import point_of, secret, thumbprint
from crank.domain.chain import Holder
from crank.domain.rules.token import TOKEN_CHARS_MAX
from crank.errors import InvalidRequest, NotAuthenticated
from tests.support import biscuits
from tests.support.biscuits import (
    NOW_SEC,
    NOW_US,
    Agent,
    Keys,
    appended,
    blocks,
    claims,
    minted,
    new_key,
    packed,
    part,
    passed,
    unpacked,
    with_part,
)

KEYS = Keys()
ISSUER = BiscuitIssuer(KEYS)
ANN, BOB, CAT = Agent(), Agent(), Agent()
HOLDER = BiscuitHolder()


def refused(token: str) -> str:
    """Return what the log says of a token that is not believed."""
    with pytest.raises(NotAuthenticated) as caught:
        ISSUER.open(token)
    assert caught.value.error_code == "invalid_token"
    assert caught.value.detail is not None
    return caught.value.detail


# --- what is written is read back ------------------------------------------------------------


def test_a_grant_is_read_back_with_all_its_hops() -> None:
    """Claims, holders, signers and ids of three blocks come back as they were given, to both sides alike."""
    token = minted(ISSUER, ANN)
    token = HOLDER.narrow(token, {"exp": NOW_SEC + 60})
    token = passed(token, ANN, BOB, authorization_details=[], depth=0)
    chain = ISSUER.open(token).chain
    assert chain.claims == claims()
    assert chain.holder == ANN.holder
    assert [(hop.signer, hop.holder, hop.claims) for hop in chain.hops] == [
        (None, None, {"exp": NOW_SEC + 60}),
        (ANN.jkt, BOB.holder, {"authorization_details": [], "depth": 0}),
    ]
    assert chain.present_holder == BOB.holder
    assert chain == HOLDER.look(token)
    assert list(chain.revocation_ids) == list(ISSUER.revocation_ids(token))
    assert len(set(chain.revocation_ids)) == 3


@pytest.mark.parametrize(
    "text",
    [
        '"); allow if true; //',
        "'",
        '"',
        "\n;\n",
        "{claims}",
        "$x",
        "é\u2028\U0001f600",
        "hex:00",
        "\\",
        "\x00",
        "*/",
        "a" * 2000,
    ],
)
def test_no_text_becomes_datalog(text: str) -> None:
    """Quotes, line ends, placeholders and other scripts in a claim stay text: the same blocks, the same checks."""
    token = minted(ISSUER, ANN, sub=text, note={text: [text]})
    token = passed(token, ANN, BOB, authorization_details=[{"type": text}])
    opened = ISSUER.open(token)
    assert opened.chain.claims["sub"] == text
    assert opened.chain.hops[0].claims == {"authorization_details": [{"type": text}]}
    opened.evaluate(BOB.presenter, NOW_US)
    with pytest.raises(NotAuthenticated):
        opened.evaluate(CAT.presenter, NOW_US)


def test_the_tokens_own_checks_hold_without_our_rules() -> None:
    """A verifier that only evaluates lets through whom each hop names, until the earliest end, and nobody else."""
    token = passed(passed(minted(ISSUER, ANN), ANN, BOB, exp=NOW_SEC + 60), BOB, CAT)
    opened = ISSUER.open(token)
    opened.evaluate(CAT.presenter, NOW_US + 59_999_999)
    for presenter, at_us in ((CAT, NOW_US + 60_000_000), (BOB, NOW_US), (ANN, NOW_US), (Agent(), NOW_US)):
        with pytest.raises(NotAuthenticated, match="ended, or another"):
            opened.evaluate(presenter.presenter, at_us)


def test_a_holder_named_without_a_key_presents_and_passes_nothing_on() -> None:
    """A thumbprint or a SPIFFE ID names who presents; a hop signed by them breaks the token's own checks."""
    bob = Agent("spiffe://td/agent/bob")
    for name in (bob.jkt, "spiffe://td/agent/bob"):
        token = HOLDER.pass_on(minted(ISSUER, ANN), {}, Holder(name), ANN.pem)
        ISSUER.open(token).evaluate(bob.presenter, NOW_US)
        with pytest.raises(NotAuthenticated):
            ISSUER.open(token).evaluate(CAT.presenter, NOW_US)
    on = HOLDER.pass_on(HOLDER.pass_on(minted(ISSUER, ANN), {}, Holder(bob.jkt), ANN.pem), {}, CAT.holder, bob.pem)
    with pytest.raises(NotAuthenticated):
        ISSUER.open(on).evaluate(CAT.presenter, NOW_US)


def test_an_earlier_end_by_any_tool_is_honoured() -> None:
    """The block that every Biscuit tool appends for a shorter life is read, in both of its spellings."""
    for sign, ends in (("<", NOW_SEC + 5), ("<=", NOW_SEC + 6)):
        token = appended(minted(ISSUER, ANN), KEYS.signing(), f"check if time($t), $t {sign} 2027-01-15T08:00:05Z")
        opened = ISSUER.open(token)
        assert opened.chain.hops[0].claims == {"exp": ends}
        opened.evaluate(ANN.presenter, NOW_US)
        with pytest.raises(NotAuthenticated):
            opened.evaluate(ANN.presenter, NOW_US + 6_000_000)


# --- who may hold -----------------------------------------------------------------------------


def test_a_token_needs_a_holder_with_a_key() -> None:
    """A Biscuit that anybody could present could be passed on by anybody: none is made."""
    for holder in (Holder(ANN.jkt), Holder("spiffe://td/agent/x"), replace(ANN.holder, name=BOB.jkt)):
        with pytest.raises(InvalidRequest) as caught:
            ISSUER.mint(claims(), holder)
        assert caught.value.error_code == "holder_key_missing"


def test_only_the_present_holder_can_pass_it_on() -> None:
    """The tool refuses another key than that of whom it was passed on to last."""
    token = passed(minted(ISSUER, ANN), ANN, BOB)
    for stranger in (ANN, CAT):
        with pytest.raises(InvalidRequest) as caught:
            passed(token, stranger, CAT)
        assert caught.value.error_code == "not_the_holder"


def test_holders_are_read_from_three_forms() -> None:
    """A thumbprint, a SPIFFE ID and a public key in PEM name a holder; the last one can be passed on from."""
    pem = BOB.key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert HOLDER.holder(f" {BOB.jkt}\n") == Holder(BOB.jkt)
    assert HOLDER.holder("spiffe://td/agent/bob") == Holder("spiffe://td/agent/bob")
    assert HOLDER.holder(pem.decode()) == BOB.holder


@pytest.mark.parametrize(
    "text", ["", "bob", "x" * 44, "spiffe://td", "spiffe://td/a/../b", "https://td/x", "-----BEGIN PUBLIC KEY-----\n"]
)
def test_what_names_no_holder_is_refused(text: str) -> None:
    """Nothing else is taken for a name."""
    with pytest.raises(InvalidRequest):
        HOLDER.holder(text)


def test_keys_of_other_kinds_are_refused() -> None:
    """Only P-256 signs and holds: no other curve, no Ed25519, no passphrase, no noise."""
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    others = [
        ec.generate_private_key(ec.SECP384R1()).private_bytes(pem, pkcs8, serialization.NoEncryption()),
        ed25519.Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, serialization.NoEncryption()),
        ANN.key.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"x")),
        b"", b"-----BEGIN PRIVATE KEY-----\n",
    ]  # fmt: skip
    for other in others:
        with pytest.raises(InvalidRequest) as caught:
            HOLDER.pass_on(minted(ISSUER, ANN), {}, BOB.holder, other)
        assert caught.value.error_code == "invalid_key"
    for curve in (ec.SECP384R1(), ec.SECP256K1()):
        public = ec.generate_private_key(curve).public_key()
        with pytest.raises(InvalidRequest):
            HOLDER.holder(public.public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo).decode())


# --- issuer's keys ----------------------------------------------------------------------------


def test_keys_are_published_with_the_name_that_tokens_use() -> None:
    """Each public key is told with its thumbprint and the 32 bits that stand in a token; no private part is."""
    (jwk,) = ISSUER.public_keys()
    assert jwk["kid"] == thumbprint(KEYS.signing().public_key())
    assert biscuit_auth.UnverifiedBiscuit.from_base64(minted(ISSUER, ANN)).root_key_id() == jwk["root_key_id"]
    assert "d" not in jwk


def test_tokens_outlive_a_change_of_the_key_that_signs() -> None:
    """A token of the key before is believed as long as that key is, and not longer."""
    old, new = new_key(), new_key()
    token = minted(BiscuitIssuer(Keys(old)), ANN)
    assert BiscuitIssuer(Keys(new, old)).open(token).chain.claims == claims()
    with pytest.raises(NotAuthenticated):
        BiscuitIssuer(Keys(new)).open(token)


def test_a_foreign_issuer_is_refused() -> None:
    """A token of another node, and one that only claims this node's key, are not believed."""
    foreign = minted(BiscuitIssuer(Keys()), ANN)
    unknown = refused(foreign)
    fields = unpacked(foreign)
    own = next(content for number, _, content in unpacked(minted(ISSUER, ANN)) if number == 1)
    forged = packed([(number, kind, own if number == 1 else content) for number, kind, content in fields])
    assert refused(forged) != unknown, "the key is known, the signature is not of it"
    assert refused(packed([field for field in fields if field[0] != 1]))


# --- vectors of damage ------------------------------------------------------------------------


def three_blocks() -> str:
    """Return a token with a plain block and one of another key behind the first."""
    return passed(HOLDER.narrow(minted(ISSUER, ANN), {"exp": NOW_SEC + 60}), ANN, BOB)


def flipped(content: bytes, at: int) -> bytes:
    """Return bytes with one bit turned."""
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("number", [1, 2, 3, 4], ids=["content", "next key", "signature", "other's signature"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_bit_of_any_block_breaks_it(place: int, number: int) -> None:
    """A bit turned at the start, the middle or the end of any signed part of any block is seen."""
    fields = unpacked(three_blocks())
    where = blocks(fields)[place]
    inner = {own for own, _, _ in biscuits.parse(fields[where][2])}
    if number not in inner:
        assert (place, number) in {(0, 4), (1, 4)}, "only the last block is signed by another"
        return
    content = part(fields, where, number)
    for at in (0, len(content) // 2, len(content) - 1):
        refused(packed(with_part(fields, where, number, flipped(content, at))))


def test_every_single_bit_of_the_last_block_counts() -> None:
    """No bit of the last block can be turned: what is not signed is not there."""
    fields = unpacked(three_blocks())
    where = blocks(fields)[-1]
    whole = fields[where][2]
    for at in range(len(whole)):
        broken = [*fields[:where], (*fields[where][:2], flipped(whole, at)), *fields[where + 1 :]]
        with pytest.raises(NotAuthenticated):
            ISSUER.open(packed(broken))


def test_blocks_cannot_change_places_or_be_left_out() -> None:
    """Swapped, repeated, removed blocks, and the last block without its proof, are seen."""
    fields = unpacked(three_blocks())
    first, second, third = blocks(fields)
    one, two, three = fields[first], fields[second], fields[third]
    rest = [field for place, field in enumerate(fields) if place not in {first, second, third}]
    key_id, proof = rest[0], rest[1]
    orders: list[list[Any]] = [
        [one, three, two], [one, two, two, three], [one, two, three, three], [one, three], [one, two], [one],
        [two, three], [(2, *two[1:]), (3, *one[1:]), three],
    ]  # fmt: skip
    for order in orders:
        refused(packed([key_id, *order, proof]))
    refused(packed([key_id, one, two, three]))


def test_cut_tokens_are_refused() -> None:
    """Wherever a token is cut, what is left is none."""
    raw = base64.urlsafe_b64decode(three_blocks())
    for size in range(0, len(raw), 7):
        refused(base64.urlsafe_b64encode(raw[:size]).decode())


def test_a_block_of_another_token_does_not_fit() -> None:
    """A hop that the holder signed for one token is worth nothing behind another, with or without its proof."""
    mine, other = unpacked(passed(minted(ISSUER, ANN), ANN, BOB)), unpacked(minted(ISSUER, ANN, jti="g-2"))
    stolen = mine[blocks(mine)[1]]
    refused(packed([*other[:-1], stolen, other[-1]]))
    refused(packed([*other[:-1], stolen, mine[-1]]))


def test_anothers_signature_does_not_fit_a_second_block() -> None:
    """The signature of a holder over one hop, put on a second hop to somebody else, is refused."""
    token = passed(minted(ISSUER, ANN), ANN, BOB)
    again = passed(minted(ISSUER, ANN), ANN, CAT)
    first, second = unpacked(token), unpacked(again)
    where = blocks(second)[1]
    refused(packed(with_part(second, where, 4, part(first, blocks(first)[1], 4))))
    external = part(second, where, 4)
    signature = biscuits.parse(external)
    swapped = biscuits.build(
        [
            (2, 2, biscuits.build([(1, 0, b"\x01"), (2, 2, point_of(CAT.key.public_key()))])) if n == 2 else (n, k, c)
            for n, k, c in signature
        ]
    )
    refused(packed(with_part(second, where, 4, swapped)))


def test_unknown_versions_are_refused() -> None:
    """A block's language version and a signature's version that are not known are no token."""
    fields = unpacked(minted(ISSUER, ANN))
    where = blocks(fields)[0]
    refused(packed(with_part(fields, where, 5, b"\x63")))
    content = biscuits.parse(part(fields, where, 1))
    newer = biscuits.build([(n, k, b"\x63" if n == 3 else c) for n, k, c in content])
    refused(packed(with_part(fields, where, 1, newer)))


def test_an_older_version_of_signing_is_no_way_around() -> None:
    """A block said to be signed in the older way, which binds less, is refused."""
    fields = unpacked(three_blocks())
    for where in blocks(fields):
        stripped = [entry for entry in biscuits.parse(fields[where][2]) if entry[0] != 5]
        if len(stripped) == len(biscuits.parse(fields[where][2])):
            continue
        refused(packed([*fields[:where], (*fields[where][:2], biscuits.build(stripped)), *fields[where + 1 :]]))


@pytest.mark.parametrize(
    "text", ["", "A", "AAAA", "é", "%%%", "a b", "\x00", "=" * 8, "e30.e30.e30", "x" * (TOKEN_CHARS_MAX + 1)]
)
def test_noise_is_no_token(text: str) -> None:
    """Whatever is sent in its place gets the same error, from every way in."""
    refused(text)
    with pytest.raises(NotAuthenticated):
        ISSUER.revocation_ids(text)
    with pytest.raises(InvalidRequest) as caught:
        HOLDER.look(text)
    assert caught.value.error_code == "not_a_biscuit"


def test_a_token_without_our_first_block_is_refused() -> None:
    """A Biscuit of this very key that says something else is not a grant."""
    for source in ('user("1")', "crank_grant(hex:7b7d)", ""):
        own = biscuit_auth.BiscuitBuilder(source)
        own.set_root_key_id(ISSUER.public_keys()[0]["root_key_id"])
        assert "first block" in refused(own.build(secret(KEYS.signing())).to_base64())


def test_tokens_stop_growing_where_the_node_stops_reading() -> None:
    """The tool makes no token with more blocks or letters than the node reads."""
    token = minted(ISSUER, ANN)
    for _ in range(BLOCKS_MAX - 1):
        token = HOLDER.narrow(token, {})
    ISSUER.open(token)
    with pytest.raises(InvalidRequest) as caught:
        HOLDER.narrow(token, {})
    assert caught.value.error_code == "token_too_large"
    with pytest.raises(InvalidRequest) as caught:
        HOLDER.narrow(minted(ISSUER, ANN), {"authorization_details": ["x" * TOKEN_CHARS_MAX]})
    assert caught.value.error_code == "token_too_large"


def test_the_library_is_loaded_when_it_is_used() -> None:
    """Neither the adapter nor the controller nor the command line loads it before such a token comes."""
    for module in ("crank.adapters.biscuit", "crank.bootstrap.controller", "crank.cli.main", "crank.cli.token"):
        code = f"import sys, {module}; sys.exit('biscuit_auth' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0, module
