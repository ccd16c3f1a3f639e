"""The authority of this node, wired: opened at start, and kept up while the controller runs."""

import asyncio
import ssl
from collections.abc import Sequence

import structlog

from crank.adapters.authority import FileAuthority, Identity
from crank.api.public_name import PublicName
from crank.bootstrap.files import node_id
from crank.config import LEAF_TTL_SEC_USUAL, Settings
from crank.errors import CrankError
from crank.ports import Clock, IdSource

# Looked at so often; issued is only what has become due. A tenth of the shortest leaf's life.
RENEW_LOOK_SEC = 3.0
_log = structlog.get_logger(__name__)


def worker_id_of(settings: Settings) -> str:
    """Return the name of this node's own worker in the trust domain."""
    return f"{settings.worker_name}-{node_id(settings)}"


def open_authority(settings: Settings, clock: Clock, ids: IdSource) -> FileAuthority:
    """Return the authority in the node's folder; makes nothing yet."""
    return FileAuthority(
        settings.authority_dir,
        trust_domain=settings.trust_domain,
        clock=clock,
        ids=ids,
        leaf_ttl_sec=settings.leaf_ttl_sec,
    )


def start_authority(settings: Settings, clock: Clock, ids: IdSource) -> FileAuthority:
    """Return the controller's authority, made now where there is none. Raises ConfigurationError."""
    if settings.leaf_ttl_sec < LEAF_TTL_SEC_USUAL:
        _log.warning("leaf_ttl_short", leaf_ttl_sec=settings.leaf_ttl_sec, usual_sec=[LEAF_TTL_SEC_USUAL, 3600])
    authority = open_authority(settings, clock, ids)
    authority.ensure()
    return authority


def issue_own(settings: Settings, authority: FileAuthority) -> Identity:
    """Issue what is due of the controller's and its worker's own. Raises ConfigurationError, OSError."""
    names = [name for name in settings.api_names.split(",") if name]
    own = authority.issue_controller(node_id(settings), addresses=[settings.bind, *names])
    authority.issue_worker(worker_id_of(settings), settings.identity_dir)
    authority.publish_ca(settings.api_ca_file)
    return own


async def keep_renewed(
    settings: Settings, authority: FileAuthority, listening: Sequence[ssl.SSLContext], public: PublicName | None
) -> None:
    """Renew certificates and rotate keys as they become due, for as long as the controller runs."""
    shown: bytes | None = None
    while True:
        try:
            await asyncio.to_thread(authority.ensure)
            own = await asyncio.to_thread(issue_own, settings, authority)
            certificate = await asyncio.to_thread(own.certificate_file.read_bytes)
            if certificate != shown:
                for each in listening:
                    # For connections from now on; those that are open keep what they proved.
                    each.load_cert_chain(own.certificate_file, own.key_file)
                shown = certificate
            if public is not None:
                # Whoever issues it renews the files in place.
                await asyncio.to_thread(public.load)
        except (CrankError, OSError) as fault:
            _log.error("renewal_failed", cause=str(fault))
        await asyncio.sleep(RENEW_LOOK_SEC)
