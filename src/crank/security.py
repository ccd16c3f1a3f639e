"""The one security module, for worker authors and for Crank itself: TLS 1.3, both sides proven.

There is no argument that turns verification off. Identities are SPIFFE IDs in the URI SAN of an
X.509-SVID (SPIFFE X509-SVID standard, sections 2 and 4); the names in a certificate's subject never count.
"""

import ssl
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from crank.domain.identity import SpiffeId, parse_spiffe_id
from crank.errors import ConfigurationError, InvalidRequest, UntrustedPeer

CERTIFICATE_BYTES_MAX = 64 * 1024


def _load(context: ssl.SSLContext, *, certificate: Path, key: Path, authority: Path | None) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(certificate, key)
        if authority is not None:
            context.load_verify_locations(authority)
    except (OSError, ssl.SSLError) as fault:
        raise ConfigurationError(
            f"The identity in {certificate.parent} cannot be used: {fault}",
            code="identity_unusable",
            fix="Start the node again; it issues a new identity when files are missing or damaged.",
        ) from fault
    return context


def mutual_server_context(*, certificate: Path, key: Path, authority: Path) -> ssl.SSLContext:
    """Return the server side of mutual TLS: without a client certificate of `authority` the session ends.

    Raises ConfigurationError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    # A resumed session would skip the check of a certificate that has expired since.
    context.num_tickets = 0
    return _load(context, certificate=certificate, key=key, authority=authority)


def server_context(*, certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the server side of TLS for callers that prove themselves by a credential. Raises ConfigurationError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    return _load(context, certificate=certificate, key=key, authority=None)


def mutual_client_context(*, certificate: Path, key: Path, authority: Path) -> ssl.SSLContext:
    """Return the client side of mutual TLS, which trusts `authority` alone. Raises ConfigurationError.

    The peer's SPIFFE ID must be checked after the handshake, with `peer_identity`: host names say nothing here.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    return _load(context, certificate=certificate, key=key, authority=authority)


def peer_identity(certificate_der: bytes) -> SpiffeId:
    """Return the SPIFFE ID of a verified peer's leaf certificate.

    Raises UntrustedPeer unless it is a leaf with exactly one URI SAN that is a valid SPIFFE ID with a path,
    may sign, and may not sign certificates (X509-SVID sections 2, 4.1 to 4.3 and 5.2).
    """
    if len(certificate_der) > CERTIFICATE_BYTES_MAX:
        raise UntrustedPeer("The peer's certificate is too large.")
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
        uris = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
            x509.UniformResourceIdentifier
        )
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, UnsupportedAlgorithm) as fault:
        raise UntrustedPeer(f"The peer's certificate is not an X.509-SVID: {fault}") from fault
    if _is_authority(certificate) or usage.key_cert_sign or usage.crl_sign or not usage.digital_signature:
        raise UntrustedPeer("The peer's certificate is an authority's, or may not sign; it proves no workload.")
    if len(uris) != 1:
        raise UntrustedPeer(f"The peer's certificate has {len(uris)} URI names; an X.509-SVID has exactly one.")
    try:
        return parse_spiffe_id(uris[0])
    except InvalidRequest as fault:
        raise UntrustedPeer(fault.message) from fault


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
