"""Mutual TLS for the author of a worker or a workload: one folder in, proven connections out.

The files are read anew for each connection, so that a certificate that was renewed or revoked, or an authority that was
taken away, counts from the next one on.
"""

import socket
import ssl
import time
from collections.abc import Callable, Collection
from pathlib import Path

from crank.domain.identity import SpiffeId, parse_spiffe_id, parse_trust_domain
from crank.domain.trust import Peer, TrustBundle
from crank.errors import ConfigurationError, UntrustedPeer
from crank.security.certificates import peer_identity
from crank.security.contexts import mutual_context
from crank.security.revocations import RevocationFile
from crank.security.verifier import Verifier, bundle_from_pem, peer_chain

CONNECT_SEC = 10.0
# Whom to believe: one identity, or what tells it of any.
Expected = str | Callable[[SpiffeId], bool]


class MutualTls:
    """What a workload is and whom it believes: `cert.pem`, `key.pem` and `bundle.pem` (or `ca.pem`) in a folder.

    A peer is known by its SPIFFE ID and by nothing else, so each connection says whom it expects. Where the folder has
    `crl.pem`, who is on a list is refused, and so is everybody while there is no list that still counts.

    domains  other trust domains whose identities may be expected, too, each by `bundle.<domain>.pem` alone; one without
             that file is not believed, and lists of theirs there are none
    """

    def __init__(self, folder: Path | str, *, domains: Collection[str] = ()) -> None:
        self._folder = Path(folder)
        self._domains = frozenset(parse_trust_domain(name) for name in domains)
        self._verifier = Verifier(self._bundle, now_us=_now_us)
        self._revoked = RevocationFile(self._folder / "crl.pem")
        self.spiffe_id = self._own()

    def connect(self, host: str, port: int, *, expect: Expected, timeout_sec: float = CONNECT_SEC) -> ssl.SSLSocket:
        """Return a TLS connection to a peer who proved to be the one expected.

        Raises UntrustedPeer, OSError (it cannot be reached), ConfigurationError (the folder's files).
        """
        wanted, context = _wanted(expect), self._context(ssl.PROTOCOL_TLS_CLIENT)
        return self._proven(socket.create_connection((host, port), timeout_sec), context, wanted, server_side=False)

    def accept(self, plain: socket.socket, *, expect: Expected, timeout_sec: float = CONNECT_SEC) -> ssl.SSLSocket:
        """Return the TLS connection of a peer who came in on `plain` and proved to be the one expected.

        Raises UntrustedPeer, OSError, ConfigurationError; `plain` is then closed.
        """
        plain.settimeout(timeout_sec)
        try:
            wanted, context = _wanted(expect), self._context(ssl.PROTOCOL_TLS_SERVER)
        except BaseException:
            plain.close()
            raise
        return self._proven(plain, context, wanted, server_side=True)

    def peer(self, tls: ssl.SSLSocket | ssl.SSLObject) -> Peer:
        """Return who the other side of a connection is, as of now. Raises UntrustedPeer, ConfigurationError.

        Asked again of a connection that stays open, it tells of a revocation (`identity_revoked`) and of the end.
        """
        shown = peer_chain(tls)
        peer = self._verifier.verify(shown)
        bundle = self._bundle(peer.spiffe_id.trust_domain)
        if bundle is not None and bundle.trust_domain == self.spiffe_id.trust_domain:
            self._revoked.check(shown, peer, bundle.x509_authorities, _now_us())
        return peer

    def _proven(
        self, plain: socket.socket, context: ssl.SSLContext, wanted: Callable[[SpiffeId], bool], *, server_side: bool
    ) -> ssl.SSLSocket:
        tls: socket.socket = plain
        try:
            tls = secured = context.wrap_socket(plain, server_side=server_side)
            peer = self.peer(secured)
            if not wanted(peer.spiffe_id):
                raise UntrustedPeer(f"{peer.spiffe_id} is not who was expected.")
        except ssl.SSLCertVerificationError as fault:
            tls.close()
            raise UntrustedPeer(f"The peer's certificate is not trusted: {fault.verify_message}.") from fault
        except BaseException:
            tls.close()
            raise
        return secured

    def _context(self, protocol: int) -> ssl.SSLContext:
        certificate_file, key_file = self._folder / "cert.pem", self._folder / "key.pem"
        ca_file = self._folder / self._authorities()
        context = mutual_context(protocol, certificate_file=certificate_file, key_file=key_file, ca_file=ca_file)
        for name in self._domains:
            bundle = self._bundle(name)
            if bundle is not None:
                # The TLS library puts all in one heap; whose each is, the verifier looks at.
                context.load_verify_locations(cadata=b"".join(bundle.x509_authorities))
        return context

    def _authorities(self) -> str:
        # As 'crank identity fetch' writes it, or as a worker's own folder has it.
        return "bundle.pem" if (self._folder / "bundle.pem").exists() else "ca.pem"

    def _bundle(self, trust_domain: str) -> TrustBundle | None:
        if trust_domain == self.spiffe_id.trust_domain:
            return bundle_from_pem(trust_domain, self._read(self._authorities()))
        name = f"bundle.{trust_domain}.pem"
        if trust_domain not in self._domains or not (self._folder / name).exists():
            return None
        return bundle_from_pem(trust_domain, self._read(name))

    def _own(self) -> SpiffeId:
        try:
            own = ssl.PEM_cert_to_DER_cert(_first(self._read("cert.pem").decode("ascii")))
            return peer_identity(own)
        except (ValueError, UntrustedPeer) as fault:
            raise ConfigurationError(
                f"{self._folder / 'cert.pem'} holds no identity.", code="identity_unusable", detail=str(fault)
            ) from fault

    def _read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except OSError as fault:
            raise ConfigurationError(
                f"{self._folder / name} cannot be read: {fault.strerror}.", code="identity_unusable"
            ) from fault


def _now_us() -> int:
    return time.time_ns() // 1000


def _first(pem: str) -> str:
    before, end, _ = pem.partition("-----END CERTIFICATE-----")
    return before + end


def _wanted(expect: Expected) -> Callable[[SpiffeId], bool]:
    if callable(expect):
        return expect
    exact = parse_spiffe_id(expect)
    return lambda peer: peer == exact
