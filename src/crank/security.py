"""Mutual TLS for everyone who writes a part of Crank: contexts that always verify, and who the peer is.

TLS 1.3 alone, certificates required on both sides, no session resumption (a resumed session would
outlive the check of its certificate). There is no parameter that turns verification off.
"""

import ssl
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from crank.domain.identity import SpiffeId, parse_spiffe_id
from crank.domain.trust import Workload
from crank.domain.workload_codec import WORKLOAD_OID, decode_workload
from crank.errors import ConfigurationError, InvalidRequest, UntrustedPeer

_WORKLOAD = x509.ObjectIdentifier(WORKLOAD_OID)


def server_context(*, certificate_file: Path, key_file: Path, ca_file: Path) -> ssl.SSLContext:
    """Return a context for a listener that only peers with a certificate of `ca_file` can talk to.

    Raises ConfigurationError when a file is missing or damaged.
    """
    context = _base(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    _load(context, certificate_file, key_file, ca_file)
    return context


def bearer_server_context(*, certificate_file: Path, key_file: Path) -> ssl.SSLContext:
    """Return a context for a listener whose callers prove themselves inside TLS, with a bearer credential.

    Raises ConfigurationError when a file is missing or damaged.
    """
    context = _base(ssl.PROTOCOL_TLS_SERVER)
    _load(context, certificate_file, key_file, None)
    return context


def client_context(*, certificate_file: Path, key_file: Path, ca_file: Path) -> ssl.SSLContext:
    """Return a context that shows this certificate and trusts only servers of `ca_file`, by name or address.

    Raises ConfigurationError when a file is missing or damaged.
    """
    context = _base(ssl.PROTOCOL_TLS_CLIENT)
    _load(context, certificate_file, key_file, ca_file)
    return context


def _base(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    return context


def _load(context: ssl.SSLContext, certificate_file: Path, key_file: Path, ca_file: Path | None) -> None:
    try:
        context.load_cert_chain(certificate_file, key_file)
        if ca_file is not None:
            context.load_verify_locations(cafile=ca_file)
    except (OSError, ssl.SSLError) as fault:
        raise ConfigurationError(
            f"The identity in {certificate_file.parent} cannot be used: {fault.strerror or fault}.",
            code="identity_unusable",
            fix="Remove that folder; the node issues a new identity when it starts.",
        ) from fault


def peer_identity(der: bytes) -> SpiffeId:
    """Read whom a verified certificate speaks for (X.509-SVID standard, sections 2 to 4).

    Strict: exactly one URI name, which is a SPIFFE ID with a path, and no authority's certificate.
    TLS proved the chain; this says nothing about trust by itself. Raises UntrustedPeer.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)  # type: ignore[attr-defined]
        _check_leaf(certificate)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as fault:
        raise UntrustedPeer("The peer's certificate is not an X.509-SVID.", detail=str(fault)) from fault
    if len(uris) != 1:
        raise UntrustedPeer("The peer's certificate does not carry exactly one URI name.")
    try:
        return parse_spiffe_id(uris[0])
    except InvalidRequest as fault:
        raise UntrustedPeer(fault.message) from fault


def _check_leaf(certificate: x509.Certificate) -> None:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        constraints = x509.BasicConstraints(ca=False, path_length=None)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    if constraints.ca or usage.key_cert_sign or usage.crl_sign:
        raise UntrustedPeer("The peer showed the certificate of an authority, not its own.")


def read_workload(der: bytes) -> Workload | None:
    """Read what a certificate says of its workload beyond the name; None where it has no such extension.

    Like `peer_identity` it says nothing about trust by itself. Raises UntrustedPeer when the extension is malformed
    or critical, which ours never is.
    """
    try:
        found = x509.load_der_x509_certificate(der).extensions.get_extension_for_oid(_WORKLOAD)
    except x509.ExtensionNotFound:
        return None
    except (ValueError, x509.DuplicateExtension) as fault:
        raise UntrustedPeer("The peer's certificate cannot be read.", detail=str(fault)) from fault
    if found.critical or not isinstance(found.value, x509.UnrecognizedExtension):
        raise UntrustedPeer("The peer's certificate has a critical workload-type extension.")
    try:
        return decode_workload(found.value.value)
    except InvalidRequest as fault:
        raise UntrustedPeer(fault.message) from fault
