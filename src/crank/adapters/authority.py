"""The node's own certificate authority: made on first start, kept in files that only its owner reads."""

import ipaddress
import os
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from crank.domain.identity import SpiffeId, make_spiffe_id
from crank.errors import ConfigurationError
from crank.ports import Clock

AUTHORITY_DAYS = 3650
LEAF_DAYS = 30
# Clocks of two machines differ; a certificate that is not yet valid is refused.
BACKDATE = timedelta(seconds=30)
SERIAL_BITS = 159


@dataclass(frozen=True, slots=True)
class IdentityFiles:
    """Where an identity lies: its key (0600), its certificate, and the authority that its peers must have."""

    spiffe_id: SpiffeId
    key: Path
    certificate: Path
    authority: Path


class FileAuthority:
    """Issues X.509-SVIDs (P-256) for one trust domain. One process at a time uses a folder."""

    def __init__(self, root: Path, *, trust_domain: str, clock: Clock) -> None:
        self._root = root
        self._trust_domain = trust_domain
        self._clock = clock
        self._key: ec.EllipticCurvePrivateKey | None = None
        self._certificate: x509.Certificate | None = None

    @property
    def certificate_file(self) -> Path:
        """Return the file of the authority's own certificate."""
        return self._root / "ca.pem"

    def ensure(self) -> None:
        """Load the authority, or make it on first start.

        Raises ConfigurationError when its files are damaged, incomplete, expired or of another trust domain.
        """
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        key_file = self._root / "ca-key.pem"
        present = [path.exists() for path in (key_file, self.certificate_file)]
        if present == [False, False]:
            self._make(key_file)
        elif present == [True, False]:
            # The key is written first; a crash in between left no certificate that anybody could hold.
            self._make(key_file)
        elif present == [False, True]:
            raise self._damaged("its key is missing")
        self._load(key_file)

    def _make(self, key_file: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Crank"),
                          x509.NameAttribute(NameOID.COMMON_NAME, f"{self._trust_domain} authority")])  # fmt: skip
        builder = _builder(name, name, key.public_key(), self._now(), AUTHORITY_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(sign_certificates=True), critical=True)
        uri = x509.UniformResourceIdentifier(f"spiffe://{self._trust_domain}")
        builder = builder.add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        builder = _add_key_ids(builder, key.public_key(), key.public_key())
        write_private(key_file, _key_pem(key))
        write_private(self.certificate_file, _certificate_pem(builder.sign(key, hashes.SHA256())), mode=0o644)

    def _load(self, key_file: Path) -> None:
        try:
            key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
            certificate = x509.load_pem_x509_certificate(self.certificate_file.read_bytes())
        except (ValueError, OSError, TypeError) as fault:
            raise self._damaged(str(fault)) from fault
        if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
            raise self._damaged("its key and its certificate do not belong together")
        if certificate.not_valid_after_utc <= self._now():
            raise self._damaged("its certificate has expired; is the clock right?")
        uris = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if uris.get_values_for_type(x509.UniformResourceIdentifier) != [f"spiffe://{self._trust_domain}"]:
            raise self._damaged(f"it is not the authority of the trust domain {self._trust_domain}")
        self._key, self._certificate = key, certificate

    def _damaged(self, cause: str) -> ConfigurationError:
        return ConfigurationError(
            f"The certificate authority in {self._root} cannot be used: {cause}.",
            code="authority_damaged",
            fix="Restore the folder from a backup, or move it away: a new authority is made, and workers join again.",
        )

    def issue_controller(self, folder: Path, *, controller_id: str, hosts: Sequence[str]) -> IdentityFiles:
        """Issue the controller's leaf for these host names and addresses, unless a good one lies there."""
        names: list[x509.GeneralName] = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._issue(folder, make_spiffe_id(self._trust_domain, "controller", controller_id), names, purposes)

    def issue_worker(self, folder: Path, *, worker_id: str) -> IdentityFiles:
        """Issue a worker's leaf into its folder, unless a good one lies there."""
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._issue(folder, make_spiffe_id(self._trust_domain, "worker", worker_id), [], purposes)

    def _issue(
        self,
        folder: Path,
        spiffe_id: SpiffeId,
        names: list[x509.GeneralName],
        purposes: list[x509.ObjectIdentifier],
    ) -> IdentityFiles:
        assert self._key is not None and self._certificate is not None, "ensure() comes first"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = IdentityFiles(spiffe_id, folder / "key.pem", folder / "cert.pem", folder / "ca.pem")
        wanted = [x509.UniformResourceIdentifier(str(spiffe_id)), *names]
        authority_pem = _certificate_pem(self._certificate)
        if self._is_good(files, wanted, authority_pem):
            return files
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Crank")])
        builder = _builder(subject, self._certificate.subject, key.public_key(), self._now(), LEAF_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(sign_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(wanted), critical=False)
        builder = _add_key_ids(builder, key.public_key(), self._key.public_key())
        # The key goes last: a crash in between leaves a pair that does not match, and is issued anew.
        write_private(files.authority, authority_pem, mode=0o644)
        write_private(files.certificate, _certificate_pem(builder.sign(self._key, hashes.SHA256())), mode=0o644)
        write_private(files.key, _key_pem(key))
        return files

    def _is_good(self, files: IdentityFiles, wanted: list[x509.GeneralName], authority_pem: bytes) -> bool:
        assert self._certificate is not None, "ensure() comes first"
        try:
            key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
            leaf = x509.load_pem_x509_certificate(files.certificate.read_bytes())
            leaf.verify_directly_issued_by(self._certificate)
            names = list(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
            same = files.authority.read_bytes() == authority_pem
        except (OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return False
        life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
        fresh = leaf.not_valid_before_utc <= self._now() and leaf.not_valid_after_utc - self._now() > life / 3
        matches = isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == leaf.public_key()
        return same and fresh and matches and names == wanted

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_us() / 1_000_000, UTC)


def write_private(path: Path, octets: bytes, *, mode: int = 0o600) -> None:
    """Replace a file at once and durably; at no moment does it have wider permissions than `mode`."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        os.fchmod(descriptor, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(octets)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    # RFC 5280 section 4.1.2.2 allows 20 octets; 159 random bits stay positive and never repeat.
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(secrets.randbits(SERIAL_BITS) | 1)
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + timedelta(days=days))
    )


def _add_key_ids(
    builder: x509.CertificateBuilder, own: ec.EllipticCurvePublicKey, issuer: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(own), critical=False)
    return builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
