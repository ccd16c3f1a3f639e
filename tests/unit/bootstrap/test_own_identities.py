"""The identities of this machine's own parts: issued, noted, and no worker keeps the controller from its own."""

import dataclasses
import time

import pytest
from structlog.testing import capture_logs

from crank.adapters.authority import FileAuthority
from crank.adapters.authority.files import FILE_BYTES_MAX
from crank.bootstrap.files import make_home, worker_id_of
from crank.bootstrap.own_identities import OwnIdentities
from crank.config import load
from crank.controller.identities import allow_identity, revoke_identity
from crank.errors import ConfigurationError
from tests.support.costly_key import costly_key
from tests.support.desk import TRUST_DOMAIN, open_desk

# Far from what it takes to prove a costly key.
SOON_SEC = 5


@pytest.fixture
async def desk(tmp_path):
    """Give a desk with an authority."""
    async with open_desk(tmp_path) as opened:
        authority = FileAuthority(
            tmp_path / "home" / "controller" / "authority", trust_domain=TRUST_DOMAIN, clock=opened.clock,
            ids=opened.ids, leaf_ttl_sec=60.0,
        )  # fmt: skip
        authority.ensure()
        yield dataclasses.replace(opened, authority=authority)


@pytest.fixture
def settings(tmp_path):
    """Give the settings of the node in that folder."""
    made = load({"home": str(tmp_path / "home")}, environment={"CRANK_TRUST_DOMAIN": TRUST_DOMAIN})
    make_home(made)
    return made


@pytest.fixture
def own(settings, desk):
    """Give the keeper of this node's own identities."""
    return OwnIdentities(settings, desk, desk.authority)


async def noted(desk):
    """Return the names of what is noted, oldest first."""
    found = await desk.store.read(lambda tx: tx.identities.page(limit=100, valid_at_us=0))
    return [each.spiffe_id.kind for each in reversed(found)]


async def test_both_are_issued_and_noted_once(own, desk, settings):
    """The controller's and the worker's own certificate are in their folders and in the store; again changes nothing."""
    identity = await own.issue(strict=True)
    assert identity.certificate_file.exists()
    assert (settings.identity_dir / "cert.pem").exists()
    assert settings.api_ca_file.read_bytes() == desk.authority.ca_file.read_bytes()
    assert await noted(desk) == ["controller", "worker"]
    await own.issue()
    await OwnIdentities(settings, desk, desk.authority).issue()
    assert await noted(desk) == ["controller", "worker"]


async def test_what_another_process_of_the_owner_issued_is_noted(own, desk, settings):
    """`crank worker serve` issues to its own folder before it connects; so it can renew itself later."""
    await own.issue(strict=True)
    desk.authority.issue_worker("mine", settings.worker_dir.parent / "mine" / "identity")
    await own.issue()
    assert await noted(desk) == ["controller", "worker", "worker"]


@pytest.mark.parametrize(
    "content",
    [b"noise", b"x" * (FILE_BYTES_MAX + 1), costly_key(), costly_key(large=True)],
    ids=["noise", "more than any key", "another kind of key", "a large one"],
)
async def test_a_worker_cannot_keep_the_controller_from_renewing(own, desk, settings, content):
    """Its account owns its key's file and may write into it: that is the worker's trouble, told once."""
    identity = await own.issue(strict=True)
    (settings.identity_dir / "key.pem").write_bytes(content)
    identity.certificate_file.unlink()
    began = time.monotonic()
    with capture_logs() as told:
        await own.issue()
        await own.issue()
    assert time.monotonic() - began < SOON_SEC
    assert identity.certificate_file.exists()
    assert [entry["event"] for entry in told if entry["log_level"] == "error"] == ["worker_not_renewed"]
    with pytest.raises(ConfigurationError):
        await own.issue(strict=True)


async def test_a_revoked_worker_gets_nothing_until_it_is_allowed(own, desk, settings):
    """Its folder stays as it is; once it is allowed again, it gets another certificate than the revoked one."""
    await own.issue(strict=True)
    before = (settings.identity_dir / "cert.pem").read_bytes()
    name = f"spiffe://{TRUST_DOMAIN}/worker/{worker_id_of(settings)}"
    await revoke_identity(desk, name, reason="", subject="owner")
    await own.issue()
    assert (settings.identity_dir / "cert.pem").read_bytes() == before
    await allow_identity(desk, name, subject="owner")
    await own.issue()
    assert (settings.identity_dir / "cert.pem").read_bytes() != before
    assert await noted(desk) == ["controller", "worker", "worker"]
