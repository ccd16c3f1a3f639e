"""What each kind of our certificates holds (RFC 5280; X.509-SVID standard, sections 2 to 4)."""

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from crank.domain.identity import SpiffeId
from crank.domain.trust import Workload
from crank.domain.workload_codec import WORKLOAD_OID, encode_workload
from crank.errors import InvalidRequest
from crank.ports import Clock, IdSource

ROOT_DAYS = 3650
AUTHORITY_DAYS = 730
# Certificates below each tier, at most.
ROOT_DEPTH, AUTHORITY_DEPTH, ISSUING_DEPTH = 2, 1, 0
# Clocks of two machines differ a little; a new certificate must be valid on both at once.
BACKDATED_SEC = 30
HOSTS_MAX = 64
_SERIAL_BITS = 159
_WORKLOAD = x509.ObjectIdentifier(WORKLOAD_OID)


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that signs certificates, and the certificate that says so."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


class Shapes:
    """Makes certificates of one trust domain."""

    def __init__(self, trust_domain: str, clock: Clock, ids: IdSource) -> None:
        self.trust_domain = trust_domain
        self._clock = clock
        self._ids = ids

    def now(self) -> datetime:
        """Return the time, in whole seconds as certificates know it."""
        return datetime.fromtimestamp(self._clock.now_us() // 1_000_000, UTC)

    def is_gone(self, certificate: x509.Certificate, share: float) -> bool:
        """Tell whether this share of a certificate's life is over, or the clock stands before its begin."""
        # What it was backdated is no part of its life: of a short one it would be most.
        begins = certificate.not_valid_before_utc + timedelta(seconds=BACKDATED_SEC)
        due = begins + (certificate.not_valid_after_utc - begins) * share
        return self.now() >= due or self.now() < certificate.not_valid_before_utc

    def root(self, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        """Return a root's certificate, signed by itself."""
        name = _name("Crank root", mark_of(key.public_key()))
        builder = self._dated(timedelta(days=ROOT_DAYS), None).subject_name(name).issuer_name(name)
        return self._signing(builder, key.public_key(), ROOT_DEPTH, issuer=key.public_key()).sign(key, hashes.SHA256())

    def authority(self, public_key: ec.EllipticCurvePublicKey, root: Signer) -> x509.Certificate:
        """Return the certificate of an authority, signed by its root."""
        builder = self._dated(timedelta(days=AUTHORITY_DAYS), root.certificate)
        builder = builder.subject_name(_name("Crank authority", mark_of(public_key)))
        builder = builder.issuer_name(root.certificate.subject)
        signed = self._signing(builder, public_key, AUTHORITY_DEPTH, issuer=root.key.public_key())
        return signed.sign(root.key, hashes.SHA256())

    def issuing(self, public_key: ec.EllipticCurvePublicKey, authority: Signer, life_sec: float) -> x509.Certificate:
        """Return the certificate of an issuing key, signed by the authority.

        It carries the authority's own name (RFC 5280 calls that self-issued). So a revocation list that the
        authority signs is one by the issuer of every leaf, whichever issuing key signed that leaf: keys that
        live in memory are gone after a restart, and could sign no list for the leaves they left.
        """
        builder = self._dated(timedelta(seconds=life_sec), authority.certificate)
        builder = builder.subject_name(authority.certificate.subject).issuer_name(authority.certificate.subject)
        signed = self._signing(builder, public_key, ISSUING_DEPTH, issuer=authority.key.public_key())
        return signed.sign(authority.key, hashes.SHA256())

    def leaf(
        self,
        public_key: ec.EllipticCurvePublicKey,
        names: x509.SubjectAlternativeName,
        workload: Workload,
        issuer: Signer,
        life_sec: float,
    ) -> x509.Certificate:
        """Return an X.509-SVID. It never outlives who signed it."""
        builder = (
            self._dated(timedelta(seconds=life_sec), issuer.certificate)
            .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Crank")]))
            .issuer_name(issuer.certificate.subject)
            .public_key(public_key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            # Both, for every leaf: a peer may be either end of a connection (section 4.4).
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(_issued_by(issuer.certificate), critical=False)
            .add_extension(names, critical=False)
            .add_extension(x509.UnrecognizedExtension(_WORKLOAD, encode_workload(workload)), critical=False)
        )
        return builder.sign(issuer.key, hashes.SHA256())

    def _signing(
        self,
        builder: x509.CertificateBuilder,
        public_key: ec.EllipticCurvePublicKey,
        depth: int,
        *,
        issuer: ec.EllipticCurvePublicKey,
    ) -> x509.CertificateBuilder:
        own = x509.UniformResourceIdentifier(f"spiffe://{self.trust_domain}")
        return (
            builder.public_key(public_key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
            .add_extension(x509.SubjectAlternativeName([own]), critical=False)
        )

    def _dated(self, life: timedelta, issuer: x509.Certificate | None) -> x509.CertificateBuilder:
        now = self.now()
        begins, ends = now - timedelta(seconds=BACKDATED_SEC), now + life
        if issuer is not None:
            ends = min(ends, issuer.not_valid_after_utc)
        # 159 random bits: RFC 5280 allows 20 octets and a positive number.
        number = int.from_bytes(hashlib.sha256(self._ids.secret().encode()).digest(), "big") >> (256 - _SERIAL_BITS)
        return x509.CertificateBuilder().serial_number(number | 1).not_valid_before(begins).not_valid_after(ends)


def names_of(spiffe_id: SpiffeId, hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    """Return the names of a leaf: one URI, and where it serves. Raises InvalidRequest (`invalid_host`)."""
    if len(hosts) > HOSTS_MAX:
        raise InvalidRequest(f"A certificate names {HOSTS_MAX} hosts at most.", code="invalid_host", field="hosts")
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(spiffe_id))]
    for host in dict.fromkeys(hosts):
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            names.append(_host_name(host))
            continue
        # A wildcard is where a server listens, never where a client connects.
        if not address.is_unspecified:
            names.append(x509.IPAddress(address))
    return x509.SubjectAlternativeName(names)


def _host_name(host: str) -> x509.DNSName:
    try:
        name = x509.DNSName(host)
    except ValueError as fault:
        raise InvalidRequest(f"{host[:80]!r} is not a host name.", code="invalid_host", field="hosts") from fault
    if not host or len(host) > 253 or "*" in host or any(character <= " " for character in host):
        raise InvalidRequest(f"{host[:80]!r} is not the name of one host.", code="invalid_host", field="hosts")
    return name


def mark_of(public_key: ec.EllipticCurvePublicKey) -> str:
    """Return 12 hexadecimal digits by which people and file names tell keys apart; never a proof."""
    octets = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(octets).hexdigest()[:12]


def _name(what: str, mark: str) -> x509.Name:
    # A name of its own for each key, so that a stranger's authority is never taken for this one.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{what} {mark}")])


def _issued_by(certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    own = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _usage(*, signs: bool) -> x509.KeyUsage:
    never = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        decipher_only=False,
        **dict.fromkeys(never, False),
    )
