"""What the doctor says of identities."""

import pytest

from crank.adapters.authority import FileAuthority
from crank.adapters.clock import SystemClock, SystemIdSource
from crank.bootstrap.examine_identity import identities
from crank.config import load
from crank.testing.fakes import FakeClock

DAY_SEC = 86_400


@pytest.fixture
def settings(tmp_path):
    """Give the settings of a node in an empty home."""
    return load({"home": str(tmp_path / "home")}, environment={})


def node(settings, *, ago_sec=0.0):
    """Let a node have started so long ago."""
    clock = FakeClock(now_us=SystemClock().now_us())
    clock.jump_wall(-ago_sec)
    authority = FileAuthority(
        settings.authority_dir, trust_domain=settings.trust_domain, clock=clock, ids=SystemIdSource()
    )
    authority.ensure()
    authority.issue_worker("w1", settings.identity_dir)


def found(settings):
    """Return the findings by their name and state."""
    return {(each.name, each.state): each for each in identities(settings)}


def test_a_new_node_is_told_to_move_its_root_key(settings):
    """The key is named with what to do; once it is gone, so is the advice. It is never read: here it is noise."""
    node(settings)
    key = settings.authority_dir / "offline" / "root-key.pem"
    key.write_bytes(b"noise")
    told = found(settings)
    assert set(told) == {
        ("identity authority", "ok"), ("identity root", "ok"), ("worker certificate", "ok"), ("root key", "warn"),
    }  # fmt: skip
    assert str(key) in told["root key", "warn"].cause
    assert "crank identity root-key move" in told["root key", "warn"].fix
    key.unlink()
    assert ("root key", "warn") not in found(settings)


def test_an_end_that_comes_near_is_told_in_time(settings):
    """Ninety days before the authority's end the doctor says what to do, and after it fails."""
    node(settings, ago_sec=(730 - 89) * DAY_SEC)
    told = found(settings)
    assert "rotate" in told["identity authority", "warn"].fix
    assert ("identity root", "ok") in told


def test_a_root_of_an_older_version_is_told_of(settings):
    """It has no list of revocations and gets none, so who checks whole chains cannot; the way to one is named."""
    node(settings)
    assert ("root list", "warn") not in found(settings)
    (path,) = settings.authority_dir.glob("*/root.crl")
    path.unlink()
    assert "rotate" in found(settings)["root list", "warn"].fix


def test_an_expired_authority_fails(settings):
    """It has expired, and the way on is named."""
    node(settings, ago_sec=731 * DAY_SEC)
    assert "rotate" in found(settings)["identity authority", "fail"].fix


def test_a_node_that_rests_may_have_an_expired_certificate(settings):
    """An hour after it was stopped there is nothing to mend: the next start issues anew."""
    node(settings, ago_sec=7200)
    assert "starts" in found(settings)["worker certificate", "ok"].cause


def test_a_running_node_with_an_expired_one_fails(settings, monkeypatch):
    """While it runs, an expired certificate means that renewal does not work."""
    node(settings, ago_sec=7200)
    monkeypatch.setattr("crank.bootstrap.examine_identity.is_locked", lambda _: True)
    assert found(settings)["worker certificate", "fail"].fix


def test_damage_fails(settings):
    """A certificate that cannot be read is named."""
    node(settings)
    (settings.identity_dir / "cert.pem").write_bytes(b"noise")
    assert "cert.pem" in found(settings)["identity", "fail"].cause


def test_no_node_no_findings(settings):
    """Before the first start there is nothing to say."""
    assert identities(settings) == []
