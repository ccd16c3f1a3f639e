"""The file authority: what it issues, when it renews, and how it reports damage."""

import os
import stat
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from crank.adapters.authority import FileAuthority
from crank.domain.identity import make_spiffe_id
from crank.errors import ConfigurationError, UntrustedPeer
from crank.security import peer_identity
from crank.testing.fakes import FakeClock, FakeIdSource

DAY_SEC = 86_400


@pytest.fixture
def clock():
    """Give a clock that stands still."""
    return FakeClock()


@pytest.fixture
def authority(tmp_path, clock):
    """Give an authority in an empty folder."""
    return FileAuthority(tmp_path / "authority", trust_domain="test.internal", clock=clock, ids=FakeIdSource())


def certificate(path):
    """Read a certificate."""
    return x509.load_pem_x509_certificate(path.read_bytes())


def extension(path, kind):
    """Read one extension and whether it is critical."""
    found = certificate(path).extensions.get_extension_for_class(kind)
    return found.value, found.critical


def test_keys_are_nobody_elses(authority, tmp_path):
    """Keys have mode 0600 in folders of mode 0700, whatever the umask."""
    before = os.umask(0)
    try:
        authority.ensure()
        worker = authority.issue_worker("w1", tmp_path / "w1")
    finally:
        os.umask(before)
    for key in (tmp_path / "authority" / "ca-key.pem", worker.key_file):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert not list(tmp_path.rglob("*.new"))


def test_certificates_can_be_read_by_whoever_may_look(authority, tmp_path):
    """Certificates are no secrets: a worker with an account of its own reads them, however strict the umask is."""
    before = os.umask(0o077)
    try:
        authority.ensure()
        worker = authority.issue_worker("w1", tmp_path / "w1")
    finally:
        os.umask(before)
    for public in (worker.certificate_file, worker.ca_file):
        assert stat.S_IMODE(public.stat().st_mode) == 0o644


def test_the_authority_signs_leaves_only(authority):
    """Its certificate may sign certificates, one level deep, and says for which trust domain."""
    authority.ensure()
    assert extension(authority.ca_file, x509.BasicConstraints) == (x509.BasicConstraints(ca=True, path_length=0), True)
    usage, critical = extension(authority.ca_file, x509.KeyUsage)
    assert (usage.key_cert_sign, usage.digital_signature, critical) == (True, False, True)
    with pytest.raises(UntrustedPeer):
        peer_identity(certificate(authority.ca_file).public_bytes(encoding=_der()))


def _der():
    from cryptography.hazmat.primitives.serialization import Encoding

    return Encoding.DER


def test_a_worker_is_a_client_and_a_controller_both(authority, tmp_path):
    """Each is good for both sides, as X509-SVID 4.4 says, names are those of the role, and the identity is read back."""
    worker = authority.issue_worker("w1", tmp_path / "w1")
    controller = authority.issue_controller("c1", addresses=["192.0.2.7", "0.0.0.0", "box.test"])
    for file in (worker.certificate_file, controller.certificate_file):
        purposes = list(extension(file, x509.ExtendedKeyUsage)[0])
        assert purposes == [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    names, _ = extension(controller.certificate_file, x509.SubjectAlternativeName)
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "box.test"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1", "192.0.2.7"]
    read = peer_identity(certificate(worker.certificate_file).public_bytes(_der()))
    assert read == worker.spiffe_id == make_spiffe_id("test.internal", "worker", "w1")


def test_serials_are_random_and_positive(authority, tmp_path):
    """Each certificate has a serial number of its own, at most 159 bits long."""
    made = [certificate(authority.issue_worker(f"w{n}", tmp_path / f"w{n}").certificate_file) for n in range(5)]
    serials = {one.serial_number for one in made}
    assert len(serials) == 5
    assert all(0 < serial < 1 << 159 for serial in serials)


def test_a_leaf_is_renewed_when_a_third_is_left(authority, clock, tmp_path):
    """Nothing changes for 20 of 30 days; then a new certificate for the same key."""
    first = authority.issue_worker("w1", tmp_path / "w1").certificate_file.read_bytes()
    key = (tmp_path / "w1" / "key.pem").read_bytes()
    clock.advance(19 * DAY_SEC)
    assert authority.issue_worker("w1", tmp_path / "w1").certificate_file.read_bytes() == first
    clock.advance(2 * DAY_SEC)
    assert authority.issue_worker("w1", tmp_path / "w1").certificate_file.read_bytes() != first
    assert (tmp_path / "w1" / "key.pem").read_bytes() == key


def test_a_certificate_is_backdated_a_little(authority, clock, tmp_path):
    """It is valid half a minute before it was made, for a peer whose clock is behind."""
    made = certificate(authority.issue_worker("w1", tmp_path / "w1").certificate_file)
    assert made.not_valid_before_utc.timestamp() == clock.now_us() // 1_000_000 - 30
    assert made.not_valid_after_utc - made.not_valid_before_utc == timedelta(days=30, seconds=30)


def test_an_interrupted_start_is_finished(authority, tmp_path):
    """A key whose certificate was never written gets one, and keeps being the same key."""
    worker = authority.issue_worker("w1", tmp_path / "w1")
    key = worker.key_file.read_bytes()
    worker.certificate_file.unlink()
    authority.issue_worker("w1", tmp_path / "w1")
    assert worker.key_file.read_bytes() == key
    assert worker.certificate_file.exists()


def test_a_lost_authority_makes_new_leaves(authority, clock, tmp_path):
    """When the authority was made anew, old identities are replaced instead of failing later."""
    worker = authority.issue_worker("w1", tmp_path / "w1")
    first = worker.certificate_file.read_bytes()
    other = FileAuthority(tmp_path / "other", trust_domain="test.internal", clock=clock, ids=FakeIdSource())
    other.issue_worker("w1", tmp_path / "w1")
    assert worker.certificate_file.read_bytes() != first
    assert worker.ca_file.read_bytes() == other.ca_file.read_bytes()


def break_nothing_known(path):
    """Overwrite a file with noise."""
    path.write_bytes(b"-----BEGIN NOISE-----\n")


@pytest.mark.parametrize(
    ("victim", "damage"),
    [
        ("authority/ca-key.pem", break_nothing_known),
        ("authority/ca.pem", break_nothing_known),
        ("authority/ca-key.pem", lambda path: path.unlink()),
        ("authority/ca-key.pem", lambda path: path.chmod(0o644)),
        ("authority/ca.pem", lambda path: path.write_bytes((path.parents[1] / "w1" / "cert.pem").read_bytes())),
        ("w1/key.pem", break_nothing_known),
        ("w1/cert.pem", break_nothing_known),
        ("w1/key.pem", lambda path: path.unlink()),
        ("w1/cert.pem", lambda path: path.write_bytes((path.parents[1] / "authority" / "ca.pem").read_bytes())),
    ],
)
def test_damage_is_named_with_a_fix(authority, tmp_path, victim, damage):
    """Files that are damaged, missing, open to others or of another pair are refused by name."""
    authority.issue_worker("w1", tmp_path / "w1")
    damage(tmp_path / victim)
    with pytest.raises(ConfigurationError) as caught:
        authority.issue_worker("w1", tmp_path / "w1")
    assert caught.value.error_code == "identity_damaged"
    assert victim.partition("/")[0] in caught.value.message
    assert caught.value.fix


def test_another_trust_domain_is_refused(authority, tmp_path, clock):
    """An authority does not silently begin to speak for another trust domain."""
    authority.ensure()
    with pytest.raises(ConfigurationError):
        FileAuthority(tmp_path / "authority", trust_domain="other.test", clock=clock, ids=FakeIdSource()).ensure()


def test_the_published_authority_is_readable(authority, tmp_path):
    """Callers of the API get the certificate alone, never the key."""
    target = tmp_path / "api-ca.pem"
    authority.publish_ca(target)
    assert target.read_bytes() == authority.ca_file.read_bytes()
    assert b"PRIVATE" not in target.read_bytes()
