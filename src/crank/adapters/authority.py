"""The node's own certificate authority, kept in files: made on first start, it issues every identity.

A key is written once and never changes; a certificate is replaced whole when it is renewed. So a
crash at any moment leaves a pair that fits, or a key whose certificate is simply issued again.
"""

import contextlib
import hashlib
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from crank.domain.identity import SpiffeId, make_spiffe_id, parse_trust_domain
from crank.errors import ConfigurationError
from crank.ports import Clock, IdSource

CA_DAYS = 3650
LEAF_DAYS = 30
# Clocks of two machines differ a little; a new certificate must be valid on both at once.
BACKDATED_SEC = 30
_SERIAL_BITS = 159
# X509-SVID, section 4.4: one for both sides, whoever bears it.
_BOTH_SIDES = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])


@dataclass(frozen=True, slots=True)
class Identity:
    """Where an issued identity lies: PEM files in a folder of mode 0700, the key of mode 0600."""

    spiffe_id: SpiffeId
    folder: Path

    @property
    def key_file(self) -> Path:
        """Return the private key."""
        return self.folder / "key.pem"

    @property
    def certificate_file(self) -> Path:
        """Return the certificate."""
        return self.folder / "cert.pem"

    @property
    def ca_file(self) -> Path:
        """Return the authority that both sides trust."""
        return self.folder / "ca.pem"


class FileAuthority:
    """Issues X.509-SVIDs (P-256) for one trust domain."""

    def __init__(self, root: Path, *, trust_domain: str, clock: Clock, ids: IdSource) -> None:
        self._root = root
        self._trust_domain = parse_trust_domain(trust_domain)
        self._clock = clock
        self._ids = ids

    @property
    def ca_file(self) -> Path:
        """Return the authority's certificate, which is no secret."""
        return self._root / "ca.pem"

    def ensure(self) -> None:
        """Make the authority if there is none, and check it. Safe to call again.

        Raises ConfigurationError when its files are damaged, do not fit or are for another trust domain.
        """
        self._signer()

    def issue_controller(self, controller_id: str, *, addresses: Sequence[str] = ()) -> Identity:
        """Return the controller's identity, good for servers on loopback and on `addresses`.

        Renewed when less than a third of its life is left or an address is new.
        Raises ConfigurationError for damaged files.
        """
        identity = Identity(make_spiffe_id(self._trust_domain, "controller", controller_id), self._root / "controller")
        return self._issue(identity, ["localhost", "127.0.0.1", "::1", *addresses])

    def issue_worker(self, worker_id: str, folder: Path) -> Identity:
        """Return a worker's identity in `folder`, good as a client only; renewed like the controller's.

        Raises ConfigurationError for damaged files.
        """
        return self._issue(Identity(make_spiffe_id(self._trust_domain, "worker", worker_id), folder), [])

    def publish_ca(self, target: Path) -> None:
        """Write the authority's certificate to where callers of the API find it."""
        self.ensure()
        _write(target, self.ca_file.read_bytes(), mode=0o644)

    def _signer(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        key_file = self._root / "ca-key.pem"
        if self.ca_file.exists() and not key_file.exists():
            raise _damaged(key_file, "the authority's key is missing")
        key = _ensure_key(key_file)
        if not self.ca_file.exists():
            _write(self.ca_file, _pem(self._self_sign(key)), mode=0o644)
        certificate = _read_certificate(self.ca_file)
        if certificate.public_key() != key.public_key():
            raise _damaged(self.ca_file, "the authority's key and certificate do not belong together")
        if _uris(certificate) != [f"spiffe://{self._trust_domain}"]:
            raise _damaged(self.ca_file, f"the authority is not that of the trust domain {self._trust_domain}")
        if certificate.not_valid_after_utc <= self._now():
            raise _damaged(self.ca_file, "the authority's certificate has expired")
        return key, certificate

    def _self_sign(self, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        # A name of its own for each key, so that a stranger's authority is never taken for this one.
        mark = hashlib.sha256(_public_octets(key)).hexdigest()[:12]
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Crank authority {mark}")])
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = (
            self._dated(CA_DAYS)
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(identifier, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{self._trust_domain}")]),
                critical=False,
            )
        )
        return builder.sign(key, hashes.SHA256())

    def _issue(self, identity: Identity, hosts: Sequence[str]) -> Identity:
        ca_key, ca_certificate = self._signer()
        if identity.certificate_file.exists() and not identity.key_file.exists():
            raise _damaged(identity.key_file, "the key is missing")
        key = _ensure_key(identity.key_file)
        names = _names(identity.spiffe_id, hosts)
        if not identity.certificate_file.exists() or self._is_due(identity, key, names, ca_certificate):
            certificate = self._sign_leaf(key, names, ca_key, ca_certificate)
            _write(identity.certificate_file, _pem(certificate), mode=0o644)
        _write(identity.ca_file, _pem(ca_certificate), mode=0o644)
        return identity

    def _is_due(
        self,
        identity: Identity,
        key: ec.EllipticCurvePrivateKey,
        names: x509.SubjectAlternativeName,
        ca_certificate: x509.Certificate,
    ) -> bool:
        certificate = _read_certificate(identity.certificate_file)
        if certificate.public_key() != key.public_key():
            raise _damaged(identity.certificate_file, "the key and the certificate do not belong together")
        if certificate.issuer != ca_certificate.subject:
            return True
        if certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value != names:
            return True
        if certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value != _BOTH_SIDES:
            return True
        life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        return certificate.not_valid_after_utc - self._now() < life / 3

    def _sign_leaf(
        self,
        key: ec.EllipticCurvePrivateKey,
        names: x509.SubjectAlternativeName,
        ca_key: ec.EllipticCurvePrivateKey,
        ca_certificate: x509.Certificate,
    ) -> x509.Certificate:
        issuer = ca_certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            self._dated(LEAF_DAYS)
            .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Crank")]))
            .issuer_name(ca_certificate.subject)
            .public_key(key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(_BOTH_SIDES, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
            .add_extension(names, critical=False)
        )
        return builder.sign(ca_key, hashes.SHA256())

    def _dated(self, days: int) -> x509.CertificateBuilder:
        now = self._now()
        # 159 random bits: RFC 5280 allows 20 octets and a positive number.
        number = int.from_bytes(hashlib.sha256(self._ids.secret().encode()).digest(), "big") >> (256 - _SERIAL_BITS)
        return (
            x509.CertificateBuilder()
            .serial_number(number | 1)
            .not_valid_before(now - timedelta(seconds=BACKDATED_SEC))
            .not_valid_after(now + timedelta(days=days))
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_us() // 1_000_000, UTC)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    never = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        decipher_only=False,
        **dict.fromkeys(never, False),
    )


def _names(spiffe_id: SpiffeId, hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(spiffe_id))]
    for host in dict.fromkeys(hosts):
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            names.append(x509.DNSName(host))
            continue
        # A wildcard is where a server listens, never where a client connects.
        if not address.is_unspecified:
            names.append(x509.IPAddress(address))
    return x509.SubjectAlternativeName(names)


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _public_octets(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _ensure_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        octets = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write(path, octets, mode=0o600)
        return key
    try:
        loaded = serialization.load_pem_private_key(path.read_bytes(), password=None)
        open_to_others = path.stat().st_mode & 0o077
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as fault:
        raise _damaged(path, "the key cannot be read") from fault
    if open_to_others:
        raise _damaged(path, "other accounts may read the key", fix=f"Run 'chmod 600 {path}' if nobody else used it.")
    if not isinstance(loaded, ec.EllipticCurvePrivateKey) or not isinstance(loaded.curve, ec.SECP256R1):
        raise _damaged(path, "the key is not one on the curve P-256")
    return loaded


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as fault:
        raise _damaged(path, "the certificate cannot be read") from fault


def _damaged(path: Path, cause: str, *, fix: str | None = None) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: {cause}.",
        code="identity_damaged",
        field=str(path),
        fix=fix or f"Restore {path.parent} from a backup, or remove it: the node then makes new identities.",
    )


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Put a file in place whole; a secret is never readable by others, not even for a moment."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if mode == 0o600:
        path.parent.chmod(0o700)
    if mode != 0o600 and path.exists() and path.read_bytes() == content:
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as target:
        # Whatever the umask is: a worker with an account of its own reads what its controller renews.
        os.fchmod(target.fileno(), mode)
        target.write(content)
        target.flush()
        os.fsync(target.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fsync(folder)
    os.close(folder)
