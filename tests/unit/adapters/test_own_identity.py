"""A worker's own identity: what it takes from its controller, what it refuses, and when it looks into its folder."""

import base64
import ssl
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from crank.adapters.clock import SystemClock, SystemIdSource
from crank.adapters.own_identity import HeldIdentity
from crank.domain.identity import make_spiffe_id
from crank.domain.ids import InstanceId
from crank.domain.trust import Attestation, Workload
from crank.errors import ConfigurationError, ProtocolError, Unavailable
from crank.security import client_context
from crank.testing.fakes import FakeClock
from crank.wire import Trust
from tests.support.costly_key import costly_key
from tests.support.desk import TRUST_DOMAIN
from tests.support.listeners import authority


@pytest.fixture
def issuer(tmp_path):
    """Give an authority."""
    return authority(tmp_path / "authority")


@pytest.fixture
def clock():
    """Give a clock at the time of now that a test moves."""
    return FakeClock(now_us=SystemClock().now_us())


@pytest.fixture
def own(issuer, clock, tmp_path):
    """Give the identity of a worker, read from its folder."""
    issuer.issue_worker("w1", tmp_path / "w1")
    return HeldIdentity(tmp_path / "w1", TRUST_DOMAIN, make_context=client_context, now_us=clock.now_us)


def answer(issuer, request: bytes, *, name: str = "w1") -> dict:
    """Answer a request as a controller does, perhaps for somebody else."""
    public = x509.load_der_x509_csr(request).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    workload = Workload("worker", InstanceId(SystemIdSource().uuid7()), Attestation.JOIN)
    svid = issuer.issue(make_spiffe_id(TRUST_DOMAIN, "worker", name), workload, public)
    bundle = issuer.bundle()
    return {
        "chain": encoded(svid.chain), "roots": encoded(bundle.x509_authorities),
        "renew_in_sec": 900.0, "sequence": bundle.sequence,
    }  # fmt: skip


def encoded(certificates) -> list[str]:
    """Return certificates as they travel."""
    return [base64.b64encode(der).decode() for der in certificates]


async def test_a_renewed_identity_is_what_connections_show(own, issuer):
    """The answer becomes the context of the next connection, and says when to come again."""
    before = own.context()
    own.through(lambda request: answer(issuer, request))
    assert await own.renew() == 900.0
    assert isinstance(own.context(), ssl.SSLContext)
    assert own.context() is not before


async def test_what_is_not_its_own_is_refused(own, issuer):
    """Another's name, another key, garbage and nothing change nothing; neither does a controller that is away."""
    before = own.context()
    with pytest.raises(Unavailable):
        await own.renew()
    other = HeldIdentity(
        issuer.issue_worker("w2", own._folder.parent / "w2").folder, TRUST_DOMAIN,
        make_context=client_context, now_us=SystemClock().now_us,
    )  # fmt: skip
    stolen: list[bytes] = []

    def overheard(request: bytes) -> dict:
        stolen.append(request)
        return answer(issuer, request, name="w2")

    other.through(overheard)
    await other.renew()
    bad = [
        lambda request: answer(issuer, request, name="w2"),
        lambda request: answer(issuer, stolen[0]),
        lambda request: {},
        lambda request: {**answer(issuer, request), "chain": []},
        lambda request: {**answer(issuer, request), "chain": ["AAAA"]},
        lambda request: {**answer(issuer, request), "chain": "AAAA"},
        lambda request: {**answer(issuer, request), "renew_in_sec": "soon"},
        lambda request: {**answer(issuer, request), "roots": ["AAAA"] * 99},
    ]
    for ask in bad:
        own.through(ask)
        with pytest.raises(ProtocolError):
            await own.renew()
    assert own.context() is before


async def test_it_rings_for_whoever_keeps_roots(own, issuer):
    """Each word of the controller about trust rings, pushed or with a renewal; what cannot be read rings nobody."""
    rung: list[bool] = []
    own.rings(lambda: rung.append(True))
    own.believe(Trust(5, encoded(issuer.bundle().x509_authorities), 1, [], []))
    assert len(rung) == 1
    own.through(lambda request: answer(issuer, request))
    await own.renew()
    assert len(rung) == 2
    with pytest.raises(ProtocolError):
        own.believe(Trust(6, ["AAAA"], 2, [], []))
    assert len(rung) == 2


async def test_it_looks_for_roots_itself(own, issuer, tmp_path):
    """What the controller answers is believed, and it is told what is kept; an answer that cannot be read changes nothing."""
    with pytest.raises(Unavailable):
        await own.look(0)
    both = [*encoded(issuer.bundle().x509_authorities), *encoded(authority(tmp_path / "next").bundle().x509_authorities)]
    said: list[int] = []

    def told(has: int) -> Trust:
        said.append(has)
        return Trust(6, both if has == 5 else ["AAAA"], 2, [], ["ab"])

    own.through(lambda request: answer(issuer, request), told)
    assert (await own.look(5)).sequence == 6
    assert len(own.bundle(TRUST_DOMAIN).x509_authorities) == 2
    assert own.is_revoked(make_spiffe_id(TRUST_DOMAIN, "controller", "c1"), ["ab"])
    with pytest.raises(ProtocolError):
        await own.look(6)
    assert said == [5, 6]
    assert len(own.bundle(TRUST_DOMAIN).x509_authorities) == 2


def test_trust_is_believed_whole_or_not_at_all(own, issuer):
    """New roots make a new context and are what peers are checked by; what cannot be read changes nothing."""
    before = own.context()
    roots = encoded(issuer.bundle().x509_authorities)
    own.believe(Trust(5, roots, 1, ["spiffe://test.internal/controller/old"], ["ab"]))
    assert own.context() is before, "the same roots need no other context"
    assert own.bundle(TRUST_DOMAIN).sequence == 5
    assert own.bundle("elsewhere.test") is None
    assert own.is_revoked(make_spiffe_id(TRUST_DOMAIN, "controller", "old"), [])
    assert own.is_revoked(make_spiffe_id(TRUST_DOMAIN, "controller", "c1"), ["xx", "ab"])
    assert not own.is_revoked(make_spiffe_id(TRUST_DOMAIN, "controller", "c1"), ["xx"])
    for unreadable in ([], ["AAAA"], ["%"]):
        with pytest.raises(ProtocolError):
            own.believe(Trust(6, unreadable, 2, [], []))
    assert own.bundle(TRUST_DOMAIN).sequence == 5
    stranger = authority(own._folder.parent / "stranger")
    own.believe(Trust(7, [*roots, *encoded(stranger.bundle().x509_authorities)], 3, [], []))
    assert own.context() is not before
    assert len(own.bundle(TRUST_DOMAIN).x509_authorities) == 2


def test_the_folder_is_looked_at_when_the_own_one_is_no_good(own, issuer, clock, tmp_path):
    """A newer file is taken once the certificate is doubted or has ended, not before, and half a file never."""
    file = tmp_path / "w1" / "cert.pem"
    before = own.context()
    file.unlink()
    issuer.issue_worker("w1", tmp_path / "w1")
    assert own.context() is before
    own.doubt()
    taken = own.context()
    assert taken is not before
    file.write_text("-----BEGIN CERTIFICATE-----\n")
    own.doubt()
    assert own.context() is taken
    file.unlink()
    clock.advance(4_000)
    assert own.due_in_sec() == 0.0
    issuer.issue_worker("w1", tmp_path / "w1")
    assert own.context() is not taken


def test_half_of_its_life_by_this_clock(own, clock):
    """It is due in about half an hour; a clock before its beginning makes it due at once."""
    assert 1_700 < own.due_in_sec() < 1_820
    clock.advance(600)
    assert 1_100 < own.due_in_sec() < 1_220
    clock.jump_wall(-3_000)
    assert own.due_in_sec() == 0.0


def test_damaged_files_are_told(issuer, tmp_path):
    """A key that does not fit, and no files at all, are the operator's to mend."""
    one, two = (issuer.issue_worker(name, tmp_path / name).folder for name in ("w1", "w2"))
    (one / "key.pem").write_bytes((two / "key.pem").read_bytes())
    for folder in (one, tmp_path / "nowhere"):
        with pytest.raises(ConfigurationError) as told:
            HeldIdentity(folder, TRUST_DOMAIN, make_context=client_context, now_us=SystemClock().now_us)
        assert told.value.error_code == "identity_unusable"


@pytest.mark.parametrize(
    "content", [b"noise", b"x" * 300_000, costly_key()], ids=["noise", "more than any key", "another kind of key"]
)
def test_a_key_that_is_none_is_told_at_once(own, content):
    """Who keeps a machine's files reads them beside the worker whose account may write there, and waits for nothing."""
    (own._folder / "key.pem").write_bytes(content)
    began = time.monotonic()
    with pytest.raises(ConfigurationError):
        HeldIdentity(own._folder, TRUST_DOMAIN, make_context=client_context, now_us=SystemClock().now_us)
    assert time.monotonic() - began < 5
