"""The authority of this node, wired: opened at start, and kept up while the controller runs."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path

import structlog

from crank.adapters.authority import FileAuthority, Identity
from crank.adapters.authority.key_store import KeyStore
from crank.adapters.clock import SystemClock
from crank.api.fresh_tls import FreshTls, ListedTls
from crank.api.public_name import PublicName
from crank.bootstrap.files import write_whole
from crank.bootstrap.own_identities import LISTS, OwnIdentities
from crank.config import LEAF_TTL_SEC_USUAL, Settings
from crank.controller.desk import Desk
from crank.controller.revocation_list import NEXT_UPDATE_SEC, RevocationList, RevocationLists
from crank.errors import ConfigurationError, CrankError
from crank.ports import Clock, Failpoints, IdSource
from crank.security import bearer_server_context, server_context
from crank.security.contexts import demand_lists

# Looked at so often; issued is only what has become due. A tenth of the shortest leaf's life.
RENEW_LOOK_SEC = 3.0
RENEW_RETRY_SEC = 1.0
# Lists are no longer asked of TLS so long before they end, and from so long before they began (they are backdated).
_LISTS_MARGIN_SEC = 60.0
_LISTS_EARLY_SEC = 20.0
# Each handshake hashes the list of its issuer: longer ones are left to the look at each request.
LISTS_BYTES_MAX = 1024 * 1024
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

    def __init__(self, own: Identity, clock: Clock | None = None) -> None:
        self._own = own
        self._clock = clock or SystemClock()
        self._listening: list[FreshTls | ListedTls] = []
        self._lists: RevocationList | None = None
        self._told: str | None = None
        self._seen = self._read()

    def api(self, *, asks: bool = False) -> ssl.SSLContext:
        """Return what a listener speaks whose callers show a credential inside; `asks`: a certificate too, if they have one."""
        own = self._own
        ca_file = own.ca_file if asks else None
        return self._add(
            lambda: bearer_server_context(certificate_file=own.certificate_file, key_file=own.key_file, ca_file=ca_file)
        )

    def workers(self) -> ssl.SSLContext:
        """Return what a listener speaks whose callers show a certificate below one of the roots, and a good one."""
        made = ListedTls(self._for_workers, self._lists_count)
        self._listening.append(made)
        return made.front

    def renew(self, lists: RevocationList | None = None) -> bool:
        """Take up what changed, for connections from now on; tell whether anything did. Raises ConfigurationError.

        lists  what is revoked now, signed after the roots were written; None: handshakes go without, and each request
               is looked at as ever
        """
        lists = self._written(lists)
        found = self._read()
        if found == self._seen and lists == self._lists:
            return False
        before, self._lists = self._lists, lists
        try:
            for each in self._listening:
                each.renew()
        except ConfigurationError:
            self._lists = before if lists is not None else None
            raise
        self._seen = found
        return True

    def _written(self, lists: RevocationList | None) -> RevocationList | None:
        """Keep the lists where TLS can read them; return None where that cannot be."""
        if lists is None or lists == self._lists:
            return lists
        content = lists.pem
        try:
            if len(content) > LISTS_BYTES_MAX:
                raise OSError("they are too long to be looked through at each handshake")
            write_whole(self._lists_file, content, mode=0o644)
        except OSError as fault:
            self.tell_unlisted(str(fault))
            return None
        self._told = None
        return lists

    def tell_unlisted(self, cause: str) -> None:
        """Log, once for each cause, that TLS does not look at what was revoked: the look at each request still does."""
        if self._told != cause:
            self._told = cause
            _log.error("handshakes_without_lists", cause=cause)

    @property
    def _lists_file(self) -> Path:
        return self._own.folder / LISTS

    def _lists_count(self) -> bool:
        """Tell whether TLS takes the lists as of now: it refuses everybody by one that is too old, or not yet good."""
        if self._lists is None:
            return False
        age_sec = (self._clock.now_us() - self._lists.made_us) / 1_000_000
        counts = -_LISTS_EARLY_SEC < age_sec < NEXT_UPDATE_SEC - _LISTS_MARGIN_SEC
        if not counts:
            self.tell_unlisted("the last ones are too old, or the clock was set")
        return counts

    def _for_workers(self, listed: bool) -> ssl.SSLContext | None:
        if listed and self._lists is None:
            return None
        own = self._own
        context = server_context(
            certificate_file=own.certificate_file, key_file=own.key_file, ca_file=own.ca_file
        )
        if listed:
            try:
                demand_lists(context, self._lists_file)
            except ConfigurationError as fault:
                self.tell_unlisted(str(fault))
                return None
        return context

    def _add(self, make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        self._listening.append(FreshTls(make))
        return self._listening[-1].front

    def _read(self) -> tuple[bytes, bytes]:
        return self._own.certificate_file.read_bytes(), self._own.ca_file.read_bytes()


async def _take_up(tls: ListeningTls, own: OwnIdentities, lists: RevocationLists, desk: Desk) -> None:
    """Let listeners and folders take up what changed; where lists cannot be signed, no listener refuses anybody for it."""
    try:
        current = await lists.current(desk)
    except (CrankError, OSError) as fault:
        tls.tell_unlisted(str(fault))
        current = None
    await asyncio.to_thread(tls.renew, current)
    if current is not None:
        await asyncio.to_thread(own.publish, current)


async def keep_renewed(
    desk: Desk,
    authority: FileAuthority,
    own: OwnIdentities,
    tls: ListeningTls,
    public: PublicName | None,
    lists: RevocationLists,
) -> None:
    """Renew certificates and rotate keys as they become due, for as long as the controller runs."""
    while True:
        sequence = authority.bundle().sequence
        try:
            await asyncio.to_thread(authority.ensure)
            await own.issue()
            # After the roots were written: no root is believed whose authority has no list.
            await _take_up(tls, own, lists, desk)
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
