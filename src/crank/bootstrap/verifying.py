"""By what a worker checks its controller: the authorities beside its own identity, read anew for each connection."""

import ssl
from pathlib import Path

from crank.adapters.clock import SystemClock
from crank.adapters.controller_link import Dial, WebSocketConnector
from crank.config import Settings
from crank.domain.trust import TrustBundle
from crank.errors import UntrustedPeer
from crank.security import Verifier, bundle_from_pem


def _verifier(settings: Settings, ca_file: Path) -> Verifier:
    """Return the verifier of peers in this node's own trust domain; there is no other in that file."""

    def bundle(trust_domain: str) -> TrustBundle | None:
        if trust_domain != settings.trust_domain:
            return None
        try:
            return bundle_from_pem(trust_domain, ca_file.read_bytes())
        except OSError as fault:
            raise UntrustedPeer(f"{ca_file} cannot be read, so nobody is believed.", detail=str(fault)) from fault

    return Verifier(bundle, now_us=SystemClock().now_us)


def connector_to(
    settings: Settings, address: str, tls: ssl.SSLContext, ca_file: Path, dial: Dial
) -> WebSocketConnector:
    """Return a worker's way to the controller at `address`, which must prove to be that by the authorities in `ca_file`."""
    identify = _verifier(settings, ca_file).peer
    return WebSocketConnector(address, tls, settings.trust_domain, dial, identify=identify)
