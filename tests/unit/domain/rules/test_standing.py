"""Who may still be believed, and when a certificate is to be renewed."""

import pytest

from crank.domain.identity import parse_spiffe_id
from crank.domain.rules.standing import is_due, refusal
from crank.domain.trust import Peer

W1 = parse_spiffe_id("spiffe://test.internal/worker/w1")
PEER = Peer(W1, None, ("ab", "cd"), 0, 1_000, "")


def test_a_sound_peer_passes_until_its_end():
    """Up to the last moment it is believed, and from its end on not."""
    assert refusal(PEER, banned=[], revoked=[], now_us=999) is None
    late = refusal(PEER, banned=[], revoked=[], now_us=1_000)
    assert late is not None
    assert (late.code, late.constraint) == ("identity_expired", "not_after")


@pytest.mark.parametrize(("banned", "revoked"), [([W1], []), ([], ["ab"]), ([], ["cd"])])
def test_what_was_taken_back_is_refused_before_its_end(banned, revoked):
    """By its name, by its serial, or by that of a certificate that signed it; each says what to do."""
    refused = refusal(PEER, banned=banned, revoked=revoked, now_us=1)
    assert refused is not None
    assert refused.code == "identity_revoked"
    assert refused.fix


@pytest.mark.parametrize(("now_us", "chance", "due"), [(449, 0.0, False), (450, 0.0, True), (549, 0.99, True), (500, 0.99, False)])
def test_a_renewal_is_due_about_the_middle(now_us, chance, due):
    """Chance spreads it by a tenth of the certificate's life."""
    assert is_due(0, 1_000, now_us, chance) is due
