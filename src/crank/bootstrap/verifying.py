"""By what a worker checks its controller: the authorities beside its own identity, read anew for each connection."""

import ssl
from functools import partial
from pathlib import Path

from crank.adapters.clock import SystemClock
from crank.adapters.controller_link import Dial, WebSocketConnector
from crank.adapters.own_identity import HeldIdentity
from crank.config import Settings
from crank.security import Verifier
from crank.security.contexts import mutual_context

# Whoever answers is known by its SPIFFE ID, under whatever name or address it is reached.
known_by_identity = partial(mutual_context, ssl.PROTOCOL_TLS_CLIENT)


def own_identity(settings: Settings, folder: Path) -> HeldIdentity:
    """Return the identity in this folder, to be renewed. Raises ConfigurationError when its files are damaged."""
    return HeldIdentity(folder, settings.trust_domain, make_context=known_by_identity, now_us=SystemClock().now_us)


def connector_to(settings: Settings, address: str, own: HeldIdentity, dial: Dial | None) -> WebSocketConnector:
    """Return a worker's way to the controller at `address`, which must prove to be that by what the worker believes."""
    verifier = Verifier(own.bundle, now_us=SystemClock().now_us, revoked=own.is_revoked)
    connector = WebSocketConnector(address, own.context, settings.trust_domain, dial, identify=verifier.peer)
    own.through(connector.ask_identity, connector.ask_trust)
    return connector
