"""The authority of this node, wired: opened at start, and kept up while the controller runs."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable

import structlog

from crank.adapters.authority import FileAuthority, Identity
from crank.adapters.authority.key_store import KeyStore
from crank.api.fresh_tls import FreshTls
from crank.api.public_name import PublicName
from crank.bootstrap.own_identities import OwnIdentities
from crank.config import LEAF_TTL_SEC_USUAL, Settings
from crank.controller.desk import Desk
from crank.errors import ConfigurationError, CrankError
from crank.ports import Clock, Failpoints, IdSource
from crank.security import bearer_server_context, server_context

# Looked at so often; issued is only what has become due. A tenth of the shortest leaf's life.
RENEW_LOOK_SEC = 3.0
RENEW_RETRY_SEC = 1.0
_SOON_US = 90 * 86_400 * 1_000_000
_log = structlog.get_logger(__name__)


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
    for each in authority.status().certificates:
        if each.tier != "issuing" and each.not_after_us - clock.now_us() < _SOON_US:
            _log.warning("authority_ends_soon", tier=each.tier, root=each.mark, fix="crank identity rotate prepare")
    return authority


class ListeningTls:
    """What the controller's listeners show and believe: its own identity's files, read anew when they change."""

    def __init__(self, own: Identity) -> None:
        self._own = own
        self._listening: list[FreshTls] = []
        self._seen = self._read()

    def api(self, *, asks: bool = False) -> ssl.SSLContext:
        """Return what a listener speaks whose callers show a credential inside; `asks`: a certificate too, if they have one."""
        own = self._own
        ca_file = own.ca_file if asks else None
        return self._add(
            lambda: bearer_server_context(certificate_file=own.certificate_file, key_file=own.key_file, ca_file=ca_file)
        )

    def workers(self) -> ssl.SSLContext:
        """Return what a listener speaks whose callers show a certificate below one of the roots."""
        own = self._own
        return self._add(
            lambda: server_context(
                certificate_file=own.certificate_file, key_file=own.key_file, ca_file=own.ca_file
            )
        )

    def renew(self) -> bool:
        """Take up what changed, for connections from now on; tell whether anything did. Raises ConfigurationError."""
        found = self._read()
        if found == self._seen:
            return False
        for each in self._listening:
            each.renew()
        self._seen = found
        return True

    def _add(self, make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        self._listening.append(FreshTls(make))
        return self._listening[-1].front

    def _read(self) -> tuple[bytes, bytes]:
        return self._own.certificate_file.read_bytes(), self._own.ca_file.read_bytes()


async def keep_renewed(
    desk: Desk, authority: FileAuthority, own: OwnIdentities, tls: ListeningTls, public: PublicName | None
) -> None:
    """Renew certificates and rotate keys as they become due, for as long as the controller runs."""
    while True:
        sequence = authority.bundle().sequence
        try:
            await asyncio.to_thread(authority.ensure)
            await own.issue()
            await asyncio.to_thread(tls.renew)
            desk.sight.sequence = sequence
            if public is not None:
                # Whoever issues it renews the files in place.
                await asyncio.to_thread(public.load)
        except (CrankError, OSError) as fault:
            _log.error("renewal_failed", cause=str(fault))
            await asyncio.sleep(RENEW_RETRY_SEC)
        # A root that is new must be believed here before anybody shows a certificate below it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RENEW_LOOK_SEC):
                await authority.next_bundle(sequence)
