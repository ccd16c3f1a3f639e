"""Who may join, what a worker may offer, whose a manifest is."""

from dataclasses import replace

import pytest

from crank.domain.enrolment import Manifest
from crank.domain.ids import Digest
from crank.domain.rules import enrolment as rules
from crank.errors import InvalidRequest, TooLarge
from crank.testing.contracts_enrolments import sample_enrolment
from tests.unit.domain.rules.builders import capability

KEYS, OTHERS = Digest("1" * 64), Digest("2" * 64)


@pytest.mark.parametrize(
    ("patterns", "name", "allowed"),
    [
        (("*",), "a.b", True),
        (("document.*",), "document.convert", True),
        (("document.*",), "documents.convert", False),
        (("document.*",), "document", False),
        (("document.convert",), "document.convert", True),
        (("document.convert",), "document.convert2", False),
        (("a.b", "c.*"), "c.d.e", True),
        ((), "a.b", False),
    ],
)
def test_a_pattern_stands_for_a_name_a_family_or_everything(patterns: tuple[str, ...], name: str, allowed: bool) -> None:
    """A family ends at its dot; no pattern at all allows nothing."""
    assert rules.allows(patterns, name) is allowed


@pytest.mark.parametrize("pattern", ["", "**", "*.a", "a", "a*", "a.b*", ".*", "A.b", "a..b", "a.*.b", "a." + "b" * 200])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    """A star stands alone, or after a dot at the end."""
    with pytest.raises(InvalidRequest) as caught:
        rules.check_patterns((pattern,))
    assert caught.value.error_code == "invalid_pattern"


def test_patterns_are_bounded_and_none_means_everything() -> None:
    """Each counts once; a node that was invited without any may offer all."""
    assert rules.check_patterns(()) == ("*",)
    assert rules.check_patterns(("a.b", "a.*", "a.b")) == ("a.b", "a.*")
    with pytest.raises(TooLarge):
        rules.check_patterns(tuple(f"a.b{n}" for n in range(65)))


def test_a_token_is_good_once_and_for_the_same_keys_again() -> None:
    """Until it expires: for anybody while unused, then for those keys alone; never once forgotten, never unknown."""
    invited = sample_enrolment("a")
    assert rules.may_join(invited, KEYS, 98)
    assert not rules.may_join(invited, KEYS, 99)
    used = replace(invited, keys=KEYS)
    assert rules.may_join(used, KEYS, 98)
    assert not rules.may_join(used, OTHERS, 98)
    assert not rules.may_join(replace(invited, forgotten_us=5), KEYS, 98)
    assert not rules.may_join(replace(invited, expires_us=None), KEYS, 98)
    assert not rules.may_join(None, KEYS, 98)


def test_a_node_returns_by_its_own_certificate_alone() -> None:
    """A node without one, another's, and a forgotten one do not."""
    known = replace(sample_enrolment("a"), thumbprint=KEYS)
    assert rules.may_return(known, KEYS)
    assert not rules.may_return(known, OTHERS)
    assert not rules.may_return(replace(known, forgotten_us=1), KEYS)
    assert not rules.may_return(sample_enrolment("a"), KEYS)
    assert not rules.may_return(None, KEYS)


def test_a_worker_speaks_for_its_own_node_alone() -> None:
    """One that joined for the node it joined as, one without an enrolment for the controller's own machine."""
    joined = sample_enrolment("a")
    assert rules.place_refusal(joined, joined.node_id, "own") is None
    assert rules.place_refusal(None, "own", "own") is None
    for enrolment, node_id in ((joined, "own"), (joined, "b"), (None, "b"), (replace(joined, forgotten_us=1), "a-00000001")):
        refused = rules.place_refusal(enrolment, node_id, "own")
        assert refused is not None
        assert refused.code == "node_not_enrolled"


def test_what_is_offered_must_be_enrolled() -> None:
    """One capability too many is named; the controller's own machine may offer all."""
    joined = sample_enrolment("a")
    assert rules.offer_refusal(joined, [capability(name="document.x"), capability(name="python.run.core")]) is None
    assert rules.offer_refusal(None, [capability(name="any.thing")]) is None
    refused = rules.offer_refusal(joined, [capability(name="document.x"), capability(name="python.run.docs")])
    assert refused is not None
    assert (refused.code, refused.constraint) == ("capability_not_enrolled", "python.run.docs")


@pytest.mark.must("Forgery 7")
def test_a_manifest_is_this_workers_and_of_now() -> None:
    """Another worker, instance or node, and a clock more than five minutes off, are refused by name."""
    manifest = Manifest("m1", "w", "i", "n", 1000, ())
    true = {"worker_id": "w", "instance_id": "i", "node_id": "n"}
    for now_sec in (700.0, 1000.0, 1300.0):
        assert rules.manifest_refusal(manifest, **true, now_sec=now_sec) is None
    for now_sec in (699.0, 1301.0):
        refused = rules.manifest_refusal(manifest, **true, now_sec=now_sec)
        assert refused is not None
        assert refused.constraint == "iat"
    for name in true:
        refused = rules.manifest_refusal(manifest, **{**true, name: "x"}, now_sec=1000.0)
        assert refused is not None
        assert refused.constraint == name


def test_ids_never_come_back() -> None:
    """The id of a node is its name and chance, and its worker's is made of that."""
    one = rules.make_node_id("gpu", "0190a6a4-7b1c-7d2e-8f00-0123456789ab")
    assert (one, rules.worker_of(one)) == ("gpu-456789ab", "main-gpu-456789ab")
    assert rules.make_token("x") == "crank_join_x"
