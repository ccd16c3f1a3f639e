"""Good and bad X.509-SVIDs, each rule of the standards broken by itself, at the strict verifier.

The vectors are made from the text of SPIFFE's X509-SVID standard and of RFC 5280; each test names its section.
OpenSSL's command line is the second opinion on paths.
"""

import datetime as dt
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from crank.domain.identity import parse_spiffe_id
from crank.domain.trust import TrustBundle
from crank.errors import ConfigurationError, UntrustedPeer
from crank.security import Verifier
from tests.support.musts import breaking
from tests.support.svids import BOTH, DOMAIN, GOOD, HOUR, NOW, NOW_US, Wish, authority_wish, root, self_signed, usage

OTHER = "two.test"
US = 1_000_000
ROOT = root()
FOREIGN_ROOT = root(OTHER)
BETWEEN = ROOT.issue(authority_wish(subject="between"))
LONG_AGO = NOW - dt.timedelta(days=9)


def verifier(*bundles: TrustBundle, now_us: int = NOW_US, **options) -> Verifier:
    """Return a verifier that knows these bundles."""
    known = {bundle.trust_domain: bundle for bundle in bundles or (ROOT.bundle(), FOREIGN_ROOT.bundle(OTHER))}
    return Verifier(known.get, now_us=lambda: now_us, **options)


def with_domain_name_of(domain: str) -> tuple[bytes, ...]:
    """Return a chain whose intermediate bears the name of a domain."""
    return ROOT.issue(authority_wish(domain)).leaf()


def twice(extension: x509.ExtensionType) -> bytes:
    """Return a leaf that holds one of its extensions twice, which no builder makes: the bytes of one are made another's."""
    made = ROOT.leaf(more=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.99"), b"\x04\x00"), False)])[0]
    # 2.5.29.99 becomes 2.5.29.14, which is there already; the signature no longer fits, but parsing comes first.
    last = int(extension.oid.dotted_string.split(".")[3])
    forged = made.replace(b"\x06\x03\x55\x1d\x63", b"\x06\x03\x55\x1d" + bytes([last]))
    assert forged != made
    return forged


def unfilled() -> tuple[bytes, ...]:
    """Return a leaf whose signature says that its last bit, which is zero, is not used: other bytes, the same signature."""
    while True:
        chain = ROOT.leaf()
        signature = x509.load_der_x509_certificate(chain[0]).signature
        if signature[-1] % 2 == 0:
            before = len(chain[0]) - len(signature) - 1
            return (chain[0][:before] + b"\x01" + chain[0][before + 1 :], *chain[1:])


# --- what is accepted --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chain",
    [
        ROOT.leaf(),
        BETWEEN.leaf(),
        (*BETWEEN.leaf(), ROOT.der),
        ROOT.leaf(dns=["localhost"]),
        ROOT.leaf(subject="", san_critical=True),
        ROOT.leaf(purposes=None),
        ROOT.leaf(ca=None),
        ROOT.leaf(key_usage=usage("digital_signature", "key_agreement", "key_encipherment")),
        ROOT.leaf(key=ec.generate_private_key(ec.SECP384R1())),
        ROOT.leaf(key=rsa.generate_private_key(65_537, 2048)),
        ROOT.issue(authority_wish(uris=())).leaf(),
    ],
    ids=[
        "plain", "intermediate", "root-shown-too", "dns-name-too", "empty-subject-critical-names", "no-eku", "no-basic-constraints",
        "more-usages", "p384", "rsa2048", "nameless-intermediate",
    ],
)  # fmt: skip
def test_good_chains_are_accepted(chain):
    """X509-SVID 2, 3.1, 4.1 to 4.4: what the standard allows proves the identity that it carries."""
    peer = verifier().verify(chain)
    assert str(peer.spiffe_id) == GOOD
    assert peer.not_after_us == NOW_US + 3600 * US
    assert peer.serials[0] == format(x509.load_der_x509_certificate(chain[0]).serial_number, "x")
    assert len(peer.jkt) == 43


@pytest.mark.must("SPIFFE-ID 2.3/1")
def test_the_longest_identity_is_proven():
    """SPIFFE-ID 2.3: a certificate with a name of 2048 bytes is read and believed like any other."""
    longest = f"spiffe://{DOMAIN}/".ljust(2048, "a")
    assert str(verifier().verify(ROOT.leaf(uris=[longest])).spiffe_id) == longest


def test_a_foreign_identity_is_that_of_its_own_domain():
    """Trust Domain and Bundle 3: a federated domain's own identity is checked by that domain's bundle."""
    theirs = FOREIGN_ROOT.leaf(uris=[f"spiffe://{OTHER}/web"])
    assert verifier().verify(theirs).spiffe_id == parse_spiffe_id(f"spiffe://{OTHER}/web")


# --- what is refused ---------------------------------------------------------------------------

BAD = {
    "two URIs (X509-SVID 2/2, 5.2/4)": (ROOT.leaf(uris=[GOOD, GOOD]), "exactly one URI"),
    "a web address beside it (X509-SVID 2/2, 5.2/4)": (ROOT.leaf(uris=[GOOD, "https://one.test/"]), "exactly one URI"),
    "no URI (X509-SVID 2/1)": (ROOT.leaf(uris=[], dns=["one.test"]), "exactly one URI"),
    "no names (X509-SVID 2/1)": (ROOT.leaf(uris=[]), "exactly one URI"),
    "wrong scheme (X509-SVID 5.2/2; SPIFFE-ID 2/1)": (ROOT.leaf(uris=["https://one.test/worker/w1"]), "does not start with"),
    "scheme in capitals (X509-SVID 5.2/2)": (ROOT.leaf(uris=["SPIFFE://one.test/worker/w1"]), "does not start with"),
    "no path (X509-SVID 3.1/1, 5.2/3)": (ROOT.leaf(uris=["spiffe://one.test"]), "has no path"),
    "root path (X509-SVID 3.1/1, 5.2/3)": (ROOT.leaf(uris=["spiffe://one.test/"]), "path segment"),
    "percent-encoding (SPIFFE-ID 2.2/1)": (ROOT.leaf(uris=["spiffe://one.test/worker/%77"]), "path segment"),
    "dot segments (SPIFFE-ID 2.2/2)": (ROOT.leaf(uris=["spiffe://one.test/node/../worker/w1"]), "path segment"),
    "upper-case domain (SPIFFE-ID 2.1/3)": (ROOT.leaf(uris=["spiffe://ONE.test/worker/w1"]), "trust domain"),
    "a port (SPIFFE-ID 2.1/2)": (ROOT.leaf(uris=["spiffe://one.test:1/worker/w1"]), "trust domain"),
    "unknown domain (Trust Domain and Bundle 3/1)": (ROOT.leaf(uris=["spiffe://three.test/worker/w1"]), "No bundle"),
    "another domain's authority (Trust Domain and Bundle 3/1)": (FOREIGN_ROOT.leaf(), "not from the authority of one.test"),
    "CA bit (X509-SVID 4.1/2, 5.2/1)": (ROOT.leaf(ca=True, key_usage=usage("digital_signature")), "of an authority"),
    "keyCertSign (X509-SVID 4.3/5, 5.2/1)": (ROOT.leaf(key_usage=usage("digital_signature", "key_cert_sign")), "signs certificates"),
    "cRLSign (X509-SVID 4.3/5, 5.2/1)": (ROOT.leaf(key_usage=usage("digital_signature", "crl_sign")), "signs certificates"),
    "no key usage (X509-SVID 4.3/1)": (ROOT.leaf(key_usage=None), "what its key is for"),
    "key usage not critical (X509-SVID 4.3/2)": (ROOT.leaf(usage_critical=False), "what its key is for"),
    "no digitalSignature (X509-SVID 4.3/4)": (ROOT.leaf(key_usage=usage("key_agreement")), "digital signatures"),
    "for clients only (X509-SVID 4.4/1)": (ROOT.leaf(purposes=BOTH[1:]), "both sides"),
    "for servers only (X509-SVID 4.4/1)": (ROOT.leaf(purposes=BOTH[:1]), "both sides"),
    "empty subject, names not critical (X509-SVID 3.1/2)": (ROOT.leaf(subject=""), "no subject"),
    "expired (X509-SVID 5.1/1)": (ROOT.leaf(ends=NOW - dt.timedelta(seconds=1)), "expired"),
    "not yet valid (X509-SVID 5.1/1)": (ROOT.leaf(begins=NOW + dt.timedelta(seconds=1)), "not valid yet"),
    "expired intermediate (X509-SVID 5.1/1)": (
        ROOT.issue(authority_wish(begins=LONG_AGO, ends=NOW - HOUR / 2)).leaf(), "not valid now",
    ),
    "intermediate that may not sign (X509-SVID 5.1/1, 4.3/3)": (
        ROOT.issue(authority_wish(key_usage=usage("digital_signature"))).leaf(), "not from the authority",
    ),
    "intermediate without cA (X509-SVID 4.1/1)": (ROOT.issue(authority_wish(ca=False)).leaf(), "not from the authority"),
    "intermediate without key usage (X509-SVID 4.3/1)": (ROOT.issue(authority_wish(key_usage=None)).leaf(), "not one that signs|not from the authority"),
    "intermediate whose key usage is not critical (X509-SVID 4.3/2)": (
        ROOT.issue(authority_wish(usage_critical=False)).leaf(), "not one that signs|not from the authority",
    ),
    "intermediate that is a leaf (X509-SVID 5.1/1)": (ROOT.issue(Wish()).leaf(), "not from the authority"),
    "intermediate of another domain (3.2)": (with_domain_name_of(OTHER), "not of one.test"),
    "intermediate with a workload's name (X509-SVID 3.2/1)": (
        ROOT.issue(authority_wish(uris=(GOOD,))).leaf(), "the name of a workload",
    ),
    "intermediate with two names (X509-SVID 2/2)": (
        ROOT.issue(authority_wish(uris=(f"spiffe://{DOMAIN}", f"spiffe://{OTHER}"))).leaf(), "more than one URI",
    ),
    "name constraint on URIs (X509-SVID 4.2/1)": (
        ROOT.issue(
            authority_wish(more=[(x509.NameConstraints([x509.UniformResourceIdentifier("one.test")], None), True)])
        ).leaf(),
        "not from the authority",
    ),
    "vouches for itself (X509-SVID 5.1/1)": ((self_signed(Wish()).der,), "not from the authority"),
    "vouches for itself, with the root beside it": ((self_signed(Wish()).der, ROOT.der), "not from the authority"),
    "Ed25519 key": (ROOT.leaf(key=ed25519.Ed25519PrivateKey.generate()), "of a kind"),
    "RSA key of 1024 bits": (ROOT.leaf(key=rsa.generate_private_key(65_537, 1024)), "of a kind"),
    "key on a curve that nobody uses": (ROOT.leaf(key=ec.generate_private_key(ec.SECP256K1())), "of a kind"),
    "signature over SHA-224": (ROOT.leaf(digest=hashes.SHA224()), "of a kind"),
    "bytes after the certificate (X.690)": ((ROOT.leaf()[0] + b"\x00",), "cannot be read"),
    "a signature that does not fill its octets (X.690)": (unfilled(), "cannot be read"),
    "half a certificate": ((ROOT.leaf()[0][:-1],), "cannot be read"),
    "an extension twice (RFC 5280 4.2)": ((twice(x509.SubjectKeyIdentifier(b"")),), "cannot be read"),
    "an unknown critical extension (X509-SVID 5.1/1)": (
        ROOT.leaf(more=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.9999.1"), b"\x05\x00"), True)]),
        "not from the authority",
    ),
    "the authority itself (X509-SVID 3.2/2)": ((ROOT.der,), "has no path"),
    "nothing": ((), "no certificate"),
    "noise": ((b"\x30\x82",), "cannot be read"),
    "too many certificates": (ROOT.leaf() * 6, "more than"),
    "a certificate as large as a book": ((b"\x30" + bytes(20_000),), "larger than"),
    "more names than anybody has": (ROOT.leaf(dns=[f"h{n}.test" for n in range(80)]), "more than"),
}  # fmt: skip


@pytest.mark.parametrize("name", breaking((name,) for name in BAD))
def test_bad_chains_are_refused(name):
    """X509-SVID 2, 3.1, 3.2, 4.1 to 4.4, 5.1, 5.2 and RFC 5280: one broken rule is enough, and the sentence names it."""
    chain, reason = BAD[name]
    with pytest.raises(UntrustedPeer, match=reason):
        verifier().verify(chain)


@pytest.mark.must("X509-SVID 5.1/1")
def test_the_path_length_of_a_root_counts():
    """RFC 5280 4.2.1.9: below a root of path length 0 stands a leaf, and no further authority."""
    short = root(path_length=0)
    here = verifier(short.bundle())
    assert here.verify(short.leaf()).jkt
    with pytest.raises(UntrustedPeer, match="not from the authority"):
        here.verify(short.issue(authority_wish()).leaf())


@pytest.mark.must("SPIFFE-ID 3.2/1", "X509-SVID 5.1/1")
@pytest.mark.parametrize("place", [0, 1], ids=["leaf", "intermediate"])
def test_no_bit_may_be_another(place):
    """X.690 and RFC 5280 6.1.3: whichever byte of leaf or intermediate is changed, the chain proves nothing, and nothing else is raised."""
    chain, here = list(BETWEEN.leaf()), verifier()
    for position in range(len(chain[place])):
        changed = bytearray(chain[place])
        changed[position] ^= 1
        with pytest.raises(UntrustedPeer):
            here.verify([*chain[:place], bytes(changed), *chain[place + 1 :]])


@given(st.lists(st.binary(max_size=80), max_size=6))
def test_the_verifier_never_surprises(chain):
    """Whatever a stranger shows, it is a refusal of Crank's own."""
    with pytest.raises(UntrustedPeer):
        verifier().verify(chain)


def test_the_length_of_a_path_is_bounded():
    """Between leaf and root stand at most three authorities, whatever the root allows."""
    issuer = ROOT
    for depth in range(3):
        issuer = issuer.issue(authority_wish(subject=f"between {depth}"))
    assert verifier().verify(issuer.leaf()).jkt
    with pytest.raises(UntrustedPeer, match="not from the authority"):
        verifier().verify(issuer.issue(authority_wish(subject="one more")).leaf())


@pytest.mark.must("Trust Domain and Bundle 3/1", "Federation 4.2/1", "Federation 7.3/1", "Forgery 1")
def test_a_federated_domain_cannot_speak_for_ours():
    """Trust Domain and Bundle 3, Federation 4.2: bundles are never merged, so a foreign authority that mints our identity proves nothing."""
    for forged in (
        FOREIGN_ROOT.leaf(),
        FOREIGN_ROOT.issue(authority_wish(DOMAIN)).leaf(),
        FOREIGN_ROOT.issue(authority_wish(uris=())).leaf(),
        (*FOREIGN_ROOT.leaf(), ROOT.der),
        (FOREIGN_ROOT.leaf()[0], FOREIGN_ROOT.der, ROOT.der),
    ):
        with pytest.raises(UntrustedPeer, match=r"not from the authority of one\.test"):
            verifier().verify(forged)


@pytest.mark.must("Trust Domain and Bundle 3/1")
def test_a_bundle_for_another_name_is_not_used():
    """Trust Domain and Bundle 3: whoever hands over the wrong domain's bundle gets a refusal, not its trust."""
    confused = Verifier(lambda _domain: FOREIGN_ROOT.bundle(OTHER), now_us=lambda: NOW_US)
    with pytest.raises(UntrustedPeer, match="No bundle"):
        confused.verify(FOREIGN_ROOT.leaf())


@pytest.mark.must("Trust Domain and Bundle 4.1.3/3")
def test_an_empty_bundle_revokes_everybody():
    """Trust Domain and Bundle 4.1.3: no keys means that no identity of the domain is believed."""
    with pytest.raises(UntrustedPeer, match="holds no authority"):
        verifier(TrustBundle(DOMAIN, 2, 300, ())).verify(ROOT.leaf())


def test_what_was_proven_is_remembered_only_as_long_as_it_holds():
    """A chain that was accepted is refused as soon as its bundle changes, its time is over, or it is revoked."""
    bundles, now = {DOMAIN: ROOT.bundle()}, [NOW_US]
    revoked: set[str] = set()
    here = Verifier(
        bundles.get, now_us=lambda: now[0], revoked=lambda spiffe_id, serials: bool(revoked & {str(spiffe_id), *serials})
    )
    chain = BETWEEN.leaf()
    peer = here.verify(chain)
    assert here.verify(chain) is peer
    for mark in (GOOD, *peer.serials):
        revoked.add(mark)
        with pytest.raises(UntrustedPeer) as caught:
            here.verify(chain)
        assert caught.value.error_code == "identity_revoked"
        revoked.clear()
    assert len(peer.serials) == 2
    now[0] = peer.not_after_us + US
    with pytest.raises(UntrustedPeer, match="expired"):
        here.verify(chain)
    now[0] = NOW_US
    assert here.verify(chain).jkt
    bundles[DOMAIN] = root().bundle(sequence=2)
    with pytest.raises(UntrustedPeer, match="not from the authority"):
        here.verify(chain)
    del bundles[DOMAIN]
    with pytest.raises(UntrustedPeer, match="No bundle"):
        here.verify(chain)


@pytest.mark.must("Forgery 7")
def test_clocks_may_differ_as_far_as_was_said():
    """A skew of some seconds is allowed where it was asked for, and nothing beyond it; five minutes are the most."""
    late = ROOT.leaf(ends=NOW - dt.timedelta(seconds=20))
    early = ROOT.leaf(begins=NOW + dt.timedelta(seconds=20))
    for chain in (late, early):
        assert verifier(skew_sec=20).verify(chain).jkt
        with pytest.raises(UntrustedPeer):
            verifier(skew_sec=19).verify(chain)
        with pytest.raises(UntrustedPeer):
            verifier().verify(chain)
    for minutes in (-5, 5):
        with pytest.raises(UntrustedPeer):
            verifier(now_us=NOW_US + minutes * 60 * US, skew_sec=30).verify(
                ROOT.leaf(begins=NOW - dt.timedelta(seconds=60), ends=NOW + dt.timedelta(seconds=60))
            )
    with pytest.raises(ConfigurationError):
        verifier(skew_sec=301)


def test_nobody_outlives_the_authority_above():
    """The end of an identity is the earliest end in its path."""
    short = ROOT.issue(authority_wish(ends=NOW + HOUR / 4))
    assert verifier().verify(short.leaf()).not_after_us == NOW_US + 900 * US


def test_the_thumbprint_is_that_of_rfc_7638():
    """RFC 7638 3: the thumbprint of the leaf's key, computed from its parts by another way, is the one in the result."""
    import base64
    import hashlib

    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    x, y = (base64.urlsafe_b64encode(n.to_bytes(32, "big")).decode().rstrip("=") for n in (numbers.x, numbers.y))
    text = f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'
    expected = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
    assert verifier().verify(ROOT.leaf(key=key)).jkt == expected


# --- the second opinion ------------------------------------------------------------------------

OPENSSL_ALSO_REFUSES = [
    "another domain's authority (Trust Domain and Bundle 3/1)",
    "expired (X509-SVID 5.1/1)",
    "not yet valid (X509-SVID 5.1/1)",
    "expired intermediate (X509-SVID 5.1/1)",
    "intermediate that may not sign (X509-SVID 5.1/1, 4.3/3)",
    "intermediate that is a leaf (X509-SVID 5.1/1)",
    "vouches for itself (X509-SVID 5.1/1)",
    "an unknown critical extension (X509-SVID 5.1/1)",
]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command line is not installed")
@pytest.mark.parametrize("name", ["good", "intermediate", *OPENSSL_ALSO_REFUSES])
def test_openssl_agrees_about_paths(tmp_path, name):
    """RFC 5280 6: OpenSSL's verifier comes to the same end about paths, dates and critical extensions."""
    chain = {"good": ROOT.leaf(), "intermediate": BETWEEN.leaf()}.get(name) or BAD[name][0]
    assert _openssl_accepts(tmp_path, chain) is (name in ("good", "intermediate"))


def _openssl_accepts(folder: Path, chain: tuple[bytes, ...]) -> bool:
    for file, certificates in (("root", [ROOT.der]), ("leaf", chain[:1]), ("between", chain[1:])):
        loaded = [x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in certificates]
        (folder / file).write_bytes(b"".join(loaded))
    between = ["-untrusted", "between"] if chain[1:] else []
    command = ["openssl", "verify", "-x509_strict", "-attime", str(NOW_US // US), "-CAfile", "root", *between, "leaf"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=20, check=False)
    return done.returncode == 0
