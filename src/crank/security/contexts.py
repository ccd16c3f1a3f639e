"""TLS contexts that always verify.

TLS 1.3 alone, certificates required on both sides, no session resumption (a resumed session would
outlive the check of its certificate). There is no parameter that turns verification off.
"""

import ssl
from collections.abc import Sequence
from pathlib import Path

from crank.errors import ConfigurationError

# A handshake that failed is read on so often, that what the peer sent meanwhile does not cut off the alert.
_READS_MAX = 4


class _Telling(ssl.SSLObject):
    """Lets the alert of a handshake that failed reach the peer.

    asyncio hangs up on the failure at once and with it throws away what was to be sent; while more is to be read, it
    sends first. The peer hangs up once it has the alert, and who does not is ended by the time for a handshake.
    """

    _fault: ssl.SSLError | None = None
    _reads = 0

    def do_handshake(self) -> None:
        """Go on with the handshake. Raises ssl.SSLError; a failure only after asyncio had a chance to send the alert."""
        if self._fault is None:
            try:
                super().do_handshake()
            except ssl.SSLCertVerificationError as fault:
                # Of whoever speaks no TLS at all, or shows nothing, there is nobody to tell.
                self._fault = fault
            else:
                return
        self._reads += 1
        if self._reads > _READS_MAX:
            raise self._fault
        raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "The alert is on its way.")


class _TellingTls(ssl.SSLContext):
    sslobject_class = _Telling


def server_context(*, certificate_file: Path, key_file: Path, ca_file: Path) -> ssl.SSLContext:
    """Return a context for a listener that only peers with a certificate of `ca_file` can talk to.

    Raises ConfigurationError when a file is missing or damaged.
    """
    context = _base(ssl.PROTOCOL_TLS_SERVER, _TellingTls)
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


def demand_lists(context: ssl.SSLContext, lists_file: Path) -> None:
    """Let a context refuse a leaf on the list (PEM) of its issuer, and every leaf whose issuer has no list there for now.

    Not part of the public face (RFC 5280, section 6.3). Raises ConfigurationError when the file is missing or damaged.
    """
    try:
        context.load_verify_locations(cafile=lists_file)
    except (OSError, ssl.SSLError) as fault:
        raise ConfigurationError(
            f"The lists of revocations in {lists_file} cannot be used: {fault.strerror or fault}.",
            code="identity_unusable",
            fix="Remove that file; the node writes it anew.",
        ) from fault
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _base(protocol: int, kind: type[ssl.SSLContext] = ssl.SSLContext) -> ssl.SSLContext:
    context = kind(protocol)
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
