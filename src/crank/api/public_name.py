"""A certificate of the operator's own, shown to whoever asks for a name that it holds.

Callers of this machine ask for an address or for localhost and go on seeing the node's own certificate, which
their `ca_file` proves; the two never have to be told apart by anybody.
"""

import ssl
from collections.abc import Collection
from pathlib import Path

from cryptography import x509

from crank.errors import ConfigurationError


class PublicName:
    """The certificate and its names; `load` reads all files anew.

    roots_file  the node's own roots: callers may show a certificate below them, at this name as at the others
    """

    def __init__(self, certificate_file: Path, key_file: Path, roots_file: Path | None = None) -> None:
        self._certificate_file = certificate_file
        self._key_file = key_file
        self._roots_file = roots_file
        self._context, self._names = self._read()

    def load(self) -> None:
        """Read the files again, for connections from now on. Raises ConfigurationError; then the old ones stay."""
        self._context, self._names = self._read()

    def join(self, own: ssl.SSLContext) -> None:
        """Let a listener with its own certificate show this one to those who ask for its names."""

        otherwise = own.sni_callback

        def choose(session: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
            if name is not None and holds(self._names, name):
                session.context = self._context
            elif otherwise is not None:
                # The stub of the standard library says that there is always a name; there is none for an address.
                otherwise(session, name, context)  # type: ignore[arg-type]

        own.sni_callback = choose

    def _read(self) -> tuple[ssl.SSLContext, frozenset[str]]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
        try:
            # A key that wants a passphrase is refused: nobody sits at a listener to type one.
            context.load_cert_chain(self._certificate_file, self._key_file, password=lambda: b"")
            if self._roots_file is not None:
                context.verify_mode = ssl.CERT_OPTIONAL
                context.verify_flags |= ssl.VERIFY_X509_STRICT
                context.load_verify_locations(cafile=self._roots_file)
            return context, names_of(x509.load_pem_x509_certificate(self._certificate_file.read_bytes()))
        except (OSError, ssl.SSLError, ValueError) as fault:
            raise ConfigurationError(
                f"The certificate {self._certificate_file} with the key {self._key_file} cannot be used: "
                f"{getattr(fault, 'strerror', None) or fault}.",
                code="tls_unusable",
                field="tls_cert",
                fix="Give the whole chain, the server's own first, and its key, both in PEM and readable for this user.",
            ) from fault


def names_of(certificate: x509.Certificate) -> frozenset[str]:
    """Return the DNS names that a certificate is for, in lower case."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(name.lower() for name in names.get_values_for_type(x509.DNSName))


def holds(names: Collection[str], name: str) -> bool:
    """Tell whether one of the names is this one; a star stands for exactly one whole first label (RFC 9525)."""
    wanted = name.lower().rstrip(".")
    _, _, parent = wanted.partition(".")
    return wanted in names or (bool(parent) and f"*.{parent}" in names)
