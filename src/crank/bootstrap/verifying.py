"""By what a worker checks its controller: the authorities beside its own identity, read anew for each connection."""

from pathlib import Path

from crank.adapters.clock import SystemClock
from crank.adapters.controller_link import Dial, WebSocketConnector
from crank.adapters.own_identity import HeldIdentity
from crank.config import Settings
from crank.security import Verifier, client_context


def own_identity(settings: Settings, folder: Path) -> HeldIdentity:
    """Return the identity in this folder, to be renewed. Raises ConfigurationError when its files are damaged."""
    return HeldIdentity(folder, settings.trust_domain, make_context=client_context, now_us=SystemClock().now_us)


def connector_to(settings: Settings, address: str, own: HeldIdentity, dial: Dial) -> WebSocketConnector:
    """Return a worker's way to the controller at `address`, which must prove to be that by what the worker believes."""
    verifier = Verifier(own.bundle, now_us=SystemClock().now_us, revoked=own.is_revoked)
    connector = WebSocketConnector(address, own.context, settings.trust_domain, dial, identify=verifier.peer)
    own.through(connector.ask_identity)
    return connector
