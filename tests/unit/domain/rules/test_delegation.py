"""Tests of walking a chain: a hop takes away, is passed on by its holder alone, and no oftener than it may be."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.domain.chain import Chain, Holder, Hop, Presenter
from crank.domain.grant import Grant, GrantId, Right
from crank.domain.ids import LOCAL_TENANT, CredentialId
from crank.domain.job import Refusal
from crank.domain.rules.delegation import Ways, walk
from crank.domain.rules.grant import is_within, meet_rights
from tests.unit.domain.rules.test_grant import rights

ROOT = Grant(
    GrantId("g"),
    LOCAL_TENANT,
    CredentialId("k"),
    "local",
    (Right("*"),),
    issued_us=0,
    expires_us=9_000_000,
    depth_left=2,
)
WORDS: dict[str, tuple[Right, ...]] = {"a": (Right("a.b"),), "all": (Right("*"),), "none": (Right("c.d"),)}


def read(source: Any) -> tuple[Right, ...] | Refusal:
    return WORDS.get(source) or Refusal("unreadable", "It is none.", "Correct it.", "authorization_details")


def chain(*hops: Hop) -> Chain:
    return Chain("r0", {}, Holder("ann"), hops)


def plain(**claims: Any) -> Hop:
    return Hop("r-plain", None, None, claims)


def to(name: str, by: str | None, **claims: Any) -> Hop:
    return Hop(f"r-{name}", by, Holder(name), claims)


def walked(*hops: Hop, presenter: str = "ann", root: Grant = ROOT) -> tuple[Grant, ...] | Refusal:
    return walk(root, chain(*hops), Presenter(presenter), Ways(meet_rights, read))


def last(*hops: Hop, presenter: str = "ann") -> Grant:
    found = walked(*hops, presenter=presenter)
    assert not isinstance(found, Refusal), found
    return found[-1]


def code(*hops: Hop, presenter: str = "ann", root: Grant = ROOT) -> str:
    found = walked(*hops, presenter=presenter, root=root)
    assert isinstance(found, Refusal)
    return found.code


def test_a_plain_hop_narrows_for_whom_it_was() -> None:
    """Without another holder the rights shrink and the first holder still presents it."""
    found = last(plain(authorization_details="a", exp=5))
    assert (found.rights, found.expires_us, found.holder_jkt) == ((Right("a.b"),), 5_000_000, "ann")
    assert (found.parent, found.grant_id, found.depth_left) == (GrantId("g"), GrantId("r-plain"), 2)


def test_a_hop_to_another_is_theirs_alone() -> None:
    """After it was passed on, the next holder presents it, and the giver no more."""
    hop = to("bob", "ann", authorization_details="a")
    assert last(hop, presenter="bob").actors == ("bob",)
    assert last(hop, presenter="bob").depth_left == 1
    assert code(hop, presenter="ann") == "token_not_yours"


@pytest.mark.must("Forgery 5")
def test_nothing_in_a_hop_widens() -> None:
    """A later end, wider rights and a greater depth in a hop are as if they were not said."""
    found = last(
        plain(authorization_details="a", exp=5),
        to("bob", "ann", authorization_details="all", exp=50, depth=9),
        presenter="bob",
    )
    assert (found.rights, found.expires_us, found.depth_left) == ((Right("a.b"),), 5_000_000, 1)


@given(outer=st.lists(rights, min_size=1, max_size=3), inner=st.lists(rights, min_size=1, max_size=3))
def test_what_a_hop_leaves_lies_within_what_was(outer: list[Right], inner: list[Right]) -> None:
    """Whatever two lists of rights say, each right that comes out of a hop is within one that went in."""
    root = Grant(GrantId("g"), LOCAL_TENANT, CredentialId("k"), "local", tuple(outer), 0, 9_000_000)
    hop = plain(authorization_details="x")
    found = walk(root, chain(hop), Presenter("ann"), Ways(meet_rights, lambda _: tuple(inner)))
    if not isinstance(found, Refusal):
        assert all(any(is_within(one, whole) for whole in outer) for one in found[-1].rights)


def test_only_the_holder_passes_it_on() -> None:
    """A hop by a stranger's key, by the giver once more, or by nobody's key is refused."""
    assert code(to("bob", "eve"), presenter="bob") == "delegation_not_by_holder"
    assert code(to("bob", None), presenter="bob") == "delegation_not_by_holder"
    assert code(to("bob", "ann"), to("cat", "ann"), presenter="cat") == "delegation_not_by_holder"


def test_depth_is_counted_down() -> None:
    """Two hops may be taken, a third is refused; a giver may leave less."""
    hops = [to("bob", "ann"), to("cat", "bob"), to("dan", "cat")]
    assert last(*hops[:2], presenter="cat").depth_left == 0
    assert code(*hops, presenter="dan") == "delegation_not_allowed"
    assert code(to("bob", "ann", depth=0), to("cat", "bob"), presenter="cat") == "delegation_not_allowed"


def test_a_holder_named_by_spiffe_id_presents_by_it() -> None:
    """A certificate's name is as good as a key's thumbprint, and the grant is bound to the key that was proven."""
    name = "spiffe://td/agent/bob"
    found = walk(ROOT, chain(to(name, "ann")), Presenter("bobs-key", name), Ways(meet_rights, read))
    assert not isinstance(found, Refusal)
    assert found[-1].holder_jkt == "bobs-key"
    assert code(to(name, "ann"), to("cat", "bobs-key"), presenter="cat") == "delegation_not_by_holder"


@pytest.mark.parametrize(
    "hop",
    [
        plain(scope="*"), plain(exp=True), plain(exp="5"), plain(exp=-1), plain(depth=1), to("ann", "ann", depth=1.5),
        Hop("r", "ann", None, {}),
    ],
)  # fmt: skip
def test_a_hop_that_says_something_else_is_refused(hop: Hop) -> None:
    """What is not known, or means nothing, is not passed over: a limit that nobody honours must not look like one."""
    assert code(hop) == "hop_unreadable"


def test_rights_that_cannot_be_read_or_met_refuse_the_token() -> None:
    """The refusals of reading and of meeting come through; rights that meet nothing leave nothing."""
    assert code(plain(authorization_details="?")) == "unreadable"
    assert last(plain(authorization_details="a"), plain(authorization_details="none")).rights == ()
