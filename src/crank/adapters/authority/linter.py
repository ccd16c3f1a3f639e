"""The last look at a certificate before it leaves the authority: every rule of the X.509-SVID standard.

It reads the finished certificate, not what was meant; so a mistake in how one is made cannot get out.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from crank.domain.identity import SPIFFE_ID_BYTES_MAX, parse_spiffe_id
from crank.domain.workload_codec import WORKLOAD_OID, decode_workload
from crank.errors import CrankError, InvalidRequest

E = TypeVar("E", bound=x509.ExtensionType)
_WORKLOAD = x509.ObjectIdentifier(WORKLOAD_OID)
_SERIAL_BITS_MAX = 159


def lint_leaf(leaf: x509.Certificate, issuer: x509.Certificate, trust_domain: str) -> None:
    """Raise CrankError (`certificate_not_fit`) that names every rule which a leaf breaks."""
    rules: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("exactly one URI name", lambda: len(_uris(leaf)) == 1),
        ("the name is a SPIFFE ID of this trust domain with a path", lambda: _names_workload(leaf, trust_domain)),
        ("the subject is not empty, or its alternative name is critical", lambda: _is_named(leaf)),
        ("no certificates below it", lambda: not _value(leaf, x509.BasicConstraints).ca),
        ("key usage is critical", lambda: _extension(leaf, x509.KeyUsage).critical),
        ("the key signs, and no certificates or lists", lambda: _signs_only(leaf)),
        ("for servers and for clients", lambda: _serves_both(leaf)),
        ("a workload-type extension, not critical", lambda: _has_workload(leaf)),
        *_common(leaf, issuer),
    )
    _judge(rules)


def lint_signing(certificate: x509.Certificate, issuer: x509.Certificate, trust_domain: str) -> None:
    """Raise CrankError (`certificate_not_fit`) that names every rule which a signing certificate breaks."""
    rules: tuple[tuple[str, Callable[[], bool]], ...] = (
        (
            "its own name is the trust domain, without a path",
            lambda: _uris(certificate) == [f"spiffe://{trust_domain}"],
        ),
        ("certificates below it, to a depth", lambda: _value(certificate, x509.BasicConstraints).ca),
        ("basic constraints are critical", lambda: _extension(certificate, x509.BasicConstraints).critical),
        ("key usage is critical", lambda: _extension(certificate, x509.KeyUsage).critical),
        ("it signs certificates", lambda: _value(certificate, x509.KeyUsage).key_cert_sign),
        ("it is never used to authenticate", lambda: not _value(certificate, x509.KeyUsage).digital_signature),
        *_common(certificate, issuer),
    )
    _judge(rules)


def lint_chain(leaf_first: tuple[x509.Certificate, ...]) -> None:
    """Raise CrankError (`certificate_not_fit`) unless each certificate was issued by the next one."""
    for lower, upper in pairwise(leaf_first):
        try:
            lower.verify_directly_issued_by(upper)
        except Exception as fault:
            raise _not_fit("each certificate is signed by the next") from fault


def _common(certificate: x509.Certificate, issuer: x509.Certificate) -> tuple[tuple[str, Callable[[], bool]], ...]:
    return (
        ("version 3", lambda: certificate.version is x509.Version.v3),
        ("a positive serial number of 159 bits at most", lambda: 0 < certificate.serial_number < 1 << _SERIAL_BITS_MAX),
        ("the issuer's name", lambda: certificate.issuer == issuer.subject),
        ("the issuer's key identifier", lambda: _authority_key(certificate) == _value(issuer, x509.SubjectKeyIdentifier).digest),
        ("it ends no later than its issuer", lambda: certificate.not_valid_after_utc <= issuer.not_valid_after_utc),
        ("it begins before it ends", lambda: certificate.not_valid_before_utc < certificate.not_valid_after_utc),
        ("a key on the curve P-256", lambda: _is_p256(certificate)),
    )  # fmt: skip


def _judge(rules: tuple[tuple[str, Callable[[], bool]], ...]) -> None:
    broken = [name for name, holds in rules if not _stands(holds)]
    if broken:
        raise _not_fit("; ".join(broken))


def _stands(holds: Callable[[], bool]) -> bool:
    try:
        return holds()
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, InvalidRequest):
        return False


def _not_fit(broken: str) -> CrankError:
    return CrankError(
        f"A certificate was made that breaks: {broken}. It was not handed out.", code="certificate_not_fit"
    )


def _extension(certificate: x509.Certificate, kind: type[E]) -> x509.Extension[E]:
    return certificate.extensions.get_extension_for_class(kind)


def _value(certificate: x509.Certificate, kind: type[E]) -> E:
    return certificate.extensions.get_extension_for_class(kind).value


def _uris(certificate: x509.Certificate) -> list[str]:
    names = _value(certificate, x509.SubjectAlternativeName)
    return [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]


def _names_workload(leaf: x509.Certificate, trust_domain: str) -> bool:
    (text,) = _uris(leaf)
    return parse_spiffe_id(text).trust_domain == trust_domain and len(text.encode()) <= SPIFFE_ID_BYTES_MAX


def _is_named(leaf: x509.Certificate) -> bool:
    return bool(list(leaf.subject)) or _extension(leaf, x509.SubjectAlternativeName).critical


def _signs_only(leaf: x509.Certificate) -> bool:
    usage = _value(leaf, x509.KeyUsage)
    return usage.digital_signature and not usage.key_cert_sign and not usage.crl_sign


def _serves_both(leaf: x509.Certificate) -> bool:
    purposes = set(_value(leaf, x509.ExtendedKeyUsage))
    return {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} <= purposes


def _has_workload(leaf: x509.Certificate) -> bool:
    found = leaf.extensions.get_extension_for_oid(_WORKLOAD)
    if not isinstance(found.value, x509.UnrecognizedExtension) or found.critical:
        return False
    decode_workload(found.value.value)
    return True


def _authority_key(certificate: x509.Certificate) -> bytes | None:
    return _value(certificate, x509.AuthorityKeyIdentifier).key_identifier


def _is_p256(certificate: x509.Certificate) -> bool:
    key = certificate.public_key()
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
