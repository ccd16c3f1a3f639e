"""A node of an older version: it gets the tiers, and nobody who trusts the old authority is locked out meanwhile."""

import datetime as dt
import shutil

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from crank.adapters.authority import FileAuthority
from crank.domain.identity import make_spiffe_id
from crank.errors import UntrustedPeer
from crank.security import bearer_server_context, client_context, peer_identity, server_context
from crank.testing.contracts_authority import DOMAIN
from crank.testing.fakes import FakeClock, FakeIdSource
from tests.support.flat_authority import make_flat, make_flat_worker
from tests.support.handshake import shake_hands

DAY_SEC = 86_400
OLD_WORKER = str(make_spiffe_id(DOMAIN, "worker", "old"))


@pytest.fixture
def clock():
    """Give a clock at the real time, because OpenSSL reads the machine's."""
    return FakeClock(now_us=int(dt.datetime.now(dt.UTC).timestamp() * 1_000_000))


@pytest.fixture
def old(tmp_path, clock):
    """Give the folder of an authority of the old version, and of a worker that it issued to."""
    now = dt.datetime.fromtimestamp(clock.now_us() // 1_000_000, dt.UTC)
    make_flat(tmp_path / "authority", DOMAIN, now)
    make_flat_worker(tmp_path / "authority", tmp_path / "old", OLD_WORKER, now)
    return tmp_path


def upgrade(folder, clock):
    """Start the new version on it."""
    authority = FileAuthority(folder / "authority", trust_domain=DOMAIN, clock=clock, ids=FakeIdSource())
    authority.ensure()
    return authority


def of(identity):
    """Return the files of an identity as contexts take them."""
    return {"certificate_file": identity / "cert.pem", "key_file": identity / "key.pem"}


def test_the_old_ca_pem_still_proves_the_controller(old, clock):
    """A worker with nothing but the old `ca.pem` and certificate finds its node, and TLS proves each to the other."""
    authority = upgrade(old, clock)
    own = authority.issue_controller("c1").folder
    server = server_context(**of(own), ca_file=own / "ca.pem")
    client = client_context(**of(old / "old"), ca_file=old / "old" / "ca.pem")
    shown, seen = shake_hands(server, client)
    assert str(peer_identity(shown)) == f"spiffe://{DOMAIN}/controller/c1"
    assert seen is not None
    assert OLD_WORKER.encode() in seen


def test_a_worker_that_starts_again_is_let_in_whatever_lay_in_its_folder(old, clock):
    """The old certificate was for clients alone, which no X.509-SVID may be; at its next start it gets a right one."""
    with pytest.raises(UntrustedPeer):
        peer_identity(load_pem((old / "old" / "cert.pem").read_bytes()))
    worker = upgrade(old, clock).issue_worker("old", old / "old")
    assert str(peer_identity(load_pem(worker.certificate_file.read_bytes()))) == OLD_WORKER


def load_pem(octets):
    """Return the first certificate of a file in DER."""
    return x509.load_pem_x509_certificate(octets).public_bytes(Encoding.DER)


def test_an_old_client_of_the_api_is_not_locked_out(old, clock):
    """A copy of the old `api-ca.pem` still proves the API."""
    authority = upgrade(old, clock)
    own = authority.issue_controller("c1").folder
    shown, _ = shake_hands(
        bearer_server_context(**of(own)), client_context(**of(old / "old"), ca_file=old / "old" / "ca.pem")
    )
    assert peer_identity(shown).kind == "controller"


def test_everybody_else_moves_over_at_once(old, clock):
    """A worker's files hold the new chain and both roots, and it connects, too."""
    authority = upgrade(old, clock)
    worker = authority.issue_worker("old", old / "old").folder
    assert (worker / "cert.pem").read_bytes().count(b"BEGIN CERTIFICATE") == 3
    assert (worker / "ca.pem").read_bytes().count(b"BEGIN CERTIFICATE") == 2
    assert (old / "authority" / "ca.pem").read_bytes() in (worker / "ca.pem").read_bytes()
    own = authority.issue_controller("c1").folder
    shake_hands(
        server_context(**of(own), ca_file=own / "ca.pem"), client_context(**of(worker), ca_file=worker / "ca.pem")
    )


def test_the_old_authority_has_a_list_while_it_is_published(old, clock):
    """What the controller shows is signed by it: who checks chains by lists finds one of its name as well."""
    authority = upgrade(old, clock)
    ca = x509.load_pem_x509_certificate((old / "authority" / "ca.pem").read_bytes())
    lists = authority.sign_revocations([], number=1, next_update_sec=60.0)
    assert ca.subject in {x509.load_der_x509_crl(der).issuer for der in lists.by_authorities}
    assert lists.is_whole
    clock.advance(30 * DAY_SEC)
    authority.ensure()
    assert len(authority.sign_revocations([], number=2, next_update_sec=60.0).by_authorities) == 1


def test_the_old_authority_ends_when_its_last_leaf_has(old, clock):
    """After 30 days its key is destroyed, it leaves the bundle, and the controller shows the new chain."""
    authority = upgrade(old, clock)
    before = authority.bundle()
    assert len(before.x509_authorities) == 2
    clock.advance(29 * DAY_SEC)
    authority.ensure()
    assert len(authority.bundle().x509_authorities) == 2
    assert (old / "authority" / "ca-key.pem").exists()
    clock.advance(DAY_SEC)
    authority.ensure()
    after = authority.bundle()
    assert after.x509_authorities == before.x509_authorities[:1]
    assert after.sequence > before.sequence
    assert not (old / "authority" / "ca-key.pem").exists()
    own = authority.issue_controller("c1")
    assert own.certificate_file.read_bytes().count(b"BEGIN CERTIFICATE") == 3
    assert own.ca_file.read_bytes().count(b"BEGIN CERTIFICATE") == 1
    # And another start finds it so.
    assert upgrade(old, clock).bundle() == after


def test_a_second_start_goes_on(old, clock):
    """The time of the old authority does not begin anew with each start."""
    first = upgrade(old, clock).bundle()
    clock.advance(20 * DAY_SEC)
    again = upgrade(old, clock)
    assert again.bundle().x509_authorities == first.x509_authorities
    clock.advance(10 * DAY_SEC)
    again.ensure()
    assert len(again.bundle().x509_authorities) == 1


def test_a_strangers_authority_is_not_taken_over(tmp_path, clock):
    """An old authority of another trust domain, or without its key, is refused before anything new is made."""
    make_flat(tmp_path / "authority", "other.test", dt.datetime.fromtimestamp(clock.now_us() // 1_000_000, dt.UTC))
    with pytest.raises(Exception, match="trust domain"):
        upgrade(tmp_path, clock)
    shutil.copy(tmp_path / "authority" / "ca.pem", tmp_path / "ca.pem")
    (tmp_path / "authority" / "ca-key.pem").unlink()
    with pytest.raises(Exception, match="key is missing"):
        upgrade(tmp_path, clock)
    assert {path.name for path in (tmp_path / "authority").iterdir()} == {"ca.pem"}


def test_a_crash_while_the_old_authority_is_destroyed_is_nothing(old, clock):
    """Its key is gone and its certificate still lies there: the node starts, and removes it."""
    authority = upgrade(old, clock)
    certificate = (old / "authority" / "ca.pem").read_bytes()
    clock.advance(30 * DAY_SEC)
    authority.ensure()
    (old / "authority" / "ca.pem").write_bytes(certificate)
    again = upgrade(old, clock)
    assert len(again.bundle().x509_authorities) == 1
    assert not (old / "authority" / "ca.pem").exists()
