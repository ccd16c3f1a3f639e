"""Certificates that a stranger shows: bounded, then parsed strictly, then held against the X509-SVID standard.

What is checked here needs no bundle: it is true or false of one certificate (X509-SVID, sections 2 to 5.2). Whether
anybody vouches for it is `crank.security.path`.
"""

import base64
import hashlib
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from crank.domain.identity import SpiffeId, parse_spiffe_id, parse_trust_domain_id
from crank.domain.json import JsonObject, canonical
from crank.domain.trust import Workload
from crank.domain.workload_codec import WORKLOAD_OID, decode_workload
from crank.errors import InvalidRequest, UntrustedPeer

_WORKLOAD = x509.ObjectIdentifier(WORKLOAD_OID)
# A certificate of ours is about 700 bytes.
CERTIFICATE_BYTES_MAX = 16 * 1024
NAMES_MAX = 64
# What SPIFFE implementations issue; everything else is refused, however well OpenSSL knows it.
_CURVES = ("secp256r1", "secp384r1")
_RSA_BITS_MIN, _RSA_BITS_MAX = 2048, 4096
_HASHES = ("sha256", "sha384", "sha512")
_WORKLOAD = x509.ObjectIdentifier(WORKLOAD_OID)
_BOTH_SIDES = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


def load_certificate(der: bytes) -> x509.Certificate:
    """Parse one DER certificate with all its extensions; nothing may follow it. Raises UntrustedPeer."""
    if len(der) > CERTIFICATE_BYTES_MAX:
        raise UntrustedPeer(f"A certificate is larger than {CERTIFICATE_BYTES_MAX} bytes.")
    try:
        certificate = x509.load_der_x509_certificate(der)
        # Each is parsed when it is first read; here is where that may fail.
        _ = certificate.extensions, certificate.public_key(), certificate.subject, certificate.issuer
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc, certificate.serial_number
        signature = certificate.signature
    except _UNREADABLE as fault:
        raise UntrustedPeer("A certificate cannot be read.", detail=str(fault)) from fault
    # The library takes a signature's last bit for unused where it is told so: a second form of the same certificate.
    if der[-len(signature) - 1] != 0:
        raise UntrustedPeer("A certificate cannot be read.", detail="its signature does not fill its octets")
    return certificate


def peer_identity(der: bytes) -> SpiffeId:
    """Read whom a certificate speaks for, if it has all that an X.509-SVID must have.

    This says nothing about trust: a `Verifier` proves the chain as well. Raises UntrustedPeer.
    """
    return check_leaf(load_certificate(der))


def check_leaf(certificate: x509.Certificate) -> SpiffeId:
    """Return the identity in a leaf certificate (X509-SVID, sections 2, 3.1, 4.1 to 4.4). Raises UntrustedPeer."""
    uris = _uris(certificate)
    if len(uris) != 1:
        raise UntrustedPeer("The peer's certificate does not carry exactly one URI name.")
    try:
        identity = parse_spiffe_id(uris[0])
    except InvalidRequest as fault:
        raise UntrustedPeer(fault.message) from fault
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is not None and constraints.value.ca:
        raise UntrustedPeer("The peer showed the certificate of an authority, not its own.")
    _check_leaf_usage(certificate)
    if not certificate.subject.rdns and not certificate.extensions.get_extension_for_class(_NAMES).critical:
        raise UntrustedPeer("The peer's certificate has no subject, and its names are not marked as critical.")
    check_algorithms(certificate)
    return identity


def read_workload(der: bytes) -> Workload | None:
    """Read what a certificate says of its workload beyond the name; None where it has no such extension.

    Like `peer_identity` it says nothing about trust by itself. Raises UntrustedPeer when the extension is malformed
    or critical, which ours never is.
    """
    return workload_of(load_certificate(der))


def workload_of(certificate: x509.Certificate) -> Workload | None:
    """Return what `read_workload` reads of a parsed certificate. Raises UntrustedPeer."""
    try:
        found = certificate.extensions.get_extension_for_oid(_WORKLOAD)
    except x509.ExtensionNotFound:
        return None
    if found.critical or not isinstance(found.value, x509.UnrecognizedExtension):
        raise UntrustedPeer("The peer's certificate has a critical workload-type extension.")
    try:
        return decode_workload(found.value.value)
    except InvalidRequest as fault:
        raise UntrustedPeer(fault.message) from fault


def _check_leaf_usage(certificate: x509.Certificate) -> None:
    usage = _extension(certificate, x509.KeyUsage)
    if usage is None or not usage.critical:
        raise UntrustedPeer("The peer's certificate does not say, as critical, what its key is for.")
    if usage.value.key_cert_sign or usage.value.crl_sign:
        raise UntrustedPeer("The peer showed the certificate of an authority: its key signs certificates or lists.")
    if not usage.value.digital_signature:
        raise UntrustedPeer("The key of the peer's certificate is not for digital signatures.")
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    if purposes is not None and not set(purposes.value) >= _BOTH_SIDES:
        raise UntrustedPeer("The peer's certificate is not for both sides of TLS.")


def check_authority(certificate: x509.Certificate, trust_domain: str) -> None:
    """Check a certificate that signs for a trust domain (X509-SVID, sections 3.2, 4.1 to 4.3). Raises UntrustedPeer."""
    constraints = _extension(certificate, x509.BasicConstraints)
    usage = _extension(certificate, x509.KeyUsage)
    if constraints is None or not constraints.value.ca:
        raise UntrustedPeer("A certificate in the chain is not that of an authority.")
    if usage is None or not usage.critical or not usage.value.key_cert_sign:
        raise UntrustedPeer("A key in the chain is not one that signs certificates.")
    uris = _uris(certificate)
    if len(uris) > 1:
        raise UntrustedPeer("An authority in the chain carries more than one URI name.")
    for uri in uris:
        try:
            named = parse_trust_domain_id(uri)
        except InvalidRequest as fault:
            raise UntrustedPeer("An authority in the chain carries the name of a workload.") from fault
        if named != trust_domain:
            raise UntrustedPeer(f"An authority in the chain is that of {named}, not of {trust_domain}.")
    check_algorithms(certificate)


def check_algorithms(certificate: x509.Certificate) -> None:
    """Check key and signature against the short list of what is accepted. Raises UntrustedPeer."""
    key = certificate.public_key()
    known = (isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES) or (
        isinstance(key, rsa.RSAPublicKey) and _RSA_BITS_MIN <= key.key_size <= _RSA_BITS_MAX
    )
    try:
        digest = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        digest = None
    if not known or digest is None or digest.name not in _HASHES:
        raise UntrustedPeer("A certificate has a key or a signature of a kind that is not accepted.")


def jwk_of(certificate: x509.Certificate) -> JsonObject:
    """Return the public key of an accepted certificate as a JWK (RFC 7517) of the members that RFC 7638 hashes."""
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        size_bytes, point = (key.key_size + 7) // 8, key.public_numbers()
        crv = f"P-{key.key_size}"
        return {"kty": "EC", "crv": crv, "x": _number(point.x, size_bytes), "y": _number(point.y, size_bytes)}
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
    raise UntrustedPeer("A certificate has a key of a kind that is not accepted.")


def thumbprint(jwk: JsonObject) -> str:
    """Return the SHA-256 thumbprint (RFC 7638) of a JWK that has the required members alone."""
    return _base64url(hashlib.sha256(canonical(jwk)).digest())


def serial_of(certificate: x509.Certificate) -> str:
    """Return the serial number in lower-case hexadecimal."""
    return format(certificate.serial_number, "x")


def micros(moment: datetime) -> int:
    """Return an aware time in microseconds since 1970."""
    return int(moment.timestamp()) * 1_000_000


_NAMES = x509.SubjectAlternativeName


def _uris(certificate: x509.Certificate) -> list[str]:
    names = _extension(certificate, _NAMES)
    if names is None:
        return []
    if len(list(names.value)) > NAMES_MAX:
        raise UntrustedPeer(f"A certificate carries more than {NAMES_MAX} names.")
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)


def _extension(
    certificate: x509.Certificate, kind: type[x509.extensions.ExtensionTypeVar]
) -> "x509.Extension[x509.extensions.ExtensionTypeVar] | None":
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def _number(value: int, size_bytes: int | None = None) -> str:
    return _base64url(value.to_bytes(size_bytes or (value.bit_length() + 7) // 8, "big"))


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")
