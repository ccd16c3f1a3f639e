"""Certificate requests (PKCS#10, RFC 2986), read strictly by who issues identities."""

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID

from crank.domain.identity import SpiffeId, parse_spiffe_id
from crank.domain.issued import CertificateRequest
from crank.errors import InvalidRequest

REQUEST_BYTES_MAX = 8 * 1024
_PEM = b"-----BEGIN"


def read_request(octets: bytes) -> CertificateRequest:
    """Read a request in DER or PEM that asks for one SPIFFE ID and nothing else, and prove that its key signed it.

    Raises InvalidRequest (`invalid_csr`).
    """
    if len(octets) > REQUEST_BYTES_MAX:
        raise _invalid(f"is larger than {REQUEST_BYTES_MAX} bytes")
    load = x509.load_pem_x509_csr if octets.lstrip().startswith(_PEM) else x509.load_der_x509_csr
    try:
        request = load(octets)
        key, extensions = request.public_key(), list(request.extensions)
        proven = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension) as fault:
        raise _invalid("cannot be read") from fault
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _invalid("is for a key that is not on the curve P-256")
    if not proven:
        raise _invalid("is not signed by its own key")
    digest = request.signature_hash_algorithm
    if digest is None or digest.name not in ("sha256", "sha384", "sha512"):
        raise _invalid("is signed with a hash that is not accepted")
    if [each.oid for each in extensions] != [ExtensionOID.SUBJECT_ALTERNATIVE_NAME]:
        raise _invalid("asks for something else than a name")
    spiffe_id = _only_name(extensions[0].value)
    return CertificateRequest(spiffe_id, key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _only_name(names: object) -> SpiffeId:
    assert isinstance(names, x509.SubjectAlternativeName), "checked by its identifier"
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(list(names)) != 1 or len(uris) != 1:
        raise _invalid("asks for something else than one SPIFFE ID")
    return parse_spiffe_id(uris[0])


def _invalid(cause: str) -> InvalidRequest:
    return InvalidRequest(
        f"The certificate request {cause}.",
        code="invalid_csr",
        field="csr",
        fix="Send a PKCS#10 request (DER or PEM) with a P-256 key and the SPIFFE ID as its only name.",
    )
