"""The identities of this machine's own parts: issued, noted, and no worker keeps the controller from its own."""

import contextlib
import dataclasses
import socket
import ssl
import threading
import time

import pytest
from structlog.testing import capture_logs

from crank.adapters.authority import FileAuthority
from crank.adapters.authority.files import FILE_BYTES_MAX
from crank.bootstrap.files import make_home, worker_id_of
from crank.bootstrap.own_identities import OwnIdentities
from crank.config import load
from crank.controller.identities import allow_identity, revoke_identity
from crank.controller.revocation_list import RevocationLists
from crank.errors import ConfigurationError, UntrustedPeer
from crank.security import MutualTls
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


# --- what is revoked, beside an identity -----------------------------------------------------------------


def meet(folder, peer):
    """Return why a worker's folder refuses a peer that comes in to it, or None."""
    mine, theirs = MutualTls(folder), MutualTls(peer)
    here, there = socket.socketpair()

    def come():
        context = theirs._context(ssl.PROTOCOL_TLS_CLIENT)
        with contextlib.suppress(OSError), context.wrap_socket(there) as tls:
            tls.recv(1)

    coming = threading.Thread(target=come)
    coming.start()
    try:
        mine.accept(here, expect=str(theirs.spiffe_id)).close()
    except UntrustedPeer as fault:
        return fault.error_code
    finally:
        here.close()
        coming.join(10)
    return None


async def test_a_workers_folder_tells_of_the_revoked(own, desk, settings):
    """By a worker's own folder an author's program refuses a peer that was revoked, and goes on with another."""
    await own.issue(strict=True)
    workers = settings.worker_dir.parent
    for name in ("good", "bad"):
        desk.authority.issue_worker(name, workers / name / "identity")
    await own.issue()
    lists, mine = RevocationLists(), settings.identity_dir
    own.publish(await lists.current(desk))
    assert (mine / "crl.pem").stat().st_mode & 0o777 == 0o644
    assert [meet(mine, workers / name / "identity") for name in ("good", "bad")] == [None, None]
    await revoke_identity(desk, f"spiffe://{TRUST_DOMAIN}/worker/bad", reason="", subject="owner")
    own.publish(await lists.current(desk))
    assert [meet(mine, workers / name / "identity") for name in ("good", "bad")] == [None, "identity_revoked"]
    # What was offered to by a program of the owner's has them as well.
    assert meet(workers / "good" / "identity", workers / "bad" / "identity") == "identity_revoked"


async def test_lists_are_written_once_and_again_when_they_are_gone(own, desk, settings):
    """The same lists are not written anew; a file that was removed, or a folder that came later, is given them."""
    await own.issue(strict=True)
    current = await RevocationLists().current(desk)
    own.publish(current)
    path = settings.identity_dir / "crl.pem"
    before = path.stat().st_ino
    own.publish(current)
    assert path.stat().st_ino == before
    path.unlink()
    later = desk.authority.issue_worker("later", settings.worker_dir.parent / "later" / "identity")
    own.publish(current)
    assert path.read_bytes() == (later.folder / "crl.pem").read_bytes() == current.pem


async def test_a_folder_of_another_authority_is_left_alone(own, desk, settings, tmp_path):
    """By our lists a program there would believe nobody; a damaged folder is told of once, and keeps the others from nothing."""
    await own.issue(strict=True)
    strange = FileAuthority(
        tmp_path / "strange", trust_domain=TRUST_DOMAIN, clock=desk.clock, ids=desk.ids, leaf_ttl_sec=60.0
    )
    strange.ensure()
    theirs = strange.issue_worker("theirs", settings.worker_dir.parent / "a" / "identity")
    damaged = desk.authority.issue_worker("damaged", settings.worker_dir.parent / "b" / "identity")
    damaged.certificate_file.write_bytes(b"noise")
    current = await RevocationLists().current(desk)
    with capture_logs() as told:
        own.publish(current)
        own.publish(current)
    assert [entry["event"] for entry in told] == ["revocations_not_written"]
    assert not (theirs.folder / "crl.pem").exists()
    assert (settings.identity_dir / "crl.pem").read_bytes() == current.pem
