"""TLS contexts that always verify.

TLS 1.3 alone, certificates required on both sides, no session resumption (a resumed session would
outlive the check of its certificate). There is no parameter that turns verification off.
"""

import ssl
from collections.abc import Sequence
from pathlib import Path

from crank.errors import ConfigurationError


def server_context(*, certificate_file: Path, key_file: Path, ca_file: Path) -> ssl.SSLContext:
    """Return a context for a listener that only peers with a certificate of `ca_file` can talk to.

    Raises ConfigurationError when a file is missing or damaged.
    """
    context = _base(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    _load(context, certificate_file, key_file, ca_file)
    return context


def bearer_server_context(*, certificate_file: Path, key_file: Path, ca_file: Path | None = None) -> ssl.SSLContext:
    """Return a context for a listener whose callers prove themselves inside TLS, with a bearer credential.

    ca_file  callers may show a certificate beside it: one that is shown must be of these roots
    Raises ConfigurationError when a file is missing or damaged.
    """
    context = _base(ssl.PROTOCOL_TLS_SERVER)
    if ca_file is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
    _load(context, certificate_file, key_file, ca_file)
    return context


def client_context(*, certificate_file: Path, key_file: Path, ca_file: Path) -> ssl.SSLContext:
    """Return a context that shows this certificate and trusts only servers of `ca_file`, by name or address.

    Raises ConfigurationError when a file is missing or damaged.
    """
    context = _base(ssl.PROTOCOL_TLS_CLIENT)
    _load(context, certificate_file, key_file, ca_file)
    return context


def mutual_context(protocol: int, *, certificate_file: Path, key_file: Path, ca_file: Path) -> ssl.SSLContext:
    """Return a context for peers that are known by their SPIFFE ID alone: whoever uses it must look at that.

    Not part of the public face. Raises ConfigurationError when a file is missing or damaged.
    """
    context = _base(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    _load(context, certificate_file, key_file, ca_file)
    return context


def newcomer_context(roots: Sequence[bytes]) -> ssl.SSLContext:
    """Return a context for a client that has no certificate yet, and believes these roots (DER) alone.

    Not part of the public face: peers are known by their SPIFFE ID, and whoever uses it must look at that.
    """
    context = _base(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    for root in roots:
        context.load_verify_locations(cadata=root)
    return context


def first_contact_context() -> ssl.SSLContext:
    """Return a context that believes nobody and says so: what comes through it is held against a SHA-256.

    Not part of the public face. Nothing may be sent through it that is not for everybody.
    """
    context = _base(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
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
