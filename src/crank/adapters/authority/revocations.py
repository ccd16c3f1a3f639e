"""Revocation lists (RFC 5280, section 5), signed by an authority for every leaf below it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from crank.adapters.authority.shapes import BACKDATED_SEC, Signer
from crank.errors import InvalidRequest

SERIALS_MAX = 100_000
_SERIAL_BITS_MAX = 160


def sign_list(
    signer: Signer, serials: Sequence[tuple[str, int]], *, number: int, now: datetime, next_update_sec: float
) -> bytes:
    """Return a DER list. Raises InvalidRequest (`invalid_revocations`)."""
    if len(serials) > SERIALS_MAX or number < 0 or next_update_sec <= 0:
        raise _invalid(f"A list holds {SERIALS_MAX} serials at most, has a number from 0 on and a time to live.")
    own = signer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(signer.certificate.subject)
        .last_update(now - timedelta(seconds=BACKDATED_SEC))
        .next_update(now + timedelta(seconds=next_update_sec))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)
    )
    for serial, revoked_us in serials:
        revoked = datetime.fromtimestamp(revoked_us // 1_000_000, UTC)
        entry = x509.RevokedCertificateBuilder().serial_number(_number(serial)).revocation_date(revoked).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(signer.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _number(serial: str) -> int:
    try:
        number = int(serial, 16)
    except ValueError:
        raise _invalid("A serial number is written in hexadecimal digits.") from None
    if not 0 < number < 1 << _SERIAL_BITS_MAX:
        raise _invalid("A serial number has 160 bits at most.")
    return number


def _invalid(cause: str) -> InvalidRequest:
    return InvalidRequest(cause, code="invalid_revocations", field="serials")
