"""OpenSSL's own program as judge of chains and revocation lists."""

import datetime as dt
import subprocess
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from crank.adapters.authority import FileAuthority
from crank.domain.trust import RotationStep
from crank.testing.contracts_authority import DOMAIN, WORKER, WORKLOAD, public_key
from crank.testing.fakes import FakeClock, FakeIdSource


@pytest.fixture
def clock():
    """Give a clock at the real time, because openssl reads the machine's."""
    return FakeClock(now_us=int(dt.datetime.now(dt.UTC).timestamp() * 1_000_000))


def start(folder, clock):
    """Start a controller's authority."""
    authority = FileAuthority(folder / "authority", trust_domain=DOMAIN, clock=clock, ids=FakeIdSource())
    authority.ensure()
    return authority


def pem(*ders):
    """Return certificates in PEM."""
    return b"".join(x509.load_der_x509_certificate(each).public_bytes(Encoding.PEM) for each in ders)


def verify(folder, svid, roots, *words, crl=None):
    """Run `openssl verify` on an SVID with its chain; return what it found wrong, or an empty text.

    crl  a list by which the leaf is checked, or several, by which the whole chain is
    """
    (folder / "leaf.pem").write_bytes(pem(svid.chain[0]))
    (folder / "chain.pem").write_bytes(pem(*svid.chain[1:]))
    (folder / "roots.pem").write_bytes(roots)
    more = []
    if crl is not None:
        lists = [crl] if isinstance(crl, bytes) else crl
        (folder / "crl.pem").write_bytes(b"".join(x509.load_der_x509_crl(one).public_bytes(Encoding.PEM) for one in lists))
        more = ["-crl_check" if isinstance(crl, bytes) else "-crl_check_all", "-CRLfile", str(folder / "crl.pem")]
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", str(folder / "roots.pem"), "-untrusted",
         str(folder / "chain.pem"), *words, *more, str(folder / "leaf.pem")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stderr


def roots_of(authority):
    """Return the bundle's roots in PEM."""
    return pem(*authority.bundle().x509_authorities)


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_a_chain_holds_for_both_ends(tmp_path, clock, purpose):
    """Under strict rules, for servers and for clients, with the roots alone as anchors."""
    authority = start(tmp_path, clock)
    svid = authority.issue(WORKER, WORKLOAD, public_key(), hosts=["localhost"])
    assert verify(tmp_path, svid, roots_of(authority), "-purpose", purpose) == ""


def test_another_nodes_root_proves_nothing(tmp_path, clock):
    """The same trust domain's name is not the same trust domain."""
    svid = start(tmp_path, clock).issue(WORKER, WORKLOAD, public_key())
    (tmp_path / "other").mkdir()
    stranger = start(tmp_path / "other", clock)
    assert "unable to get" in verify(tmp_path, svid, roots_of(stranger))


def test_an_issuing_key_signs_leaves_alone(tmp_path, clock):
    """Whoever stole it could make no authority below it: the path is too long then."""
    authority = start(tmp_path, clock)
    svid = authority.issue(WORKER, WORKLOAD, public_key())
    issuing = authority._issuing[authority.status().rotation.current].signer()
    thief = ec.generate_private_key(ec.SECP256R1())
    forged = authority._shapes.authority(thief.public_key(), issuing)
    leaf = authority._shapes.leaf(
        thief.public_key(), x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(WORKER))]), WORKLOAD,
        type(issuing)(thief, forged), 600.0,
    )  # fmt: skip
    chain = (leaf.public_bytes(Encoding.DER), forged.public_bytes(Encoding.DER), *svid.chain[1:])
    assert "path length" in verify(tmp_path, replace(svid, chain=chain), roots_of(authority))


def test_a_list_speaks_of_every_issuing_key(tmp_path, clock):
    """A leaf that an earlier start's issuing key signed is found on the list that is signed now; its sisters are not."""
    before = start(tmp_path, clock)
    old, old_good = (before.issue(WORKER, WORKLOAD, public_key()) for _ in range(2))
    now = start(tmp_path, clock)
    new, new_good = (now.issue(WORKER, WORKLOAD, public_key()) for _ in range(2))
    assert old.chain[1] != new.chain[1]
    roots = roots_of(now)
    crl = now.sign_revocations(
        [(old.serial, clock.now_us()), (new.serial, clock.now_us())], number=1, next_update_sec=600.0
    ).by_authorities[0]
    for revoked, good in ((old, old_good), (new, new_good)):
        assert "certificate revoked" in verify(tmp_path, revoked, roots, crl=crl)
        assert verify(tmp_path, good, roots, crl=crl) == ""


def test_a_list_of_a_stranger_or_an_old_one_counts_nothing(tmp_path, clock):
    """Another authority's list is none for these leaves, and one whose time is over is refused."""
    authority = start(tmp_path, clock)
    svid = authority.issue(WORKER, WORKLOAD, public_key())
    (tmp_path / "other").mkdir()
    (strange,) = start(tmp_path / "other", clock).sign_revocations([], number=1, next_update_sec=600.0).by_authorities
    assert "unable to get certificate CRL" in verify(tmp_path, svid, roots_of(authority), crl=strange)
    clock.jump_wall(-3600)
    (stale,) = authority.sign_revocations([], number=1, next_update_sec=600.0).by_authorities
    assert "CRL has expired" in verify(tmp_path, svid, roots_of(authority), crl=stale)


def test_a_whole_chain_is_checked_by_the_lists_of_its_issuers(tmp_path, clock):
    """With `-crl_check_all`, as nginx and PostgreSQL check: the good pass, the revoked do not, under both roots of a change."""
    authority = start(tmp_path, clock)
    svids = [authority.issue(WORKER, WORKLOAD, public_key()) for _ in range(2)]
    authority.turn_root(RotationStep.PREPARE)
    authority.turn_root(RotationStep.ACTIVATE)
    svids += [authority.issue(WORKER, WORKLOAD, public_key()) for _ in range(2)]
    # Also after a restart: nothing of it is in memory alone.
    authority = start(tmp_path, clock)
    lists = authority.sign_revocations(
        [(one.serial, clock.now_us()) for one in svids[::2]], number=1, next_update_sec=600.0
    )
    assert (len(lists.by_authorities), len(lists.by_roots), lists.is_whole) == (2, 2, True)
    for number, svid in enumerate(svids):
        found = verify(tmp_path, svid, roots_of(authority), crl=lists.all)
        assert ("certificate revoked" in found) if number % 2 == 0 else found == "", number
    assert "unable to get certificate CRL" in verify(tmp_path, svids[1], roots_of(authority), crl=lists.by_authorities)
    authority.turn_root(RotationStep.RETIRE, force=True)
    assert len(authority.sign_revocations([], number=2, next_update_sec=600.0).all) == 2


def test_a_root_of_an_older_version_has_no_list_until_it_is_changed(tmp_path, clock):
    """Its key is away, so the lists are said not to be whole; the next root has one, and counts once the old one is gone."""
    start(tmp_path, clock)
    (path,) = (tmp_path / "authority").glob("*/root.crl")
    path.unlink()
    authority = start(tmp_path, clock)

    def lists():
        return authority.sign_revocations([], number=1, next_update_sec=600.0)

    assert (len(lists().by_authorities), lists().by_roots, lists().is_whole) == (1, (), False)
    authority.turn_root(RotationStep.PREPARE)
    authority.turn_root(RotationStep.ACTIVATE)
    assert (len(lists().by_authorities), len(lists().by_roots), lists().is_whole) == (2, 1, False)
    authority.turn_root(RotationStep.RETIRE, force=True)
    assert (len(lists().by_authorities), len(lists().by_roots), lists().is_whole) == (1, 1, True)


def test_both_roots_hold_while_they_change(tmp_path, clock):
    """From prepare to retire leaves of both are believed by the roots that are published; afterwards those of the new one."""
    authority = start(tmp_path, clock)
    old = authority.issue(WORKER, WORKLOAD, public_key())
    authority.turn_root(RotationStep.PREPARE)
    authority.turn_root(RotationStep.ACTIVATE)
    new = authority.issue(WORKER, WORKLOAD, public_key())
    assert verify(tmp_path, old, roots_of(authority)) == verify(tmp_path, new, roots_of(authority)) == ""
    authority.turn_root(RotationStep.RETIRE, force=True)
    assert "unable to get" in verify(tmp_path, old, roots_of(authority))
    assert verify(tmp_path, new, roots_of(authority)) == ""
