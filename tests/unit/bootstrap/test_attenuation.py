"""Tests of narrowing where the holder is: what the tool makes is what a node finds, and too much is refused before."""

import pytest

from crank.adapters.biscuit import BiscuitHolder, BiscuitIssuer
from crank.bootstrap.attenuation import Narrowing, attenuate, describe, make_key
from crank.errors import InvalidRequest
from tests.support.biscuits import NOW_SEC, NOW_US, Agent, Keys, minted, passed

ISSUER = BiscuitIssuer(Keys())
ANN, BOB, CAT = Agent(), Agent(), Agent()
TYPE = "urn:crank:capability"
HELD = [
    {"type": TYPE, "identifier": "document.*", "mounts": ["docs", "pics"], "calls_max": 10},
    {"type": TYPE, "identifier": "python.run.core", "version": "1.0.0"},
]


def token(**changed) -> str:
    return minted(ISSUER, ANN, authorization_details=HELD, **changed)


def left(*, held: str | None = None, **wanted) -> dict:
    """Return what the tool says is left after a narrowing."""
    return describe(attenuate(held or token(), Narrowing(**wanted), now_us=NOW_US))["present"]


def code(*, held: str | None = None, holder: str | None = None, key: bytes | None = None, **wanted) -> str:
    with pytest.raises(InvalidRequest) as caught:
        attenuate(held or token(), Narrowing(**wanted), holder=holder, key_pem=key, now_us=NOW_US)
    assert caught.value.fix
    return caught.value.error_code


def test_each_limit_narrows() -> None:
    """Capability, mounts, constraints, count and end are taken down, each where it was asked for."""
    (right,) = left(
        capabilities=("document.convert",), mounts=("docs",), calls_max=3, constraints=({"required": ["to"]},)
    )["authorization_details"]
    assert right == {
        "type": TYPE, "identifier": "document.convert", "mounts": ["docs"], "calls_max": 3,
        "constraints": [{"required": ["to"]}],
    }  # fmt: skip
    assert left(expires_sec=60)["exp"] == NOW_SEC + 60
    assert left(mounts=())["authorization_details"][0]["mounts"] == []


def test_nothing_asked_leaves_everything() -> None:
    """A hop that takes nothing away leaves rights, end and depth as they were."""
    found = left()
    assert found == {"holder": ANN.jkt, "authorization_details": HELD, "exp": NOW_SEC + 600, "depth": 2}
    assert left(expires_sec=99_999)["exp"] == NOW_SEC + 600


@pytest.mark.parametrize(
    "wanted",
    [
        {"capabilities": ("node.keys.list",)}, {"capabilities": ("*",)}, {"capabilities": ("document.convert", "mail.send")},
        {"capabilities": ("document.convert",), "mounts": ("docs", "secrets")},
        {"capabilities": ("document.convert",), "calls_max": 11},
        {"capabilities": ("python.run.core",), "version": "2.0.0"},
    ],
)  # fmt: skip
def test_more_than_the_token_has_is_refused_by_the_tool(wanted) -> None:
    """A node would take away what is too much without a word; the tool says it where it can be mended."""
    assert code(**wanted) == "wider_than_token"


@pytest.mark.parametrize(
    "wanted",
    [{"capabilities": ("Not A Name",)}, {"calls_max": 0}, {"mounts": ("../x",)}, {"constraints": ({"type": 5},)}, {"version": "x"}],
)  # fmt: skip
def test_what_no_node_would_read_is_not_written(wanted) -> None:
    """The tool reads what it writes by the node's own reader."""
    assert code(**wanted) == "invalid_authorization_details"


def test_passing_on_names_signs_and_counts() -> None:
    """The next holder is named, the present one signs, a depth is left; without leave nothing is passed on."""
    made = attenuate(token(), Narrowing(depth=1), holder=public(BOB), key_pem=ANN.pem, now_us=NOW_US)
    assert describe(made)["present"]["holder"] == BOB.jkt
    assert ISSUER.open(made).chain.hops[0].claims == {"depth": 1}
    assert code(holder=public(BOB)) == "usage"
    assert code(depth=1) == "usage"
    assert code(holder=public(BOB), key=BOB.pem) == "not_the_holder"
    assert code(held=token(depth=0), holder=public(BOB), key=ANN.pem) == "delegation_not_allowed"
    twice = passed(made, BOB, CAT)
    assert code(held=twice, holder=public(BOB), key=CAT.pem) == "delegation_not_allowed"


def public(agent: Agent) -> str:
    """Return an agent's public key in PEM."""
    from cryptography.hazmat.primitives import serialization

    pem, spki = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return agent.key.public_key().public_bytes(pem, spki).decode()


def test_a_token_that_ended_is_not_narrowed() -> None:
    """What is over cannot be given a shorter life."""
    assert code(held=token(exp=NOW_SEC - 1), expires_sec=60) == "token_expired"


@pytest.mark.parametrize("text", ["", "e30.e30.e30", "crank_secret"])
def test_other_tokens_are_told_apart(text: str) -> None:
    """An access token or a secret is not a Biscuit, and that is said."""
    with pytest.raises(InvalidRequest) as caught:
        attenuate(text, Narrowing())
    assert caught.value.error_code == "not_a_biscuit"


def test_a_token_says_hop_by_hop_what_it_is() -> None:
    """Inspecting shows who held it, what each hop left, by which ids each can be revoked."""
    made = passed(token(), ANN, BOB, exp=NOW_SEC + 9)
    found = describe(f"  {made}\n")
    assert (found["kind"], found["holder"], found["claims"]["jti"]) == ("biscuit", ANN.jkt, "g-1")
    assert [(hop["holder"], hop["leaves"]) for hop in found["hops"]] == [(BOB.jkt, {"exp": NOW_SEC + 9})]
    assert found["revocation_ids"] == list(ISSUER.revocation_ids(made))


def test_a_hop_that_does_not_hold_is_said() -> None:
    """A token that was passed on too often is refused when it is looked at, as a node would."""
    made = passed(minted(ISSUER, ANN, depth=0), ANN, BOB)
    with pytest.raises(InvalidRequest) as caught:
        describe(made)
    assert caught.value.error_code == "delegation_not_allowed"


def test_a_made_key_holds_and_passes_on() -> None:
    """The key that the tool makes is one that a holder may be bound to, and that signs."""
    private, public_pem, jkt = make_key()
    holder = BiscuitHolder().holder(public_pem.decode())
    assert holder.name == jkt
    made = ISSUER.mint({"jti": "g", "sub": "s", "exp": NOW_SEC, "depth": 1, "authorization_details": HELD}, holder)
    assert attenuate(made, Narrowing(), holder=BOB.jkt, key_pem=private, now_us=NOW_US)
