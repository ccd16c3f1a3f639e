"""By what this node's processes check their peers: the authorities beside their own identity, read anew each time."""

import ssl
from functools import partial
from pathlib import Path

from crank.adapters.clock import SystemClock
from crank.adapters.controller_link import Dial, WebSocketConnector
from crank.adapters.own_identity import HeldIdentity
from crank.config import Settings
from crank.domain.trust import TrustBundle
from crank.errors import UntrustedPeer
from crank.ports import Clock
from crank.security import Verifier, bundle_from_pem
from crank.security.contexts import mutual_context


def verifier_of(settings: Settings, ca_file: Path, clock: Clock) -> Verifier:
    """Return the verifier of peers in this node's own trust domain; there is no other in that file."""

    def bundle(trust_domain: str) -> TrustBundle | None:
        if trust_domain != settings.trust_domain:
            return None
        try:
            return bundle_from_pem(trust_domain, ca_file.read_bytes())
        except OSError as fault:
            raise UntrustedPeer(f"{ca_file} cannot be read, so nobody is believed.", detail=str(fault)) from fault

    return Verifier(bundle, now_us=clock.now_us)


# Whoever answers is known by its SPIFFE ID, under whatever name or address it is reached.
known_by_identity = partial(mutual_context, ssl.PROTOCOL_TLS_CLIENT)


def own_identity(settings: Settings, folder: Path) -> HeldIdentity:
    """Return the identity in this folder, to be renewed. Raises ConfigurationError when its files are damaged."""
    return HeldIdentity(folder, settings.trust_domain, make_context=known_by_identity, now_us=SystemClock().now_us)


def connector_to(settings: Settings, address: str, own: HeldIdentity, dial: Dial | None) -> WebSocketConnector:
    """Return a worker's way to the controller at `address`, which must prove to be that by what the worker believes."""
    verifier = Verifier(own.bundle, now_us=SystemClock().now_us, revoked=own.is_revoked)
    connector = WebSocketConnector(address, own.context, settings.trust_domain, dial, identify=verifier.peer)
    own.through(connector.ask_identity)
    return connector
