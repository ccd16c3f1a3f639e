"""Who a peer is: its X.509-SVID, checked against the bundle of the trust domain that it names, and no other.

Bundles are never pooled. TLS has checked a chain before, but a TLS library knows no trust domains: given the
authorities of two, it lets either speak for the other. So every peer of Crank's goes through here as well.
"""

import _ssl
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from crank.domain.chain import point_of_jwk
from crank.domain.identity import SpiffeId
from crank.domain.trust import Peer, TrustBundle
from crank.errors import ConfigurationError, UntrustedPeer
from crank.security.certificates import (
    check_authority,
    check_leaf,
    jwk_of,
    load_certificate,
    micros,
    serial_of,
    thumbprint,
    workload_of,
)
from crank.security.path import CHAIN_CERTIFICATES_MAX, find_path, load_chain

# Clocks differ; more than this is not a difference, it is a wrong clock.
SKEW_SEC_MAX = 300.0
PEM_BYTES_MAX = 512 * 1024
# Chains that are remembered, and how large one may be for that: ours are 2 KiB.
_REMEMBERED_MAX = 1024
_REMEMBERED_BYTES_MAX = 8 * 1024
_US = 1_000_000

# The bundle of a trust domain as it stands; None for one that is not known.
Bundles = Callable[[str], TrustBundle | None]
# Whether an identity, or one of these serials (the leaf's first, then those of what signed it), was revoked.
Revoked = Callable[[SpiffeId, Sequence[str]], bool]


def nothing_revoked(_spiffe_id: SpiffeId, _serials: Sequence[str]) -> bool:
    """Believe everything that is still valid."""
    return False


@dataclass(frozen=True, slots=True)
class _Proven:
    """What was found of a chain, and by which anchors."""

    peer: Peer
    anchors: tuple[bytes, ...]


class Verifier:
    """Checks peers. Quick enough for a loop's thread (a chain seen before takes microseconds); safe in threads.

    now_us    the time; skew_sec  how far this clock and that of an issuer may differ (TLS itself allows nothing)
    """

    def __init__(
        self,
        bundles: Bundles,
        *,
        now_us: Callable[[], int],
        revoked: Revoked = nothing_revoked,
        skew_sec: float = 0.0,
    ) -> None:
        if not 0 <= skew_sec <= SKEW_SEC_MAX:
            raise ConfigurationError(f"Clocks may differ by 0 to {SKEW_SEC_MAX:g} s.", field="skew_sec")
        self._bundles = bundles
        self._now_us = now_us
        self._revoked = revoked
        self._skew_us = int(skew_sec * _US)
        self._known: OrderedDict[tuple[bytes, ...], _Proven] = OrderedDict()
        self._lock = threading.Lock()

    def peer(self, tls: Any) -> Peer:
        """Return who the other side of a TLS session is (an `ssl.SSLSocket` or `ssl.SSLObject`). Raises UntrustedPeer."""
        return self.verify(peer_chain(tls))

    def verify(self, chain: Sequence[bytes]) -> Peer:
        """Return whom a chain of DER certificates proves, the leaf first. Raises UntrustedPeer, with the reason."""
        shown, now_us = tuple(chain), self._now_us()
        with self._lock:
            known = self._known.get(shown)
        if known is None or not self._holds(known):
            known = self._prove(shown, now_us)
            self._remember(shown, known)
        peer = known.peer
        if now_us < peer.not_before_us - self._skew_us:
            raise _early()
        if now_us > peer.not_after_us + self._skew_us:
            raise _expired()
        if self._revoked(peer.spiffe_id, peer.serials):
            raise UntrustedPeer(f"The identity {peer.spiffe_id} was revoked.", code="identity_revoked")
        return peer

    def _remember(self, shown: tuple[bytes, ...], proven: _Proven) -> None:
        if sum(map(len, shown)) > _REMEMBERED_BYTES_MAX:
            return
        with self._lock:
            self._known[shown] = proven
            while len(self._known) > _REMEMBERED_MAX:
                self._known.popitem(last=False)

    def _holds(self, known: _Proven) -> bool:
        """Tell whether the bundle is still the one by which a chain was proven."""
        bundle = self._bundles(known.peer.spiffe_id.trust_domain)
        return bundle is not None and bundle.x509_authorities == known.anchors

    def _prove(self, shown: tuple[bytes, ...], now_us: int) -> _Proven:
        certificates = load_chain(shown)
        identity = check_leaf(certificates[0])
        bundle = self._bundles(identity.trust_domain)
        if bundle is None or bundle.trust_domain != identity.trust_domain:
            raise UntrustedPeer(f"No bundle of the trust domain {identity.trust_domain} is known here.")
        at_us = self._near(certificates[0], now_us)
        at = datetime.fromtimestamp(at_us // _US, UTC)
        path = find_path(certificates, bundle.x509_authorities, identity.trust_domain, at)
        peer = Peer(
            spiffe_id=identity,
            workload=workload_of(path[0]),
            serials=tuple(serial_of(each) for each in path[:-1]),
            not_before_us=micros(path[0].not_valid_before_utc),
            # Nobody outlives what vouches for them.
            not_after_us=min(micros(each.not_valid_after_utc) for each in path),
            jkt=thumbprint(jwk_of(path[0])),
            key=point_of_jwk(jwk_of(path[0])),
        )
        return _Proven(peer, bundle.x509_authorities)

    def _near(self, leaf: x509.Certificate, now_us: int) -> int:
        """Return the time in the leaf's life that is nearest to now, if the clocks' difference may explain it."""
        first_us, last_us = micros(leaf.not_valid_before_utc), micros(leaf.not_valid_after_utc)
        nearest_us = max(first_us, min(now_us, last_us))
        if now_us < nearest_us - self._skew_us:
            raise _early()
        if now_us > nearest_us + self._skew_us:
            raise _expired()
        return nearest_us


def _early() -> UntrustedPeer:
    return UntrustedPeer("The peer's certificate is not valid yet.", code="identity_not_yet_valid", fix=_CLOCKS)


def _expired() -> UntrustedPeer:
    return UntrustedPeer("The peer's certificate has expired.", code="identity_expired", fix=_CLOCKS)


_CLOCKS = "Let it be renewed, and compare the clocks of both machines: 'timedatectl' shows whether one is wrong."


def peer_chain(tls: Any) -> tuple[bytes, ...]:
    """Return what the other side of a TLS session showed: DER, the leaf first. Raises UntrustedPeer."""
    shown: Sequence[Any] | None = None
    if hasattr(tls, "get_unverified_chain"):
        shown = tls.get_unverified_chain()
    elif getattr(tls, "_sslobj", None) is not None:
        # Python offers it in public from 3.13 on.
        shown = tls._sslobj.get_unverified_chain()  # noqa: SLF001
    if not shown:
        raise UntrustedPeer("The peer showed no certificate.")
    # One more than is allowed, so that too many are refused as such.
    bounded = shown[: CHAIN_CERTIFICATES_MAX + 1]
    return tuple(each if isinstance(each, bytes) else each.public_bytes(_ssl.ENCODING_DER) for each in bounded)


def bundle_from_pem(trust_domain: str, pem: bytes) -> TrustBundle:
    """Make a bundle of PEM certificates of one domain's authorities. Raises ConfigurationError."""
    if len(pem) > PEM_BYTES_MAX:
        raise ConfigurationError(f"A file of authorities is at most {PEM_BYTES_MAX} bytes.", code="identity_unusable")
    try:
        anchors = [each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(pem)]
        for der in anchors:
            check_authority(load_certificate(der), trust_domain)
    except (ValueError, UntrustedPeer) as fault:
        raise ConfigurationError(
            f"The file does not hold the authorities of {trust_domain}.", code="identity_unusable", detail=str(fault)
        ) from fault
    return TrustBundle(trust_domain, 0, 0, tuple(anchors))
