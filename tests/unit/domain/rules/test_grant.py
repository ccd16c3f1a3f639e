"""Tests of narrowing: nothing that comes out of it allows more than anything that went in."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.adapters.json_schema import JsonSchemaChecker
from crank.domain.grant import Grant, GrantId, Right
from crank.domain.ids import LOCAL_TENANT, CredentialId, MountId
from crank.domain.job import Refusal
from crank.domain.json import canonical
from crank.domain.rules import grant as rules
from crank.domain.rules.grant import Call, Ceiling

PATTERNS = ["*", "a.*", "a.b.*", "a.b", "a.c", "a.b.c", "b.*", "b.x", "node.*", "node.keys.list"]
NAMES = ["a.b", "a.c", "a.b.c", "b.x", "node.keys.list", "c.d"]
SCHEMAS = [{"required": ["x"]}, {"properties": {"x": {"const": 1}}}, {"maxProperties": 1}]


def satisfies(schema, args):
    return not JsonSchemaChecker().check(schema, args, field="args")


# Some of the ends below have passed then.
NOW_US = 10_000_000
limits = st.none() | st.integers(0, 12)
rights = st.builds(
    Right,
    capability=st.sampled_from(PATTERNS),
    version=st.sampled_from([None, "1.0.0", "1.2.0"]),
    constraints=st.lists(st.sampled_from(SCHEMAS), max_size=2).map(lambda found: tuple(sorted(found, key=canonical))),
    mounts=st.none() | st.lists(st.sampled_from(["docs", "pics", "m-1"]), unique=True).map(lambda m: tuple(sorted(m))),
    calls_max=st.none() | st.integers(1, 12),
    budget_max=limits,
    expires_at_sec=st.sampled_from([None, 1, 9, 10, 11]),
)
ceilings = st.builds(
    Ceiling,
    rights=st.lists(rights, min_size=1, max_size=4).map(tuple),
    expires_us=st.integers(1, 1000),
    depth=st.integers(0, 4),
)
calls = st.builds(
    Call,
    capability=st.sampled_from(NAMES),
    version=st.sampled_from([None, "1", "1.0.0", "1.2.0"]),
    args=st.sampled_from([None, {}, {"x": 1}, {"x": 2}, {"x": 1, "y": 2}, [1], "x"]),
    mounts=st.lists(
        st.sampled_from([(MountId("m-1"), "docs"), (MountId("m-2"), "pics"), (MountId("m-3"), None)]), unique=True
    ).map(tuple),
    has_code=st.booleans(),
)


@given(requested=ceilings, held=ceilings, role=ceilings)
def test_the_result_lies_within_every_side_in_every_field(requested, held, role):
    """Each right that comes out is within some right of each side; so are the end and the depth."""
    found = rules.narrow(requested, held, role)
    if isinstance(found, Refusal):
        return
    for side in (requested, held, role):
        assert found.expires_us <= side.expires_us
        assert found.depth <= side.depth
        for right in found.rights:
            assert any(rules.is_within(right, one) for one in side.rights)


@given(requested=ceilings, held=ceilings, call=calls)
def test_what_the_result_covers_is_covered_by_every_side(requested, held, call):
    """A call that the narrowed rights allow is allowed by what was asked for and by what was held."""
    found = rules.meet_rights(requested.rights, held.rights)
    if isinstance(found, Refusal) or isinstance(rules.covering(found, call, satisfies, now_us=NOW_US), Refusal):
        return
    for side in (requested, held):
        assert not isinstance(rules.covering(side.rights, call, satisfies, now_us=NOW_US), Refusal)


@given(requested=ceilings, held=ceilings)
def test_counts_are_shared_out_and_never_multiplied(requested, held):
    """Where every right of a side is counted, all that comes out together is at most what went in together."""
    found = rules.meet_rights(requested.rights, held.rights)
    assert not isinstance(found, Refusal)
    for side in (requested.rights, held.rights):
        for field in ("calls_max", "budget_max"):
            given_limits = [getattr(right, field) for right in side]
            if None not in given_limits:
                assert sum(getattr(right, field) for right in found) <= sum(given_limits)


@given(held=ceilings)
def test_asking_for_all_that_is_held_changes_nothing_that_a_call_could_see(held):
    """Narrowing by everything keeps each call that was allowed, node operations aside unless they are asked for."""
    everything = Ceiling(rules.OF_THE_OWNER, 10_000, rules.DEPTH_MAX)
    found = rules.narrow(everything, held)
    assert not isinstance(found, Refusal)
    assert found.expires_us == held.expires_us
    for right in held.rights:
        if right.calls_max != 0:
            assert any(rules.within(right.capability, one.capability) for one in found.rights)


def test_everything_does_not_reach_what_is_the_owners():
    """`*` names no operation of the node; those are named."""
    assert not rules.within("node.keys.list", "*")
    assert not rules.within("node.*", "*")
    assert rules.within("node.keys.list", "node.*")
    assert not rules.within("*", "node.*")


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        ("a.b", "a.*", True),
        ("a.*", "a.*", True),
        ("a.b.*", "a.*", True),
        ("a.*", "a.b.*", False),
        ("ab.c", "a.*", False),
        ("*", "a.*", False),
        ("a.*", "*", True),
    ],
)
def test_patterns_nest_by_whole_words(inner, outer, expected):
    """A prefix ends at a dot, and a wider pattern is never within a narrower one."""
    assert rules.within(inner, outer) is expected


def test_nothing_in_common_is_refused_with_a_sentence():
    """An exchange for what is not held says so instead of granting an empty token."""
    asked = Ceiling((Right("a.b"),), 10, 0)
    refused = rules.narrow(asked, Ceiling((Right("c.d"),), 10, 0))
    assert isinstance(refused, Refusal)
    assert refused.code == "nothing_granted"


def test_a_result_that_cannot_be_written_down_is_refused():
    """Lists that would multiply into hundreds of rights end in a refusal, not in a long token."""
    many = [Right("*", constraints=({"minProperties": place},)) for place in range(8)]
    refused = rules.meet_rights(many, [Right("*", constraints=({"maxProperties": 9 + n},)) for n in range(8)])
    assert isinstance(refused, Refusal)
    assert refused.code == "too_many_rights"


@pytest.mark.parametrize("args", [None, [], [1], "text", 4])
def test_args_that_are_no_object_do_not_slip_past_constraints(args):
    """Most words of JSON Schema say nothing of other types, so those are refused where constraints are set."""
    right = Right("a.b", constraints=({"required": ["dry_run"]},))
    refused = rules.covering([right], Call("a.b", args=args), satisfies, now_us=NOW_US)
    assert isinstance(refused, Refusal)
    assert refused.code == "args_not_granted"


@given(held=st.lists(rights, max_size=4), call=calls)
def test_code_comes_by_no_right_with_constraints(held, call):
    """Whatever its args are; where nothing else is wrong, the refusal says that it is the code."""
    found = rules.covering(held, replace(call, has_code=True), satisfies, now_us=NOW_US)
    if isinstance(found, Refusal):
        plain = rules.covering([replace(one, constraints=()) for one in held], call, satisfies, now_us=NOW_US)
        assert (found.code == "code_not_granted") is not isinstance(plain, Refusal)
    else:
        assert not any(held[place].constraints for place in found)


def test_the_refusal_names_what_came_closest():
    """Of several rights the one that fits best says what is wrong."""
    rights = [Right("b.x"), Right("a.b", version="1.0.0"), Right("a.b", mounts=("docs",))]
    refused = rules.covering(rights, Call("a.b", mounts=((MountId("m-2"), "pics"),)), satisfies, now_us=NOW_US)
    assert isinstance(refused, Refusal)
    assert refused.code == "mounts_not_granted"


@pytest.mark.parametrize(
    "limit",
    [
        {"calls_max": 1},
        {"budget_max": 0},
        {"mounts": ()},
        {"version": "1.0.0"},
        {"constraints": (SCHEMAS[0],)},
        {"expires_at_sec": 1},
    ],
)
def test_what_the_owner_may_do_is_named_whole_or_not_at_all(limit):
    """No call is counted there and no args are looked at, so that a right with a limit would have none."""
    assert rules.names_whole([Right("a.*", calls_max=1), Right("node.*")], "node.keys.list")
    assert not rules.names_whole([Right("*"), Right("node.keys.list", **limit)], "node.keys.list")


@pytest.mark.parametrize(("expires_at_sec", "code"), [(11, None), (10, "right_expired"), (9, "right_expired")])
def test_a_right_ends_at_its_second_and_the_others_go_on(expires_at_sec, code):
    """From the very second on; another right of the same token is not concerned."""
    rights = [Right("a.b", expires_at_sec=expires_at_sec), Right("c.d")]
    found = rules.covering(rights, Call("a.b"), satisfies, now_us=NOW_US)
    assert (found.code if isinstance(found, Refusal) else None) == code
    assert rules.covering(rights, Call("c.d"), satisfies, now_us=NOW_US) == (1,)


def test_what_was_made_is_named_after_the_right_has_ended():
    """An end stops what would be made: whoever made something can still look at it, and stop it."""
    ended = Right("a.b", version="1.0.0", mounts=("docs",), calls_max=1, expires_at_sec=1)
    made = Call("a.b", version="1.0.0", mounts=((MountId("m-1"), "docs"),))
    assert rules.could_have_made([ended], made, ())
    for other in (Call("a.c"), Call("a.b"), replace(made, mounts=((MountId("m-2"), "pics"),))):
        assert not rules.could_have_made([ended], other, ())


@given(held=st.lists(rights, max_size=3), made_by=st.lists(rights, max_size=3), call=calls)
def test_constraints_name_no_more_than_what_their_schemas_would(held, made_by, call):
    """Whatever was covered where it was made, and is named by other rights, those would have covered as well."""
    call = replace(call, has_code=False)
    if isinstance(rules.covering(made_by, call, satisfies, now_us=0), Refusal):
        return
    if rules.could_have_made(held, call, made_by):
        lasting = [replace(right, expires_at_sec=None) for right in held]
        assert not isinstance(rules.covering(lasting, call, satisfies, now_us=0), Refusal)


def test_rights_without_a_count_are_used_first():
    """A counted right is spared while another allows the same."""
    assert rules.covering([Right("a.b", calls_max=1), Right("a.*")], Call("a.b"), satisfies, now_us=NOW_US) == (1, 0)


def test_a_grant_lives_from_its_beginning_until_its_end_or_its_revocation():
    """Before, after, and once revoked it allows nothing."""
    grant = Grant(GrantId("g"), LOCAL_TENANT, CredentialId("k"), "s", (Right("*"),), issued_us=10, expires_us=20)
    assert [rules.lives(grant, now) for now in (9, 10, 19, 20)] == [False, True, True, False]
    assert not rules.lives(replace(grant, revoked_us=15), 12)


def test_each_constraint_is_written_once_however_many_rights_are_compared(monkeypatch):
    """Two lists of one right each with many constraints cost what writing them costs, not that times their pairs."""
    written = []

    def write(schema):
        written.append(schema)
        return canonical(schema)

    monkeypatch.setattr(rules, "canonical", write)
    left = [Right("*", constraints=({"minProperties": n}, {"maxProperties": 99})) for n in range(11)]
    right = [Right("*", constraints=({"maxProperties": 100 + n},)) for n in range(11)]
    met = rules.meet_rights(left, right)
    assert isinstance(met, Refusal)
    # Once for each side, and once for each of the 121 results, which hold three.
    assert len(written) <= 2 * 11 + 11 + 3 * 121
