"""The authority of this node, wired: opened at start, and kept up while the controller runs."""

import asyncio
import ssl
from collections.abc import Sequence
from pathlib import Path

import structlog

from crank.adapters.authority import FileAuthority, Identity
from crank.adapters.authority.key_store import KeyStore
from crank.api.public_name import PublicName
from crank.bootstrap.files import node_id
from crank.config import LEAF_TTL_SEC_USUAL, Settings
from crank.controller.desk import Desk
from crank.controller.issue import note_issued
from crank.domain.identity import make_spiffe_id
from crank.errors import ConfigurationError, CrankError
from crank.ports import Clock, Failpoints, IdSource

# Looked at so often; issued is only what has become due. A tenth of the shortest leaf's life.
RENEW_LOOK_SEC = 3.0
# Of workers of this machine whose certificates are noted.
_FOLDERS_MAX = 200
_log = structlog.get_logger(__name__)


def worker_id_of(settings: Settings) -> str:
    """Return the name of this node's own worker in the trust domain."""
    return f"{settings.worker_name}-{node_id(settings)}"


def open_authority(
    settings: Settings, clock: Clock, ids: IdSource, failpoints: Failpoints | None = None
) -> FileAuthority:
    """Return the authority in the node's folder; makes nothing yet."""
    return FileAuthority(
        settings.authority_dir,
        trust_domain=settings.trust_domain,
        clock=clock,
        ids=ids,
        leaf_ttl_sec=settings.leaf_ttl_sec,
        keys=_key_store(settings),
        failpoints=failpoints,
    )


def _key_store(settings: Settings) -> KeyStore | None:
    if settings.hsm_module is None or settings.hsm_pin_file is None:
        return None
    try:
        from crank.adapters.authority.hsm import HsmKeys
    except ImportError as fault:
        raise ConfigurationError(
            "The settings name an HSM, and the library that speaks with one is not installed.",
            code="hsm_unusable",
            field="hsm_module",
            fix="pip install 'crank[hsm]'",
        ) from fault
    return HsmKeys(settings.hsm_module, settings.hsm_token, settings.hsm_pin_file)


def start_authority(settings: Settings, clock: Clock, ids: IdSource, failpoints: Failpoints) -> FileAuthority:
    """Return the controller's authority, made now where there is none. Raises ConfigurationError."""
    if settings.leaf_ttl_sec < LEAF_TTL_SEC_USUAL:
        _log.warning("leaf_ttl_short", leaf_ttl_sec=settings.leaf_ttl_sec, usual_sec=[LEAF_TTL_SEC_USUAL, 3600])
    authority = open_authority(settings, clock, ids, failpoints)
    authority.ensure()
    return authority


async def issue_own(settings: Settings, desk: Desk, authority: FileAuthority) -> Identity:
    """Issue what is due of the controller's and its worker's own, and note it. Raises CrankError, OSError."""
    may_renew = not desk.standing.is_banned(make_spiffe_id(settings.trust_domain, "worker", worker_id_of(settings)))
    if may_renew:
        await asyncio.to_thread(_forget_revoked, settings, desk, authority)
    own = await asyncio.to_thread(_write_own, settings, authority, with_worker=may_renew)
    # Another process of the owner may have written, too: whoever offers functions by 'crank worker serve' begins so.
    for folder in (own.folder, *await asyncio.to_thread(_identity_folders, settings)):
        try:
            await _note(desk, authority, folder)
        except (CrankError, OSError, ValueError) as fault:
            _log.warning("identity_not_noted", folder=str(folder), cause=str(fault))
    return own


def _forget_revoked(settings: Settings, desk: Desk, authority: FileAuthority) -> None:
    """Remove the worker's certificate when it was revoked alone, or its holder was and is allowed again."""
    found = authority.read_local(settings.identity_dir)
    if found is not None and desk.standing.is_revoked(found.serial):
        (settings.identity_dir / "cert.pem").unlink(missing_ok=True)


def _write_own(settings: Settings, authority: FileAuthority, *, with_worker: bool) -> Identity:
    names = [name for name in settings.api_names.split(",") if name]
    own = authority.issue_controller(node_id(settings), addresses=[settings.bind, *names])
    if with_worker:
        authority.issue_worker(worker_id_of(settings), settings.identity_dir)
    authority.publish_ca(settings.api_ca_file)
    return own


def _identity_folders(settings: Settings) -> list[Path]:
    return sorted(settings.worker_dir.parent.glob("*/identity"))[:_FOLDERS_MAX]


async def _note(desk: Desk, authority: FileAuthority, folder: Path) -> None:
    found = await asyncio.to_thread(authority.read_local, folder)
    if found is not None and not desk.standing.is_banned(found.spiffe_id):
        await note_issued(desk, found, node=desk.policy.node_id, asked_by="local")


async def keep_renewed(
    settings: Settings,
    desk: Desk,
    authority: FileAuthority,
    listening: Sequence[ssl.SSLContext],
    public: PublicName | None,
) -> None:
    """Renew certificates and rotate keys as they become due, for as long as the controller runs."""
    shown: bytes | None = None
    while True:
        try:
            await asyncio.to_thread(authority.ensure)
            own = await issue_own(settings, desk, authority)
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
