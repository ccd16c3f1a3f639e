"""Attacks on Biscuits: what a holder, a thief, a delegatee and the author of a block may try, each ended by the right error.

Each goes the way of a presented token: ids against what was revoked, signatures and forms, the walk along the hops by the
rules of every grant, the token's own checks.
"""

import base64
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import biscuit_auth
import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from crank.adapters.biscuit import BiscuitHolder, BiscuitIssuer
from crank.adapters.biscuit.keys import point_of, public, secret
from crank.domain.chain import Holder, Presenter
from crank.domain.grant import Grant, GrantId, Right
from crank.domain.ids import LOCAL_TENANT, CredentialId
from crank.domain.job import Refusal
from crank.domain.rules.authorization import parse_details
from crank.domain.rules.delegation import Ways, walk
from crank.domain.rules.grant import lives, meet_rights
from crank.errors import NotAuthenticated, Unavailable
from tests.support.biscuits import (
    NOW_SEC,
    NOW_US,
    Agent,
    Keys,
    appended,
    blocks,
    build,
    minted,
    new_key,
    packed,
    part,
    passed,
    signed,
    unpacked,
    with_part,
    written,
)

KEYS = Keys()
ISSUER = BiscuitIssuer(KEYS)
HOLDER = BiscuitHolder()
ANN, BOB, CAT, EVE = Agent(), Agent("spiffe://td/agent/bob"), Agent(), Agent("spiffe://td/agent/eve")
# Whatever an attack is, a node must have answered it by then.
SOON_SEC = 2.0
CONVERT = [{"type": "urn:crank:capability", "identifier": "document.convert", "mounts": ["docs"]}]
EVERYTHING = [{"type": "urn:crank:capability", "identifier": "*"}]
NODE = [{"type": "urn:crank:capability", "identifier": "node.*"}]
# The order of P-256.
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def read(source: Any) -> tuple[Right, ...]:
    return parse_details(source, lambda _: None)


def judged(
    token: str,
    presenter: Presenter,
    *,
    revoked: frozenset[str] = frozenset(),
    now_us: int = NOW_US,
    issuer: BiscuitIssuer = ISSUER,
) -> tuple[Grant, ...] | str:
    """Return what a presenter may do with a token, or the code by which it is refused."""
    try:
        if revoked & set(issuer.revocation_ids(token)):
            return "revoked"
        opened = issuer.open(token)
    except NotAuthenticated as fault:
        return fault.error_code
    chain = opened.chain
    root = Grant(
        GrantId(chain.claims["jti"]), LOCAL_TENANT, CredentialId("k"), "local", read(chain.claims["authorization_details"]),
        issued_us=0, expires_us=chain.claims["exp"] * 1_000_000, depth_left=chain.claims["depth"],
    )  # fmt: skip
    found = walk(root, chain, presenter, Ways(meet_rights, read))
    if isinstance(found, Refusal):
        return found.code
    if not all(lives(grant, now_us) for grant in found):
        return "expired"
    opened.evaluate(presenter, now_us)
    return found


def rights(token: str, agent: Agent) -> tuple[Right, ...]:
    found = judged(token, agent.presenter)
    assert not isinstance(found, str), found
    return found[-1].rights


@contextmanager
def soon() -> Iterator[None]:
    """Insist that what is done inside takes no longer than an honest token may."""
    began = time.perf_counter()
    yield
    assert time.perf_counter() - began < SOON_SEC


# --- widening --------------------------------------------------------------------------------


@pytest.mark.must("Forgery 5")
@pytest.mark.parametrize("wider", [EVERYTHING, NODE, [{**CONVERT[0], "mounts": ["docs", "secrets"]}], CONVERT + NODE])
def test_a_hop_that_asks_for_more_gets_no_more(wider: Any) -> None:
    """Whoever narrows or takes over a token cannot write rights into a hop that the token did not have before."""
    narrow = HOLDER.narrow(minted(ISSUER, ANN), {"authorization_details": CONVERT})
    had = rights(narrow, ANN)
    for token, agent in (
        (HOLDER.narrow(narrow, {"authorization_details": wider, "exp": NOW_SEC + 9_999}), ANN),
        (passed(narrow, ANN, BOB, authorization_details=wider, exp=NOW_SEC + 9_999, depth=99), BOB),
    ):
        assert set(rights(token, agent)) <= set(had)
        found = judged(token, agent.presenter)
        assert not isinstance(found, str)
        assert found[-1].expires_us == (NOW_SEC + 600) * 1_000_000
        assert found[-1].depth_left <= 2


@pytest.mark.parametrize(
    "source",
    [
        'crank_grant(hex:7b7d); holder_key(hex:00); issued_by(hex:00);',
        'presenter("x"); time(2000-01-01T00:00:00Z);',
        'delegated(1, "x");',
        "crank_hop(hex:7b7d); crank_hop(hex:7b7d);",
        "crank_hop(hex:7b7d); allow(true);",
        "crank_hop(hex:7b7d); crank_grant($x) <- crank_hop($x);",
        "crank_hop(hex:7b7d); check if true;",
        "trusting previous; crank_hop(hex:7b7d); check if true;",
        'crank_hop("{}");',
        "crank_hop(hex:5b5d);",
        "crank_hop(hex:7b2261223a312c2261223a327d);",
        "crank_hop(hex:ff);",
        "check all time($t), $t < 2030-01-01T00:00:00Z;",
        "check if time($t), $t > 2020-01-01T00:00:00Z;",
        'check if presenter("x") or true;',
        "reject if false;",
        "",
    ],
)  # fmt: skip
def test_a_block_of_any_other_form_ends_the_token(source: str) -> None:
    """Facts of the first block said again, facts of the verifier, rules, other checks: none of it is evaluated."""
    token = appended(minted(ISSUER, ANN), KEYS.signing(), source)
    assert judged(token, ANN.presenter) == "invalid_token"


def test_a_scope_that_is_not_printed_weakens_nothing() -> None:
    """The library prints no scope of a whole block; one that is hidden so changes neither rights nor holder nor end."""
    token = minted(ISSUER, ANN)
    hidden = appended(token, KEYS.signing(), "trusting previous; crank_hop(hex:7b7d);")
    assert rights(hidden, ANN) == rights(token, ANN)
    assert judged(hidden, EVE.presenter) == "token_not_yours"
    for stranger in (EVE, BOB):
        with pytest.raises(NotAuthenticated):
            ISSUER.open(hidden).evaluate(stranger.presenter, NOW_US)


def test_facts_for_another_holder_in_a_plain_block_are_worth_nothing() -> None:
    """Whoever finds a token cannot name themselves its holder: that takes the holder's signature."""
    name = f'crank_hop(hex:7b7d); delegated(1, "{EVE.jkt}"); check if presenter("{EVE.jkt}");'
    token = minted(ISSUER, ANN)
    assert judged(appended(token, KEYS.signing(), name), EVE.presenter) == "delegation_not_by_holder"
    assert judged(signed(token, KEYS.signing(), EVE.key, name), EVE.presenter) == "delegation_not_by_holder"


# --- theft and passing on --------------------------------------------------------------------


@pytest.mark.must("Forgery 3")
def test_a_thief_with_the_token_and_another_key_is_refused() -> None:
    """Every byte of the token without its holder's key opens nothing, at any place of the chain."""
    token = minted(ISSUER, ANN)
    for stolen in (token, HOLDER.narrow(token, {}), passed(token, ANN, BOB)):
        assert judged(stolen, EVE.presenter) == "token_not_yours"
        assert judged(HOLDER.narrow(stolen, {}), EVE.presenter) == "token_not_yours"


def test_the_giver_cannot_use_what_they_gave_to_another() -> None:
    """A token passed on is the next holder's; the giver still has the one before."""
    assert judged(passed(minted(ISSUER, ANN), ANN, BOB), ANN.presenter) == "token_not_yours"


@pytest.mark.must("Forgery 4")
def test_passing_on_needs_depth() -> None:
    """A token without depth, a third hop, and a hop beyond what the giver left are refused."""
    assert judged(passed(minted(ISSUER, ANN, depth=0), ANN, BOB), BOB.presenter) == "delegation_not_allowed"
    twice = passed(passed(minted(ISSUER, ANN), ANN, BOB), BOB, CAT)
    assert not isinstance(judged(twice, CAT.presenter), str)
    assert judged(passed(twice, CAT, EVE), EVE.presenter) == "delegation_not_allowed"
    last = passed(minted(ISSUER, ANN), ANN, BOB, depth=0)
    assert judged(passed(last, BOB, CAT), CAT.presenter) == "delegation_not_allowed"


def test_a_delegatee_without_leave_cannot_pass_it_on_with_their_own_key() -> None:
    """Named by a thumbprint alone, they may present it; their own hop breaks the check of the one before."""
    token = HOLDER.pass_on(minted(ISSUER, ANN), {}, Holder(BOB.jkt), ANN.pem)
    assert not isinstance(judged(token, BOB.presenter), str)
    with pytest.raises(NotAuthenticated):
        judged(passed(token, BOB, EVE), EVE.presenter)
    byname = HOLDER.pass_on(minted(ISSUER, ANN), {}, Holder("spiffe://td/agent/bob"), ANN.pem)
    assert not isinstance(judged(byname, BOB.presenter), str)
    assert judged(signed(byname, KEYS.signing(), BOB.key, hop(2, EVE)), EVE.presenter) == "delegation_not_by_holder"


def hop(turn: int, agent: Agent) -> str:
    """Return the text of a hop to an agent, as a tool of somebody else could write it."""
    return f'crank_hop(hex:7b7d); delegated({turn}, "{agent.jkt}"); check if presenter("{agent.jkt}");'


def test_a_token_given_back_is_nobody_elses() -> None:
    """A loop of hops satisfies its own checks nowhere: a stranger is refused by rules and by evaluation alike."""
    loop = passed(passed(minted(ISSUER, ANN), ANN, BOB), BOB, ANN)
    assert not isinstance(judged(loop, ANN.presenter), str)
    assert judged(loop, EVE.presenter) == "token_not_yours"
    with pytest.raises(NotAuthenticated):
        ISSUER.open(loop).evaluate(EVE.presenter, NOW_US)


def test_a_turn_said_twice_or_skipped_is_refused() -> None:
    """A hop that counts wrongly would satisfy the checks of another one."""
    token = minted(ISSUER, ANN)
    for turn in (0, 2, 9):
        assert judged(signed(token, KEYS.signing(), ANN.key, hop(turn, BOB)), BOB.presenter) == "invalid_token"


# --- ends ------------------------------------------------------------------------------------


def test_a_revoked_hop_ends_what_grew_from_it_and_nothing_else() -> None:
    """Each hop has an id of its own: what comes after it ends, what was before and beside it lives."""
    root = minted(ISSUER, ANN)
    bob, cat = passed(root, ANN, BOB), passed(root, ANN, CAT)
    onward = passed(bob, BOB, EVE)
    revoked = frozenset({ISSUER.open(bob).chain.hops[0].revocation_id})
    assert judged(bob, BOB.presenter, revoked=revoked) == "revoked"
    assert judged(HOLDER.narrow(bob, {}), BOB.presenter, revoked=revoked) == "revoked"
    assert judged(onward, EVE.presenter, revoked=revoked) == "revoked"
    for token, agent in ((root, ANN), (cat, CAT)):
        assert not isinstance(judged(token, agent.presenter, revoked=revoked), str)
    everything = frozenset({ISSUER.open(root).chain.revocation_id})
    for token, agent in ((root, ANN), (bob, BOB), (cat, CAT), (onward, EVE)):
        assert judged(token, agent.presenter, revoked=everything) == "revoked"


def test_the_same_hop_made_again_is_another_one() -> None:
    """Revoking one hop does not forbid its giver to trust the same holder anew."""
    root = minted(ISSUER, ANN)
    first, second = passed(root, ANN, BOB), passed(root, ANN, BOB)
    revoked = frozenset({ISSUER.open(first).chain.hops[0].revocation_id})
    assert not isinstance(judged(second, BOB.presenter, revoked=revoked), str)


def test_a_revoked_token_does_not_live_again_by_another_signature() -> None:
    """Everybody can write a second valid ECDSA signature over the same block; its id is that of the first."""
    token = minted(ISSUER, ANN)
    fields = unpacked(token)
    where = blocks(fields)[0]
    r, s = decode_dss_signature(part(fields, where, 3))
    twin = packed(with_part(fields, where, 3, encode_dss_signature(r, ORDER - s)))
    own = public(point_of(KEYS.signing().public_key()))
    before, after = (biscuit_auth.Biscuit.from_base64(one, own).revocation_ids for one in (token, twin))
    assert before != after, "the library itself takes the twin for another token"
    assert ISSUER.revocation_ids(twin) == ISSUER.revocation_ids(token)
    assert judged(twin, ANN.presenter, revoked=frozenset(ISSUER.revocation_ids(token))) == "revoked"


def test_a_revoked_token_does_not_live_again_by_another_spelling() -> None:
    """Padding, line ends, the other alphabet, and fields that nobody knows: refused, or the same ids."""
    token = minted(ISSUER, ANN)
    raw = base64.urlsafe_b64decode(token)
    spellings = [
        token.rstrip("="), token + "=", token + "\n", " " + token, token.replace("-", "+").replace("_", "/"),
        base64.urlsafe_b64encode(raw + b"\x78\x01").decode(), base64.urlsafe_b64encode(b"\x78\x01" + raw).decode(),
    ]  # fmt: skip
    for other in spellings:
        assert judged(other, ANN.presenter, revoked=frozenset(ISSUER.revocation_ids(token))) in {
            "revoked",
            "invalid_token",
        }


def test_an_expired_hop_ends_the_token_and_not_the_one_before() -> None:
    """The shortest end along the chain counts, at the very second."""
    root = minted(ISSUER, ANN)
    token = passed(root, ANN, BOB, exp=NOW_SEC + 30)
    assert not isinstance(judged(token, BOB.presenter, now_us=NOW_US + 29_999_999), str)
    assert judged(token, BOB.presenter, now_us=NOW_US + 30_000_000) == "expired"
    assert not isinstance(judged(root, ANN.presenter, now_us=NOW_US + 30_000_000), str)


@pytest.mark.parametrize("name", ["local", "key:claude/k-0123456789ab", "urn:a:b", "spiffe://td", "spiffe://TD/a", "A" * 42])
def test_whoever_passes_a_token_on_invents_no_name(name: str) -> None:
    """The next holder is a key or a SPIFFE ID: records never tell of the owner, or of a key, what a holder wrote."""
    token = HOLDER.pass_on(minted(ISSUER, ANN), {}, Holder(name), ANN.pem)
    with pytest.raises(NotAuthenticated):
        ISSUER.open(token)


# --- load and bombs --------------------------------------------------------------------------

NUMBERS = "".join(f"n({number});" for number in range(30))
BOMBS = {
    "a join within one round, which no limit of the library ends": NUMBERS
    + "check if n($a), n($b), n($c), n($d), n($e), n($f), n($g), n($h), $a + $b + $c + $d + $e + $f + $g + $h < 0;",
    "rules that feed themselves": "".join(f"e({n}, {n + 1});" for n in range(200))
    + "p($a, $b) <- e($a, $b); p($a, $c) <- p($a, $b), p($b, $c);",
    "rules that make thousands of facts": NUMBERS + "m($a, $b, $c) <- n($a), n($b), n($c);",
    "a pattern that backtracks": 'check if "' + "a" * 40 + '".matches("(a+)+$b");',
    "a pattern that is large": 'check if "a".matches("((a{100}){100}){100}");',
    "a division by zero": "check if 1 / 0 == 1;",
    "a sum that overflows": "check if 9223372036854775807 + 1 == 0;",
    "nested sets": "check if " + " && ".join("[1, 2, 3].contains(1)" for _ in range(200)) + ";",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_programs_in_blocks_are_not_run(bomb: str) -> None:
    """Whatever its evaluation would cost, a block that is a program is refused at once, as no token of this node."""
    token = minted(ISSUER, ANN)
    with soon():
        assert judged(appended(token, KEYS.signing(), bomb), ANN.presenter) == "invalid_token"
        assert judged(signed(token, KEYS.signing(), ANN.key, bomb), ANN.presenter) == "invalid_token"
        assert judged(appended(token, KEYS.signing(), "crank_hop(hex:7b7d);" + bomb), ANN.presenter) == "invalid_token"


LONG_TEXT = b"A" * 5_000
# The first text of a token's own: its number, as a term, and a list that names it again and again.
NAMED = build([(3, 0, written(1024))])
LIST = build([(9, 2, build([(1, 2, NAMED)] * 1_000))])
PARENTHESES = build([(2, 2, build([(1, 0, written(1))]))])
ADDED = build([(3, 2, build([(1, 0, written(9))]))])
PRINTED: dict[str, list[tuple[int, int, bytes]]] = {
    "a list in hundreds of parentheses": [(1, 2, build([(1, 2, LIST)])), *[(1, 2, PARENTHESES)] * 800],
    "a sum of hundreds": [(1, 2, build([(1, 2, NAMED)])), *[(1, 2, build([(1, 2, NAMED)])), (1, 2, ADDED)] * 700],
}


@pytest.mark.parametrize("expression", PRINTED.values(), ids=PRINTED.keys())
def test_a_block_that_would_take_long_to_print_is_not_printed(expression: list[tuple[int, int, bytes]]) -> None:
    """Anybody can send it, before any signature is looked at: a text named a thousand times, copied a thousand times."""
    fields = unpacked(minted(ISSUER, ANN))
    rule = build([(1, 2, build([(1, 0, written(27))])), (3, 2, build(expression))])
    bomb = build([(1, 2, LONG_TEXT), (3, 0, written(6)), (6, 2, build([(1, 2, rule)]))])
    token = packed(with_part(fields, blocks(fields)[0], 1, bomb))
    assert len(token) < 20_480
    began = time.process_time()
    assert judged(token, ANN.presenter) == "invalid_token"
    for look in (ISSUER.claimed_id, ISSUER.revocation_ids):
        with pytest.raises(NotAuthenticated):
            look(token)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("end", range(1, 40))
def test_a_token_that_is_cut_off_is_no_token(end: int) -> None:
    """Wherever its bytes end."""
    token = minted(ISSUER, ANN)
    assert judged(token.rstrip("=")[:-end], ANN.presenter) == "invalid_token"


def test_the_longest_names_fit() -> None:
    """A holder whose SPIFFE ID is as long as the standard allows is none of those who say too much."""
    name = "spiffe://td/" + "a" * (2_048 - len("spiffe://td/"))
    token = HOLDER.pass_on(minted(ISSUER, ANN), {"exp": NOW_SEC + 30}, Holder(name), ANN.pem)
    assert not isinstance(judged(token, Presenter(BOB.jkt, name)), str)


def test_huge_tokens_and_many_blocks_are_refused_at_once() -> None:
    """Beyond a size that fits a request's head, and a number of blocks, nothing is read."""
    own = biscuit_auth.Biscuit.from_base64(minted(ISSUER, ANN), public(point_of(KEYS.signing().public_key())))
    empty = biscuit_auth.BlockBuilder("crank_hop(hex:7b7d)")
    for _ in range(40):
        own = own.append(empty)
    with soon():
        assert judged(own.to_base64(), ANN.presenter) == "invalid_token"
        assert judged("A" * 50_000_000, ANN.presenter) == "invalid_token"
        big = appended(minted(ISSUER, ANN), KEYS.signing(), f'x("{"y" * 40_000}")')
        assert judged(big, ANN.presenter) == "invalid_token"


def test_the_longest_honest_token_is_read_at_once() -> None:
    """As many hops as a node reads, with rights in each, are judged long before the evaluator's limit."""
    token = minted(ISSUER, ANN)
    for _ in range(15):
        token = HOLDER.narrow(token, {"authorization_details": CONVERT, "exp": NOW_SEC + 500})
    with soon():
        assert [right.capability for right in rights(token, ANN)] == ["document.convert"]


def test_a_limit_of_the_evaluator_is_no_refusal() -> None:
    """Where the evaluator runs out of time the answer is 503, try again; the same token passes on a calm machine."""
    hurried = BiscuitIssuer(KEYS, evaluation_sec=0.0)
    token = passed(minted(ISSUER, ANN), ANN, BOB)
    with pytest.raises(Unavailable) as caught:
        judged(token, BOB.presenter, issuer=hurried)
    assert caught.value.error_code == "token_check_limit"
    assert caught.value.retry_after_sec > 0
    assert not isinstance(judged(token, BOB.presenter), str)


def test_load_never_turns_a_good_token_down() -> None:
    """While every core of the machine is wanted twice, good tokens pass, each time."""
    token = passed(minted(ISSUER, ANN), ANN, BOB)
    burn = [sys.executable, "-c", "while True: pass"]
    with ExitStack() as burning:
        for _ in range(2 * (os.cpu_count() or 1)):
            process = burning.enter_context(subprocess.Popen(burn))
            burning.callback(process.kill)
        assert all(not isinstance(judged(token, BOB.presenter), str) for _ in range(200))


def test_a_wrong_token_under_a_limit_is_still_refused_by_the_rules() -> None:
    """A thief learns nothing from a busy machine: who may present is decided before the evaluator is asked."""
    hurried = BiscuitIssuer(KEYS, evaluation_sec=0.0)
    assert judged(minted(ISSUER, ANN), EVE.presenter, issuer=hurried) == "token_not_yours"


def test_a_key_that_the_token_brings_is_not_believed() -> None:
    """A token says whose key signed it, for the tools of its holders; the node looks the key up in its own set."""
    forger = new_key()
    own = biscuit_auth.Biscuit.from_base64(
        minted(BiscuitIssuer(Keys(forger)), EVE), public(point_of(forger.public_key()))
    )
    builder = biscuit_auth.BiscuitBuilder(own.block_source(0))
    builder.set_root_key_id(ISSUER.public_keys()[0]["root_key_id"])
    assert judged(builder.build(secret(forger)).to_base64(), EVE.presenter) == "invalid_token"
