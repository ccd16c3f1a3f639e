"""Who may do what, and how a secret looks."""

import re
from dataclasses import replace

import pytest

from crank.domain.credential import CredentialKind
from crank.domain.grant import EVERYTHING, OF_A_KEY, OF_THE_OWNER, Right
from crank.domain.ids import JobId
from crank.domain.rules import access
from crank.domain.rules.exchange import Subject
from crank.testing.samples import sample_credential


@pytest.mark.parametrize("action", access.Action)
def test_only_an_owner_may_do_what_is_the_owners(action):
    """Every listed action is refused to both bounded kinds, with a fix, and open to an owner's key."""
    assert access.refusal(sample_credential("a", kind=CredentialKind.OWNER), action) is None
    for kind in (CredentialKind.API, CredentialKind.E2B):
        refused = access.refusal(sample_credential("a", kind=kind), action)
        assert refused is not None
        assert (refused.code, refused.constraint) == ("owner_only", str(action))
        assert refused.fix


def test_a_credential_lives_until_it_is_revoked_or_expires():
    """The moment of expiry itself is too late."""
    made = sample_credential("a")
    assert access.lives(made, 98)
    assert not access.lives(made, 99)
    assert access.lives(replace(made, expires_us=None), 10**18)
    assert not access.lives(replace(made, expires_us=None, revoked_us=1), 2)


def test_a_bounded_key_names_jobs_in_its_own_space():
    """An id that does not begin with the key's own id and a dot is refused; the owner may choose any."""
    made = sample_credential("a")
    assert access.job_id_refusal(made, JobId("k-a.nightly")) is None
    for foreign in ("nightly", "k-a", "k-ab.nightly", "k-b.nightly", "K-a.nightly"):
        refused = access.job_id_refusal(made, JobId(foreign))
        assert refused is not None
        assert "k-a." in refused.fix
    assert access.job_id_refusal(replace(made, kind=CredentialKind.OWNER), JobId("nightly")) is None


def test_secrets_are_recognisable_and_keep_their_chance():
    """An E2B key is what its clients insist on; others carry a prefix and all of their random text."""
    chance = "A" * 43
    assert re.fullmatch(r"e2b_[0-9a-f]{40}", access.make_secret(CredentialKind.E2B, chance))
    assert access.make_secret(CredentialKind.E2B, chance) != access.make_secret(CredentialKind.E2B, chance[1:] + "B")
    assert access.make_secret(CredentialKind.API, chance) == f"crank_{chance}"
    assert access.make_secret(CredentialKind.OWNER, chance) == f"crank_{chance}"


def test_ids_come_from_the_random_tail():
    """Two UUIDs of one millisecond give two ids."""
    first = access.make_credential_id("01a22c25-c053-75ba-a18d-e8c260b2c9b7")
    assert first == "k-e8c260b2c9b7"
    assert access.make_credential_id("01a22c25-c053-75ba-a18d-e8c260b2c9b8") != first


@pytest.mark.parametrize(
    ("kind", "right", "code", "place"),
    [
        (CredentialKind.OWNER, Right(EVERYTHING), "key_rights_of_owner", ""),
        (CredentialKind.API, Right("node.keys.change"), "key_right_owner_only", "[1].identifier"),
        (CredentialKind.API, Right("node.*"), "key_right_owner_only", "[1].identifier"),
        (CredentialKind.API, Right("python.*", calls_max=1), "key_right_counted", "[1].calls_max"),
        (CredentialKind.API, Right("python.*", budget_max=0), "key_right_counted", "[1].budget_max"),
        (CredentialKind.E2B, Right("python.*", version="1.0.0"), "key_right_unspoken", "[1].version"),
        (CredentialKind.E2B, Right("python.*", constraints=({},)), "key_right_unspoken", "[1].constraints"),
    ],
)
def test_no_key_is_made_with_rights_that_nobody_would_honour(kind, right, code, place):
    """An owner's key with any, the owner's own operations, counts, and on E2B what its clients cannot say."""
    refused = access.rights_refusal(kind, (Right("document.*"), right))
    assert refused is not None
    assert (refused.code, refused.constraint) == (code, f"authorization_details{place}")


def test_what_bounds_a_call_may_bound_a_key():
    """Capability, version, args and mounts; on E2B the capability and mounts."""
    full = Right("document.convert", "1.2.0", ({"maxProperties": 1},), ("papers",))
    assert access.rights_refusal(CredentialKind.API, (full, Right(EVERYTHING))) is None
    assert access.rights_refusal(CredentialKind.E2B, (Right("python.run.interpreter", mounts=()),)) is None


def test_the_most_that_comes_of_a_key_is_its_rights():
    """With rights those, none for a key that has none left, and without any all that one of its kind may."""
    made = sample_credential("a")
    assert Subject(replace(made, rights=(Right("python.*"),))).held.rights == (Right("python.*"),)
    assert Subject(replace(made, rights=())).held.rights == ()
    assert Subject(made).held.rights == OF_A_KEY
    assert Subject(replace(made, kind=CredentialKind.OWNER)).held.rights == OF_THE_OWNER
