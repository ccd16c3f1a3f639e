"""What `crank token` makes of what is typed."""

import pytest

from crank.cli.token import Allowed, _claims
from crank.errors import InvalidRequest
from crank.testing.fake_tokens import FakeTokenKeys


def test_what_is_typed_becomes_rights():
    """Each capability that is named is one right, with the same mounts and count; what is not said is not asked."""
    wanted = Allowed(allow=("a.b", "c.*"), mount=("docs",), calls=2, expires="5m", role="r", depth=1).wanted()
    assert wanted["rights"] == [
        {"identifier": "a.b", "mounts": ["docs"], "calls_max": 2},
        {"identifier": "c.*", "mounts": ["docs"], "calls_max": 2},
    ]
    assert (wanted["lifetime_sec"], wanted["role"], wanted["depth"], wanted["holder_jkt"]) == (300, "r", 1, None)
    assert Allowed().wanted()["rights"] is None


@pytest.mark.parametrize("allowed", [Allowed(calls=1), Allowed(mount=("docs",)), Allowed(allow=("a.b",), expires="soon")])
def test_what_bounds_nothing_is_refused(allowed):
    """A count or a mount without a capability, and a time that is none, are told as mistakes."""
    with pytest.raises(InvalidRequest) as caught:
        allowed.wanted()
    assert caught.value.error_code == "usage"


def test_a_token_is_shown_unchecked():
    """Header and claims are read, and it is said that nobody believed them."""
    token = FakeTokenKeys().sign_access_token({"sub": "x"})
    shown = _claims(token)
    assert (shown["header"]["typ"], shown["claims"], shown["checked"]) == ("at+jwt", {"sub": "x"}, False)


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c", "a.b.c.d", "!.!.!"])
def test_what_is_no_token_is_told(text):
    """No traceback for a slip of the mouse."""
    with pytest.raises(InvalidRequest):
        _claims(text)
