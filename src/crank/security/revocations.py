"""Lists of revocations (RFC 5280, section 5) in a file, as `crank identity fetch` keeps it.

Where there is such a file it counts strictly: without a list of the leaf's issuer, signed by it and not past its time,
nobody is believed, because it would not be known who was taken back since.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from crank.domain.trust import Peer
from crank.errors import ConfigurationError, UntrustedPeer
from crank.security.certificates import load_certificate, serial_of

FILE_BYTES_MAX = 16 * 1024 * 1024
_LIST = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)
_US = 1_000_000
_FRESH = "Keep the folder fresh: crank identity fetch --dir … --watch; a worker's own is kept so by the node, while it runs."


@dataclass(frozen=True, slots=True)
class _List:
    """One list, read."""

    crl: x509.CertificateRevocationList
    serials: frozenset[int]

    def is_good(self, signers: Sequence[x509.Certificate], now: datetime) -> bool:
        ends = self.crl.next_update_utc
        return ends is not None and now < ends and any(map(self._is_of, signers))

    def _is_of(self, signer: x509.Certificate) -> bool:
        key = signer.public_key()
        if signer.subject != self.crl.issuer or not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            return False
        return self.crl.is_signature_valid(key)


class RevocationFile:
    """The file, read anew when it was written anew; safe in threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[bytes | None, Mapping[x509.Name, _List]] = (None, {})

    def check(self, shown: Sequence[bytes], peer: Peer, anchors: Sequence[bytes], now_us: int) -> None:
        """Refuse a peer on a list; where there is no file, nobody.

        shown    the chain that proved the peer; anchors  the authorities by which it did (DER)
        Raises UntrustedPeer (`identity_revoked`, `revocations_unknown`), ConfigurationError (`identity_unusable`).
        """
        lists = self._lists()
        if lists is None:
            return
        now = datetime.fromtimestamp(now_us / _US, UTC)
        chain = [load_certificate(der) for der in shown]
        signers = [*chain, *(load_certificate(der) for der in anchors)]
        for certificate in chain:
            found = lists.get(certificate.issuer)
            if certificate is chain[0] and (found is None or not found.is_good(signers, now)):
                raise UntrustedPeer(
                    f"Whether {peer.spiffe_id} was revoked is not known: {self._path} has no list of its issuer for now.",
                    code="revocations_unknown",
                    fix=_FRESH,
                )
            if found is not None and serial_of(certificate) in peer.serials and certificate.serial_number in found.serials:
                raise UntrustedPeer(f"The identity {peer.spiffe_id} was revoked.", code="identity_revoked")

    def _lists(self) -> Mapping[x509.Name, _List] | None:
        try:
            with self._path.open("rb") as source:
                octets = source.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        except OSError as fault:
            raise self._unusable(f"it cannot be read: {fault.strerror}") from fault
        known, lists = self._read
        if octets != known:
            lists = self._parse(octets)
            self._read = (octets, lists)
        return lists

    def _parse(self, octets: bytes) -> Mapping[x509.Name, _List]:
        if len(octets) > FILE_BYTES_MAX:
            raise self._unusable(f"it is larger than {FILE_BYTES_MAX} bytes")
        try:
            found = [x509.load_pem_x509_crl(pem) for pem in _LIST.findall(octets)]
            lists = {crl.issuer: _List(crl, frozenset(each.serial_number for each in crl)) for crl in found}
        except ValueError as fault:
            raise self._unusable("a list in it cannot be read") from fault
        if not lists:
            raise self._unusable("it holds no list of revocations")
        return lists

    def _unusable(self, cause: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self._path} says of nobody whether they were revoked: {cause}.", code="identity_unusable", fix=_FRESH
        )
