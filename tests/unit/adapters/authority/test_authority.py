"""The file authority: what it issues, when it renews, and how it reports damage."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from cryptography import x509

from crank.adapters.authority import FileAuthority
from crank.domain.identity import make_spiffe_id
from crank.domain.trust import RotationStep
from crank.errors import ConfigurationError, UntrustedPeer
from crank.security import peer_identity, read_workload
from crank.testing.contracts_authority import WORKER, WORKLOAD, public_key
from crank.testing.fakes import FakeClock, FakeFailpoints, FakeIdSource

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
    keys = [path for path in (tmp_path / "authority").rglob("*.pem") if b"PRIVATE" in path.read_bytes()]
    # Root, authority, one of each kind for tokens; the issuing key is nowhere.
    assert len(keys) == 4
    for key in (*keys, worker.key_file):
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


@pytest.mark.must("X509-SVID 3.2/2")
def test_each_tier_may_sign_so_deep(authority, tmp_path):
    """Root, authority and issuing key: three, two and one level, each for the trust domain, none to authenticate."""
    worker = authority.issue_worker("w1", tmp_path / "w1")
    chain = x509.load_pem_x509_certificates(worker.certificate_file.read_bytes())
    root = certificate(authority.ca_file)
    depths = []
    for each in (root, chain[2], chain[1]):
        constraints = each.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = each.extensions.get_extension_for_class(x509.KeyUsage)
        assert constraints.critical
        assert usage.critical
        assert (usage.value.key_cert_sign, usage.value.digital_signature) == (True, False)
        depths.append(constraints.value.path_length)
        with pytest.raises(UntrustedPeer):
            peer_identity(each.public_bytes(encoding=_der()))
    assert depths == [2, 1, 0]
    lives = [(each.not_valid_after_utc - each.not_valid_before_utc).days for each in (root, chain[2], chain[1])]
    assert lives == [3650, 730, 1]


def _der():
    from cryptography.hazmat.primitives.serialization import Encoding

    return Encoding.DER


def test_a_controller_serves_where_it_is_reached(authority, tmp_path):
    """Its names are those of the role, and the identity is read back from them."""
    worker = authority.issue_worker("w1", tmp_path / "w1")
    controller = authority.issue_controller("c1", addresses=["192.0.2.7", "0.0.0.0", "box.test"])
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


def test_a_leaf_is_renewed_at_half_of_its_life(authority, clock, tmp_path):
    """Nothing changes for 23 of 60 minutes; a new certificate for the same key comes before 31 are gone."""
    first = authority.issue_worker("w1", tmp_path / "w1").certificate_file.read_bytes()
    key = (tmp_path / "w1" / "key.pem").read_bytes()
    clock.advance(23 * 60)
    assert authority.issue_worker("w1", tmp_path / "w1").certificate_file.read_bytes() == first
    clock.advance(8 * 60)
    assert authority.issue_worker("w1", tmp_path / "w1").certificate_file.read_bytes() != first
    assert (tmp_path / "w1" / "key.pem").read_bytes() == key


def test_a_worker_stays_the_same_instance_when_it_is_renewed(authority, clock, tmp_path):
    """Renewal keeps the instance; once it has expired, whoever comes is another one."""
    first = read_workload(_leaf_der(authority.issue_worker("w1", tmp_path / "w1")))
    clock.advance(31 * 60)
    assert read_workload(_leaf_der(authority.issue_worker("w1", tmp_path / "w1"))) == first
    clock.advance(3601)
    later = read_workload(_leaf_der(authority.issue_worker("w1", tmp_path / "w1")))
    assert later is not None
    assert first is not None
    assert later.instance_id != first.instance_id


def _leaf_der(identity):
    return certificate(identity.certificate_file).public_bytes(_der())


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


def _another_list(path):
    other = FileAuthority(path.parents[2] / "other", trust_domain="test.internal", clock=FakeClock(), ids=FakeIdSource())
    return other.sign_revocations([], number=1, next_update_sec=60.0).by_roots[0]


def _another_key(path):
    others = [each for each in path.parents[1].rglob("*.pem") if each != path and b"PRIVATE" in each.read_bytes()]
    return others[0].read_bytes()


def break_nothing_known(path):
    """Overwrite a file with noise."""
    path.write_bytes(b"-----BEGIN NOISE-----\n")


@pytest.mark.parametrize(
    ("victim", "damage"),
    [
        ("authority/state.json", break_nothing_known),
        ("authority/state.json", lambda path: path.write_text('{"version": 2}')),
        ("authority/state.json", lambda path: path.write_text("[]")),
        ("authority/*/authority-key.pem", break_nothing_known),
        ("authority/*/authority-key.pem", lambda path: path.unlink()),
        ("authority/*/authority-key.pem", lambda path: path.chmod(0o644)),
        ("authority/*/authority-key.pem", lambda path: path.write_bytes(_another_key(path))),
        ("authority/*/authority.pem", break_nothing_known),
        ("authority/*/authority.pem", lambda path: path.write_bytes((path.parents[2] / "w1" / "cert.pem").read_bytes())),
        ("authority/*/root.pem", break_nothing_known),
        ("authority/*/root.pem", lambda path: path.write_bytes(path.with_name("authority.pem").read_bytes())),
        ("authority/*/root.crl", break_nothing_known),
        ("authority/*/root.crl", lambda path: path.write_bytes(_another_list(path))),
        ("authority/jwt-svid/keys.json", break_nothing_known),
        ("authority/jwt-svid/*.pem", lambda path: path.write_bytes(_another_key(path))),
        ("authority/access-token/*.pem", lambda path: path.unlink()),
        ("w1/key.pem", break_nothing_known),
        ("w1/cert.pem", break_nothing_known),
        ("w1/key.pem", lambda path: path.unlink()),
        ("w1/cert.pem", lambda path: path.write_bytes((path.parents[1] / "authority" / "roots.pem").read_bytes())),
    ],
)
def test_damage_is_named_with_a_fix(authority, tmp_path, clock, victim, damage):
    """Files that are damaged, missing, open to others or of another pair are refused by name."""
    authority.issue_worker("w1", tmp_path / "w1")
    (path,) = tmp_path.glob(victim)
    damage(path)
    again = FileAuthority(tmp_path / "authority", trust_domain="test.internal", clock=clock, ids=FakeIdSource())
    with pytest.raises(ConfigurationError) as caught:
        again.issue_worker("w1", tmp_path / "w1")
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


def test_a_short_life_is_lived_too(tmp_path, clock):
    """A leaf of 30 seconds, backdated by as many, is renewed after 12 to 15 of them and not before."""
    short = FileAuthority(
        tmp_path / "authority", trust_domain="test.internal", clock=clock, ids=FakeIdSource(), leaf_ttl_sec=30.0
    )
    first = short.issue_worker("w1", tmp_path / "w1").certificate_file.read_bytes()
    clock.advance(11)
    assert short.issue_worker("w1", tmp_path / "w1").certificate_file.read_bytes() == first
    clock.advance(4)
    assert short.issue_worker("w1", tmp_path / "w1").certificate_file.read_bytes() != first


def test_the_issuing_key_changes_by_itself(authority, clock):
    """It is another one after half of its day, and what it signs never outlives it; the authority stays the same."""
    first = issue(authority)
    clock.advance(12 * 3600 - 1)
    assert issue(authority).chain[1:] == first.chain[1:]
    clock.advance(1)
    later = issue(authority)
    assert later.chain[1] != first.chain[1]
    assert later.chain[2] == first.chain[2]
    for each in (first, later):
        leaf, issuing, _ = (x509.load_der_x509_certificate(one) for one in each.chain)
        assert leaf.not_valid_after_utc + timedelta(hours=11) <= issuing.not_valid_after_utc


def test_a_new_start_has_a_new_issuing_key(authority, tmp_path, clock):
    """The issuing key is in no file: another start signs with another one, under the same authority."""
    again = FileAuthority(tmp_path / "authority", trust_domain="test.internal", clock=clock, ids=FakeIdSource())
    first, later = issue(authority), issue(again)
    assert first.chain[1] != later.chain[1]
    assert first.chain[2] == later.chain[2]


def test_a_root_key_that_was_moved_away_changes_nothing(authority, tmp_path, clock):
    """Daily work, renewals and another start need no root key; nor does one that is damaged matter."""
    authority.ensure()
    (tmp_path / "authority" / "offline" / "root-key.pem").unlink()
    again = FileAuthority(tmp_path / "authority", trust_domain="test.internal", clock=clock, ids=FakeIdSource())
    again.ensure()
    issue(again)
    clock.advance(8 * DAY_SEC)
    again.ensure()
    issue(again)
    (tmp_path / "authority" / "offline" / "root-key.pem").write_bytes(b"noise")
    FileAuthority(tmp_path / "authority", trust_domain="test.internal", clock=clock, ids=FakeIdSource()).ensure()


def issue(authority):
    """Issue to a worker."""
    return authority.issue(WORKER, WORKLOAD, public_key())


@pytest.mark.must("Trust Domain and Bundle 4.1.1/1", "Trust Domain and Bundle 4.1.1/2")
def test_the_sequence_outlives_a_restart(authority, tmp_path, clock):
    """It grows with a change of the content, stays without one, and a restart finds the same bundle."""
    authority.ensure()
    first = authority.bundle()
    clock.advance(60)
    authority.ensure()
    assert authority.bundle() == first
    again = FileAuthority(tmp_path / "authority", trust_domain="test.internal", clock=clock, ids=FakeIdSource())
    again.ensure()
    assert again.bundle() == first
    clock.advance(7 * DAY_SEC)
    again.ensure()
    assert again.bundle().sequence > first.sequence
    assert len(again.bundle().jwt_authorities) == 2


@pytest.mark.must("Trust Domain and Bundle 4.1.1/1")
def test_a_restored_backup_does_not_turn_the_sequence_back(authority, tmp_path, clock):
    """An old state comes back: the next change has a sequence that nobody saw before."""
    authority.ensure()
    old = (tmp_path / "authority" / "state.json").read_bytes()
    for _ in range(3):
        clock.advance(8 * DAY_SEC)
        authority.ensure()
    newest = authority.bundle().sequence
    (tmp_path / "authority" / "state.json").write_bytes(old)
    again = FileAuthority(tmp_path / "authority", trust_domain="test.internal", clock=clock, ids=FakeIdSource())
    clock.advance(1)
    again.ensure()
    assert again.bundle().sequence > newest


def test_what_lies_in_a_folder_is_read_back(authority, tmp_path, clock):
    """The certificate in a local folder is told as it was issued; an expired or a stranger's is not."""
    worker = authority.issue_worker("w1", tmp_path / "w1")
    found = authority.read_local(tmp_path / "w1")
    assert found is not None
    assert found.spiffe_id == worker.spiffe_id
    assert found.chain[0] == _leaf_der(worker)
    assert authority.read_local(tmp_path / "none") is None
    stranger = FileAuthority(tmp_path / "other", trust_domain="test.internal", clock=clock, ids=FakeIdSource())
    assert stranger.read_local(tmp_path / "w1") is None
    clock.advance(3601)
    assert authority.read_local(tmp_path / "w1") is None


@pytest.mark.parametrize("gone", [["state.json"], ["state.json", "*/authority.pem"], ["state.json", "*/authority*.pem"]])
def test_a_first_start_that_was_cut_short_is_finished(authority, tmp_path, clock, gone):
    """Whatever a crash left half made is taken up or made anew, and nothing of it stays behind."""
    authority.ensure()
    for pattern in gone:
        for path in (tmp_path / "authority").glob(pattern):
            path.unlink()
    again = FileAuthority(tmp_path / "authority", trust_domain="test.internal", clock=clock, ids=FakeIdSource())
    again.ensure()
    issue(again)
    assert len(list((tmp_path / "authority").glob("*/root.pem"))) == 1
    assert [path.name for path in (tmp_path / "authority" / "offline").iterdir()] == ["root-key.pem"]


def test_a_lost_state_among_two_roots_is_no_guess(authority, tmp_path, clock):
    """Which of two roots signs is not guessed: the start is refused, and the file is named."""
    authority.ensure()
    authority.turn_root(RotationStep.PREPARE)
    (tmp_path / "authority" / "state.json").unlink()
    again = FileAuthority(tmp_path / "authority", trust_domain="test.internal", clock=clock, ids=FakeIdSource())
    with pytest.raises(ConfigurationError, match="more than one authority"):
        again.ensure()
    assert len(list((tmp_path / "authority").glob("*/authority-key.pem"))) == 2


def test_an_expired_authority_is_said_to_be_one(authority, tmp_path, clock):
    """After two years without a change of root the node does not start, and says what the way on is."""
    authority.ensure()
    clock.advance(731 * DAY_SEC)
    again = FileAuthority(tmp_path / "authority", trust_domain="test.internal", clock=clock, ids=FakeIdSource())
    with pytest.raises(ConfigurationError, match="has expired") as caught:
        again.ensure()
    assert "join again" in caught.value.fix


def test_no_leaf_outlives_its_authority(authority, clock):
    """In the authority's last hour what it signs becomes shorter."""
    authority.ensure()
    clock.advance(730 * DAY_SEC - 600)
    leaf, issuing, above = (x509.load_der_x509_certificate(one) for one in issue(authority).chain)
    assert leaf.not_valid_after_utc == issuing.not_valid_after_utc == above.not_valid_after_utc


def test_issuing_waits_for_no_change(authority, tmp_path, clock):
    """While a step of a change of root is being written, others are issued to."""
    failpoints = FakeFailpoints()
    slow = FileAuthority(
        tmp_path / "authority", trust_domain="test.internal", clock=clock, ids=FakeIdSource(), failpoints=failpoints
    )
    slow.ensure()
    issue(slow)
    failpoints.hold("rotation.made")
    with ThreadPoolExecutor(1) as pool:
        turning = pool.submit(slow.turn_root, RotationStep.PREPARE)
        failpoints.wait_for("rotation.made")
        issue(slow)
        assert len(slow.bundle().x509_authorities) == 1
        failpoints.release("rotation.made")
        turning.result(20)
    assert len(slow.bundle().x509_authorities) == 2
