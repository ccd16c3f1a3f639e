"""A small authority that issues what a test asks for, right or wrong: X.509-SVIDs with any one rule broken."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from crank.domain.trust import TrustBundle

NOW = dt.datetime(2026, 11, 30, 12, 0, tzinfo=dt.UTC)
NOW_US = int(NOW.timestamp()) * 1_000_000
DOMAIN = "one.test"
GOOD = f"spiffe://{DOMAIN}/worker/w1"
HOUR = dt.timedelta(hours=1)
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


def usage(*names: str) -> x509.KeyUsage:
    """Return a key usage with these bits."""
    bits = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{bit: bit in names for bit in bits})


@dataclass(frozen=True)
class Wish:
    """What a certificate shall hold; the defaults make a good leaf, `authority_wish` a good authority."""

    uris: Sequence[str] = (GOOD,)
    dns: Sequence[str] = ()
    subject: str = "leaf"
    san_critical: bool = False
    ca: bool | None = False
    path_length: int | None = None
    key_usage: x509.KeyUsage | None = field(default_factory=lambda: usage("digital_signature"))
    usage_critical: bool = True
    purposes: Sequence[x509.ObjectIdentifier] | None = BOTH
    begins: dt.datetime = NOW - HOUR
    ends: dt.datetime = NOW + HOUR
    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    digest: Any = field(default_factory=hashes.SHA256)
    more: Sequence[tuple[x509.ExtensionType, bool]] = ()


def authority_wish(domain: str = DOMAIN, **changes: Any) -> Wish:
    """Return what an authority's certificate holds."""
    wanted: dict[str, Any] = {
        "uris": (f"spiffe://{domain}",),
        "subject": f"authority of {domain}",
        "ca": True,
        "key_usage": usage("key_cert_sign", "crl_sign"),
        "purposes": None,
    }
    return Wish(**{**wanted, **changes})


@dataclass(frozen=True)
class Issuer:
    """A certificate with its key, which signs whatever it is asked to."""

    certificate: x509.Certificate
    key: Any
    above: tuple["Issuer", ...] = ()

    @property
    def der(self) -> bytes:
        """Return the certificate."""
        return self.certificate.public_bytes(Encoding.DER)

    def issue(self, wish: Wish) -> "Issuer":
        """Sign what is wished."""
        made = _builder(wish, self.certificate.subject, self.key).sign(self.key, wish.digest)
        return Issuer(made, wish.key, (self, *self.above))

    def leaf(self, **changes: Any) -> tuple[bytes, ...]:
        """Return a chain: a leaf with one thing changed, and what signed it, without the root."""
        return self.issue(Wish(**changes)).chain

    @property
    def chain(self) -> tuple[bytes, ...]:
        """Return it and what signed it, without the root."""
        return (self.der, *(each.der for each in self.above[:-1]))

    def bundle(self, domain: str = DOMAIN, sequence: int = 1) -> TrustBundle:
        """Return a bundle that holds this authority alone."""
        return TrustBundle(domain, sequence, 300, (self.der,))


def self_signed(wish: Wish) -> Issuer:
    """Return a certificate that vouches for itself."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wish.subject)])
    return Issuer(_builder(wish, name, wish.key).sign(wish.key, wish.digest), wish.key)


def root(domain: str = DOMAIN, **changes: Any) -> Issuer:
    """Return a root of a trust domain."""
    return self_signed(authority_wish(domain, **changes))


def _builder(wish: Wish, issuer: x509.Name, issuer_key: Any) -> x509.CertificateBuilder:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, wish.subject)] if wish.subject else []
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(names))
        .issuer_name(issuer)
        .public_key(wish.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(wish.begins)
        .not_valid_after(wish.ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(wish.key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if wish.uris or wish.dns:
        general: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in wish.uris]
        general += [x509.DNSName(name) for name in wish.dns]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=wish.san_critical)
    if wish.ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(wish.ca, wish.path_length), critical=True)
    if wish.key_usage is not None:
        builder = builder.add_extension(wish.key_usage, critical=wish.usage_critical)
    if wish.purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(wish.purposes), critical=False)
    for extension, critical in wish.more:
        builder = builder.add_extension(extension, critical=critical)
    return builder
