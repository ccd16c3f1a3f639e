"""A worker's own identity: the first certificate comes in files, every later one over the wire and stays in memory.

A worker is shut in and writes to no folder but its spool. TLS takes keys and certificates from files alone, so they
are files in memory that have no name, for the moment that a context is made.
"""

import asyncio
import base64
import binascii
import contextlib
import os
import ssl
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from crank.domain.identity import SpiffeId, parse_spiffe_id
from crank.domain.json import JsonObject
from crank.domain.trust import TrustBundle
from crank.errors import ConfigurationError, CrankError, InvalidRequest, ProtocolError, Unavailable
from crank.wire import Trust

# Hands a request (PKCS#10, DER) to the controller and returns its answer; blocking.
Ask = Callable[[bytes], JsonObject]
# Says which sequence is kept in files, and returns by what peers are checked now; blocking.
AskTrust = Callable[[int], Trust]
MakeContext = Callable[..., ssl.SSLContext]
_US = 1_000_000
_CERTIFICATES_MAX = 16
# The worker's account may write what it likes into its key's file, and its node's program reads it, too.
_KEY_BYTES_MAX = 4 * 1024
_FILE_BYTES_MAX = 256 * 1024
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Held:
    """One certificate with all that belongs to it."""

    spiffe_id: SpiffeId
    key: ec.EllipticCurvePrivateKey
    key_pem: bytes
    chain: tuple[x509.Certificate, ...]
    roots: tuple[x509.Certificate, ...]

    @property
    def life_us(self) -> tuple[int, int]:
        """Return when the certificate begins and ends, microseconds since 1970."""
        leaf = self.chain[0]
        return _micros(leaf.not_valid_before_utc.timestamp()), _micros(leaf.not_valid_after_utc.timestamp())


class HeldIdentity:
    """The OwnIdentity port. `folder` holds the first certificate: `cert.pem`, `key.pem` and the roots in `ca.pem`.

    make_context  makes a TLS context of such files (`crank.security.client_context`)
    Raises ConfigurationError when the files are damaged.
    """

    def __init__(
        self, folder: Path, trust_domain: str, *, make_context: MakeContext, now_us: Callable[[], int]
    ) -> None:
        self._folder = folder
        self._trust_domain = trust_domain
        self._make_context = make_context
        self._now_us = now_us
        self._lock = threading.Lock()
        self._ask: Ask | None = None
        self._ask_trust: AskTrust | None = None
        self._ring: Callable[[], None] | None = None
        self._doubted = False
        self._sequence = 0
        self._revoked_ids: frozenset[str] = frozenset()
        self._revoked_serials: frozenset[str] = frozenset()
        self._seen: tuple[int, int] | None = None
        self._held = self._read()
        self._adopt(self._held)

    def through(self, ask: Ask, ask_trust: AskTrust | None = None) -> None:
        """Say by which way the controller is asked: for certificates, and for roots where somebody looks for them."""
        self._ask = ask
        self._ask_trust = ask_trust

    def rings(self, ring: Callable[[], None]) -> None:
        """Call this whenever the controller told of trust: for whoever keeps roots in files, and asks for them itself."""
        self._ring = ring

    # --- what connections are made with ---------------------------------------------------------

    def context(self) -> ssl.SSLContext:
        """Return what the next connection is made with."""
        with self._lock:
            self._look_into_folder()
            return self._context

    def files(self) -> tuple[bytes, bytes]:
        """Return the certificate with its chain, and the roots, as PEM: for whoever keeps them where a worker cannot."""
        with self._lock:
            return b"".join(map(_pem, self._held.chain)), b"".join(map(_pem, self._held.roots))

    def bundle(self, trust_domain: str) -> TrustBundle | None:
        """Return by what peers of a trust domain are checked; of another than its own nobody is believed."""
        if trust_domain != self._trust_domain:
            return None
        return TrustBundle(trust_domain, self._sequence, 0, tuple(_der(root) for root in self._held.roots))

    def is_revoked(self, spiffe_id: SpiffeId, serials: Collection[str]) -> bool:
        """Tell whether the controller said that this identity, or a certificate of its chain, was taken back."""
        return str(spiffe_id) in self._revoked_ids or not self._revoked_serials.isdisjoint(serials)

    # --- the port ---------------------------------------------------------------------------------

    def due_in_sec(self) -> float:
        """Return in how many seconds half of the certificate's life is over, by this machine's clock."""
        begins, ends = self._held.life_us
        gone, life = self._now_us() - begins, ends - begins
        # Outside of its life either it has expired or a clock is wrong: the controller's answer is in seconds from now.
        return max(0.0, life / 2 - gone) / _US if 0 <= gone < life else 0.0

    async def renew(self) -> float:
        """Get the next certificate for the same key; return in how many seconds the one after it is due.

        Raises Unavailable, NotAllowed (`identity_revoked`, `identity_unknown`), ProtocolError.
        """
        if self._ask is None:
            raise Unavailable("There is no way to the controller yet.")
        answer = await asyncio.to_thread(self._ask, _request(self._held))
        with self._lock:
            return self._take(answer)

    async def look(self, has: int) -> Trust:
        """Ask the controller, proven by the roots that are believed now, for those of now, and believe them.

        has  the sequence of what is kept in files
        Raises Unavailable, UntrustedPeer, NotAllowed, ProtocolError; then nothing changes.
        """
        if self._ask_trust is None:
            raise Unavailable("There is no way to the controller yet.")
        trust = await asyncio.to_thread(self._ask_trust, has)
        self.believe(trust)
        return trust

    def doubt(self) -> None:
        """Take what lies in the folder for the next connection, if it is another certificate."""
        self._doubted = True
        self._seen = None

    def believe(self, trust: Trust) -> None:
        """Check peers by this from now on. Raises ProtocolError when it cannot be read; then nothing changes."""
        roots = _certificates(trust.roots)
        with self._lock:
            if roots != self._held.roots:
                self._adopt(replace(self._held, roots=roots))
            self._sequence = trust.sequence
            self._revoked_ids = frozenset(trust.revoked_ids)
            self._revoked_serials = frozenset(trust.revoked_serials)
        if self._ring is not None:
            self._ring()

    # --- inside -----------------------------------------------------------------------------------

    def _take(self, answer: JsonObject) -> float:
        held = self._held
        try:
            chain, roots = _certificates(answer["chain"]), _certificates(answer["roots"])
            due_in_sec = float(answer["renew_in_sec"])
            sequence = int(answer["sequence"])
        except (KeyError, TypeError, ValueError) as fault:
            raise ProtocolError("The controller answered with something that is no certificate.") from fault
        if _name(chain[0]) != held.spiffe_id or chain[0].public_key() != held.key.public_key():
            raise ProtocolError("The controller answered with somebody else's certificate.")
        self._adopt(_Held(held.spiffe_id, held.key, held.key_pem, chain, roots))
        self._sequence = max(self._sequence, sequence)
        if self._ring is not None:
            self._ring()
        return max(0.0, due_in_sec)

    def _adopt(self, held: _Held) -> None:
        with (
            _in_memory("certificate", b"".join(map(_pem, held.chain))) as certificate_file,
            _in_memory("key", held.key_pem) as key_file,
            _in_memory("roots", b"".join(map(_pem, held.roots))) as ca_file,
        ):
            self._context = self._make_context(certificate_file=certificate_file, key_file=key_file, ca_file=ca_file)
        self._held = held

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = (self._folder / "cert.pem").stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino

    def _look_into_folder(self) -> None:
        """Take up what the controller put there, once our own has expired or the controller does not believe it."""
        late = self._now_us() >= self._held.life_us[1]
        stamp = self._stamp() if late or self._doubted else None
        if stamp is None or stamp == self._seen:
            return
        try:
            found = self._read()
            self._seen = stamp
            if found.chain != self._held.chain and found.spiffe_id == self._held.spiffe_id:
                self._adopt(found)
                self._doubted = False
                _log.info("identity_taken_from_folder", serial=f"{found.chain[0].serial_number:x}")
        except CrankError as fault:
            # Perhaps half of it is written: the next connection looks again.
            _log.warning("identity_unreadable", cause=fault.message)

    def _read(self) -> _Held:
        try:
            key_pem = _octets(self._folder / "key.pem", _KEY_BYTES_MAX)
            # An RSA key is proved to be one before its kind is told, with the whole process standing still.
            key = load_pem_private_key(key_pem, password=None, unsafe_skip_rsa_key_validation=True)
            chain = x509.load_pem_x509_certificates(_octets(self._folder / "cert.pem", _FILE_BYTES_MAX))
            roots = x509.load_pem_x509_certificates(_octets(self._folder / "ca.pem", _FILE_BYTES_MAX))
            name = _name(chain[0])
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm, ProtocolError) as fault:
            raise self._unusable("it cannot be read") from fault
        if not isinstance(key, ec.EllipticCurvePrivateKey) or chain[0].public_key() != key.public_key():
            raise self._unusable("key and certificate do not belong together")
        return _Held(name, key, key_pem, tuple(chain), tuple(roots))

    def _unusable(self, cause: str) -> ConfigurationError:
        return ConfigurationError(
            f"The identity in {self._folder} cannot be used: {cause}.",
            code="identity_unusable",
            fix="Remove that folder; the node issues a new identity when it starts.",
        )


@contextlib.contextmanager
def _in_memory(name: str, octets: bytes) -> Iterator[Path]:
    """Give a path by which this process alone can read these bytes, once."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.write(descriptor, octets)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _request(held: _Held) -> bytes:
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(held.spiffe_id))])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=True)
    return builder.sign(held.key, hashes.SHA256()).public_bytes(Encoding.DER)


def _octets(path: Path, bytes_max: int) -> bytes:
    with path.open("rb") as source:
        octets = source.read(bytes_max + 1)
    if len(octets) > bytes_max:
        raise ValueError("The file is too large.")
    return octets


def _certificates(texts: Any) -> tuple[x509.Certificate, ...]:
    """Read certificates, DER in base64. Raises ProtocolError."""
    if not isinstance(texts, Sequence) or isinstance(texts, str) or not 1 <= len(texts) <= _CERTIFICATES_MAX:
        raise ProtocolError(f"The controller sent no certificates, or more than {_CERTIFICATES_MAX}.")
    try:
        return tuple(x509.load_der_x509_certificate(base64.b64decode(text, validate=True)) for text in texts)
    except (ValueError, TypeError, binascii.Error) as fault:
        raise ProtocolError("The controller sent a certificate that cannot be read.") from fault


def _name(leaf: x509.Certificate) -> SpiffeId:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        return parse_spiffe_id(uri)
    except (x509.ExtensionNotFound, ValueError, InvalidRequest) as fault:
        raise ProtocolError("A certificate does not carry exactly one SPIFFE ID.") from fault


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _micros(seconds: float) -> int:
    return int(seconds) * _US
