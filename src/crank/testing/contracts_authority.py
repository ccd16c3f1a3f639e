"""What every Authority promises: certificates by the standard, two sets of keys for tokens, a bundle that tells."""

import asyncio
import base64
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from crank.domain.identity import make_spiffe_id
from crank.domain.ids import InstanceId
from crank.domain.json import JsonObject
from crank.domain.trust import Attestation, Workload
from crank.errors import InvalidRequest
from crank.ports import Authority
from crank.security import peer_identity, read_workload
from crank.testing.fakes import FakeClock

DOMAIN = "test.internal"
WORKER = make_spiffe_id(DOMAIN, "worker", "w1")
WORKLOAD = Workload("worker", InstanceId("01890a5d-ac96-774b-bcce-b302099a8057"), Attestation.THUMBPRINT)


class AuthorityContract:
    """A subclass gives `authority` of the trust domain `test.internal`, made with `clock` and leaves of an hour."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        """Return the clock that the authority was made with."""
        return FakeClock()

    @pytest.fixture
    def authority(self, clock: FakeClock) -> Authority:
        """Return a new authority."""
        raise NotImplementedError

    def change_keys(self, authority: Any, clock: FakeClock) -> None:
        """Let both sets of keys for tokens change."""
        raise NotImplementedError

    def test_a_leaf_says_who_and_what(self, authority: Authority, clock: FakeClock) -> None:
        """The identity, the workload, the serial and the times are in the certificate as they are told."""
        svid = authority.issue(WORKER, WORKLOAD, public_key())
        leaf = x509.load_der_x509_certificate(svid.chain[0])
        assert peer_identity(svid.chain[0]) == svid.spiffe_id == WORKER
        assert read_workload(svid.chain[0]) == svid.workload == WORKLOAD
        assert f"{leaf.serial_number:x}" == svid.serial
        assert leaf.not_valid_before_utc.timestamp() * 1_000_000 == svid.not_before_us
        assert leaf.not_valid_after_utc.timestamp() * 1_000_000 == svid.not_after_us
        assert clock.now_us() // 1_000_000 - svid.not_before_us // 1_000_000 == 30
        assert svid.not_after_us // 1_000_000 - clock.now_us() // 1_000_000 == 3600

    def test_a_leaf_serves_both_ends(self, authority: Authority) -> None:
        """X.509-SVID section 4: no CA, critical key usage to sign alone, for servers and for clients."""
        leaf = x509.load_der_x509_certificate(authority.issue(WORKER, WORKLOAD, public_key()).chain[0])
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert usage.value.digital_signature
        assert {usage.value.key_cert_sign, usage.value.crl_sign} == {False}
        assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        purposes = set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        assert purposes == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}

    def test_a_chain_leads_to_the_bundle(self, authority: Authority) -> None:
        """Each certificate is signed by the next, and the last by a root of the bundle, which is not in the chain."""
        chain = [x509.load_der_x509_certificate(each) for each in authority.issue(WORKER, WORKLOAD, public_key()).chain]
        roots = [x509.load_der_x509_certificate(each) for each in authority.bundle().x509_authorities]
        for lower, upper in pairwise(chain):
            lower.verify_directly_issued_by(upper)
        assert any(_issued(chain[-1], root) for root in roots)
        assert all(root.issuer == root.subject and root not in chain for root in roots)

    def test_hosts_are_named_beside_the_identity(self, authority: Authority) -> None:
        """DNS names and addresses may be added; the URI stays the only one, and a wildcard address is left out."""
        hosts = ["localhost", "192.0.2.7", "::1", "0.0.0.0", "localhost"]  # noqa: S104 - a name, never bound
        leaf = x509.load_der_x509_certificate(authority.issue(WORKER, WORKLOAD, public_key(), hosts=hosts).chain[0])
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(WORKER)]
        assert names.get_values_for_type(x509.DNSName) == ["localhost"]
        assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7", "::1"]

    @pytest.mark.parametrize("ttl_sec", [60.0, 7200.0])
    def test_a_life_may_only_be_shorter(self, authority: Authority, clock: FakeClock, ttl_sec: float) -> None:
        """Who asks for less gets less; who asks for more gets what the operator chose."""
        svid = authority.issue(WORKER, WORKLOAD, public_key(), ttl_sec=ttl_sec)
        assert svid.not_after_us // 1_000_000 - clock.now_us() // 1_000_000 == min(ttl_sec, 3600)

    @pytest.mark.parametrize("ttl_sec", [0.0, -5.0, float("nan")])
    def test_a_life_of_nothing_is_refused(self, authority: Authority, ttl_sec: float) -> None:
        """A certificate that is never valid is not made."""
        with pytest.raises(InvalidRequest) as caught:
            authority.issue(WORKER, WORKLOAD, public_key(), ttl_sec=ttl_sec)
        assert caught.value.error_code == "invalid_ttl"

    @pytest.mark.parametrize("octets", [b"", b"noise", b"\x30\x00"])
    def test_a_key_that_is_none_is_refused(self, authority: Authority, octets: bytes) -> None:
        """Noise is no public key."""
        with pytest.raises(InvalidRequest) as caught:
            authority.issue(WORKER, WORKLOAD, octets)
        assert caught.value.error_code == "invalid_key"

    def test_another_curve_is_refused(self, authority: Authority) -> None:
        """Only P-256 is issued for."""
        other = ec.generate_private_key(ec.SECP384R1()).public_key()
        with pytest.raises(InvalidRequest) as caught:
            authority.issue(WORKER, WORKLOAD, other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        assert caught.value.error_code == "invalid_key"

    def test_another_trust_domain_is_refused(self, authority: Authority) -> None:
        """An authority speaks for its own trust domain alone."""
        with pytest.raises(InvalidRequest) as caught:
            authority.issue(make_spiffe_id("other.test", "worker", "w1"), WORKLOAD, public_key())
        assert caught.value.error_code == "foreign_trust_domain"

    @pytest.mark.parametrize("host", ["", "*.example.org", "räuber", "a b", "x" * 254])
    def test_a_host_that_is_none_is_refused(self, authority: Authority, host: str) -> None:
        """No wildcard, no space, nothing that no peer could compare."""
        with pytest.raises(InvalidRequest) as caught:
            authority.issue(WORKER, WORKLOAD, public_key(), hosts=[host])
        assert caught.value.error_code == "invalid_host"

    def test_tokens_are_signed_by_two_sets(self, authority: Authority) -> None:
        """A JWT-SVID by a key of the bundle, a capability token by one of the other set, each saying which."""
        svid, token = authority.sign_jwt_svid({"sub": "a"}), authority.sign_access_token({"sub": "b"})
        svid_keys = {each.kid: each.jwk for each in authority.bundle().jwt_authorities}
        token_keys = {str(each["kid"]): each for each in authority.access_token_keys()}
        assert svid_keys.keys().isdisjoint(token_keys)
        assert read_jws(svid, svid_keys) == ({"alg": "ES256", "typ": "JWT"}, {"sub": "a"})
        assert read_jws(token, token_keys) == ({"alg": "ES256", "typ": "at+jwt"}, {"sub": "b"})
        assert {each["use"] for each in svid_keys.values()} == {"jwt-svid"}
        assert {each["use"] for each in token_keys.values()} == {"sig"}

    def test_public_keys_hold_nothing_private(self, authority: Authority) -> None:
        """No JWK that is told has a private member."""
        told = [*(each.jwk for each in authority.bundle().jwt_authorities), *authority.access_token_keys()]
        assert all("d" not in each for each in told)

    def test_old_tokens_can_be_checked_after_a_rotation(self, authority: Authority, clock: FakeClock) -> None:
        """What was signed just before keys changed is still checked by what is published."""
        svid, token = authority.sign_jwt_svid({"n": 1}), authority.sign_access_token({"n": 2})
        before = authority.bundle().sequence
        self.change_keys(authority, clock)
        read_jws(svid, {each.kid: each.jwk for each in authority.bundle().jwt_authorities})
        read_jws(token, {str(each["kid"]): each for each in authority.access_token_keys()})
        assert authority.bundle().sequence > before

    async def test_a_change_wakes_whoever_waits(self, authority: Authority, clock: FakeClock) -> None:
        """Waiters get the bundle of the next sequence; one that asks with an old one is answered at once."""
        before = authority.bundle()
        waiting = [asyncio.create_task(authority.next_bundle(before.sequence)) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(each.done() for each in waiting)
        await asyncio.to_thread(self.change_keys, authority, clock)
        for told in await asyncio.wait_for(asyncio.gather(*waiting), 10):
            assert told == authority.bundle()
        assert await asyncio.wait_for(authority.next_bundle(before.sequence), 10) == authority.bundle()

    def test_a_list_names_what_is_revoked(self, authority: Authority, clock: FakeClock) -> None:
        """It is by the issuer of every leaf, has its number and times, and holds the serials with their moments."""
        svid = authority.issue(WORKER, WORKLOAD, public_key())
        lists = authority.sign_revocations([(svid.serial, clock.now_us())], number=7, next_update_sec=60.0)
        crl = x509.load_der_x509_crl(lists.by_authorities[0])
        leaf = x509.load_der_x509_certificate(svid.chain[0])
        assert crl.issuer == leaf.issuer
        found = crl.get_revoked_certificate_by_serial_number(leaf.serial_number)
        assert found is not None
        assert found.revocation_date_utc.timestamp() == clock.now_us() // 1_000_000
        assert crl.get_revoked_certificate_by_serial_number(leaf.serial_number + 1) is None
        assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 7
        assert crl.next_update_utc is not None
        assert crl.next_update_utc.timestamp() == clock.now_us() // 1_000_000 + 60

    @pytest.mark.parametrize("serials", [[("xyz", 0)], [("", 0)], [("0", 0)], [("f" * 41, 0)]])
    def test_a_serial_that_is_none_is_refused(
        self, authority: Authority, serials: Sequence[tuple[str, int]]
    ) -> None:
        """A list is made of serial numbers, or not at all."""
        with pytest.raises(InvalidRequest):
            authority.sign_revocations(serials, number=1, next_update_sec=60.0)


def public_key() -> bytes:
    """Make a key and return its public half as a request carries it."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def read_jws(token: str, keys: dict[str, JsonObject]) -> tuple[JsonObject, JsonObject]:
    """Check a compact JWS by the key that it names; return its header without that name, and its claims."""
    head, claims, signature = token.split(".")
    header: JsonObject = json.loads(_octets(head))
    jwk = keys[header.pop("kid")]
    x, y = (int.from_bytes(_octets(str(jwk[name])), "big") for name in ("x", "y"))
    octets = _octets(signature)
    assert len(octets) == 64
    encoded = encode_dss_signature(int.from_bytes(octets[:32], "big"), int.from_bytes(octets[32:], "big"))
    key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    key.verify(encoded, f"{head}.{claims}".encode(), ec.ECDSA(hashes.SHA256()))
    return header, json.loads(_octets(claims))


def _octets(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _issued(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    if certificate.issuer != root.subject:
        return False
    certificate.verify_directly_issued_by(root)
    return True
