"""Identities for this machine's workloads: made when they are first asked for, shared, renewed at half life, pushed.

A process is looked at, its marks earn entries, and an entry has one key and one certificate at a time, in memory alone:
hundreds of processes of one workload cost one signature. Nothing is renewed for nobody: at half its life a certificate
is forgotten and the bell rung, and whoever still watches asks anew. The key stays (`workload_keys`).
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from weakref import WeakValueDictionary

import structlog

from crank.controller.bell import Bell
from crank.controller.bundles import Bundles
from crank.controller.desk import Desk
from crank.controller.issue import IdentityWanted, authority_of, issue
from crank.controller.revocation_list import RevocationList, RevocationLists
from crank.controller.workload_keys import WorkloadKeys
from crank.domain.identity import SpiffeId, parse_spiffe_id, parse_workload_path
from crank.domain.json import JsonObject
from crank.domain.rules import workload as rules
from crank.domain.trust import SignedLists, Svid, TrustBundle, Workload
from crank.domain.workload import EntryId, Selector, SelectorKind, WorkloadEntry
from crank.errors import CrankError, InvalidRequest, NotAllowed, Unavailable
from crank.ports import JwtSvidReader, KeyMaker

TOKENS_MAX = 1024
# How soon issuing is tried again for one who holds a good certificate still.
TRY_AGAIN_SEC = 2.0
LOOK_SEC_MAX = 30.0
# Each is a signature and a record; whoever asks for more, for ever other audiences, is told to come later.
TOKENS_A_MINUTE_MAX = 300
# Of half a life: renewals of what was made together drift apart.
_JITTER = 0.2
_US = 1_000_000
_log = structlog.get_logger(__name__)
T = TypeVar("T")
Look = Callable[[], Awaitable[Collection[Selector]]]


@dataclass(frozen=True, slots=True)
class HeldSvid:
    """An identity with its private key (DER, PKCS#8), as it is handed over."""

    entry: WorkloadEntry
    svid: Svid
    private_key: bytes = field(repr=False)
    renew_at_sec: float = 0.0


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Picture:
    """All that a workload is told at one moment; what is the same for many is one object.

    bundles  by trust domain: its own, and those that its entries name and that are known
    revoked  what its own trust domain took back; other domains tell nobody
    """

    svids: tuple[HeldSvid, ...]
    bundles: Mapping[str, TrustBundle]
    revoked: SignedLists


@dataclass(frozen=True, slots=True)
class Roots:
    """By what X.509-SVIDs of others are checked, in the words of Picture."""

    bundles: Mapping[str, TrustBundle]
    revoked: SignedLists


@dataclass(frozen=True, slots=True)
class JwtSvid:
    """A token as it is handed over."""

    entry: WorkloadEntry
    token: str = field(repr=False)


class Svids:
    """Lives as long as the controller."""

    def __init__(
        self,
        desk: Desk,
        keys: KeyMaker,
        reader: JwtSvidReader,
        others: Bundles | None = None,
        lists: RevocationLists | None = None,
    ) -> None:
        self._desk = desk
        self._authority = authority_of(desk)
        self._keys = WorkloadKeys(desk, keys)
        self._reader = reader
        self._others = others
        self._lists = lists or RevocationLists()
        self._listed: RevocationList | None = None
        self._unsigned_sec = -TRY_AGAIN_SEC
        self._entries: tuple[WorkloadEntry, ...] = ()
        self._entries_at = -1
        self._held: dict[EntryId, HeldSvid] = {}
        self._making: dict[EntryId, asyncio.Task[HeldSvid]] = {}
        # Weak: keys of yesterday are nobody's.
        self._pictures: WeakValueDictionary[tuple[object, ...], Picture] = WeakValueDictionary()
        self._tokens: OrderedDict[tuple[EntryId, tuple[str, ...]], tuple[JwtSvid, float]] = OrderedDict()
        self._minutes: dict[EntryId, tuple[float, int]] = {}
        self._running: list[asyncio.Task[None]] = []
        self._sooner = asyncio.Event()
        self.changes = Bell()

    async def start(self) -> None:
        """Begin to follow bundles and entries, and to renew."""
        services = (self._follow_bundle(), self._follow_others(), self._follow_entries(), self._renew())
        self._running = [asyncio.create_task(service) for service in services]

    async def stop(self) -> None:
        """End; what was handed out stays good to its end. Safe to call twice."""
        for service in (*self._running, *self._making.values()):
            service.cancel()
        for service in self._running:
            with contextlib.suppress(asyncio.CancelledError):
                await service
        self._running = []

    # --- who earns what ----------------------------------------------------------------------

    async def wants_digest(self) -> bool:
        """Tell whether any entry asks for the SHA-256 of a program, which is costly to know."""
        entries = await self._registered()
        return any(one.kind is SelectorKind.SHA256 for entry in entries for one in entry.selectors)

    async def earned(self, marks: Collection[Selector]) -> tuple[WorkloadEntry, ...]:
        """Return the entries that a process with these marks is. Raises NotAllowed (`no_identity`)."""
        found = rules.earned(await self._registered(), marks)
        living = tuple(entry for entry in found if not self._desk.standing.is_banned(entry.spiffe_id))
        if not living:
            raise NotAllowed(
                "No identity is registered for this process.",
                code="no_identity",
                fix="Register it: crank workload add PATH --selector unix:uid:…",
            )
        return living

    async def _registered(self) -> tuple[WorkloadEntry, ...]:
        while self._entries_at != (rung := self._desk.workloads.rung):
            entries = await self._desk.store.read(lambda tx: tuple(tx.workloads.all()))
            own = self._authority.trust_domain
            # A node that was given another trust domain cannot issue for the old one.
            self._entries = tuple(entry for entry in entries if entry.spiffe_id.trust_domain == own)
            self._entries_at = rung
            living = {entry.entry_id for entry in self._entries}
            self._minutes = {key: count for key, count in self._minutes.items() if key in living}
            self._held = {key: held for key, held in self._held.items() if key in living}
            self._keys.keep(living)
        return self._entries

    # --- X.509 -------------------------------------------------------------------------------

    async def picture(self, entries: Sequence[WorkloadEntry]) -> Picture:
        """Return what those who are these entries are told now. Raises Unavailable, ConfigurationError."""
        svids = tuple(await asyncio.gather(*(self._svid(entry) for entry in entries)))
        revoked = await self._revoked()
        bundles = self._bundles(entries)
        numbers = tuple((name, one.sequence) for name, one in bundles.items())
        key = (tuple(held.svid.serial for held in svids), numbers, revoked.number)
        known = self._pictures.get(key)
        # A publisher need not number its bundles, so what they hold is compared as well.
        if known is None or known.bundles != bundles:
            known = self._pictures[key] = Picture(svids, bundles, revoked.lists)
        return known

    async def _revoked(self) -> RevocationList:
        """Return what is revoked; while that cannot be signed, what was signed last. Raises as `RevocationLists.current`."""
        now_sec = self._desk.clock.monotonic_sec()
        if self._listed is not None and now_sec < self._unsigned_sec + TRY_AGAIN_SEC:
            return self._listed
        try:
            self._listed = await self._lists.current(self._desk)
        except CrankError as fault:
            # Identities go on meanwhile: whoever checks by the old one believes nobody any more once its time is over.
            if self._listed is None:
                raise
            self._unsigned_sec = now_sec
            self._sooner.set()
            _log.error("revocations_not_signed", code=fault.error_code, message=fault.message)
        return self._listed

    def bundles(self) -> Mapping[str, TrustBundle]:
        """Return the bundle of the own trust domain alone, by its name."""
        own = self._authority.bundle()
        return {own.trust_domain: own}

    def _bundles(self, entries: Sequence[WorkloadEntry]) -> Mapping[str, TrustBundle]:
        foreign = {} if self._others is None else self._others.foreign()
        wanted = sorted({domain for entry in entries for domain in entry.federates_with} & set(foreign))
        return {**self.bundles(), **{domain: foreign[domain] for domain in wanted}}

    def watch(self, look: Look) -> AsyncGenerator[Picture, None]:
        """Give each new picture of a process, the first one at once.

        look  tells the marks of the process, anew whenever something would be handed out
        Raises NotAllowed once it has no identity any more, and what `picture` raises.
        """
        return self._watch(look, self.picture)

    def watch_bundles(self, look: Look) -> AsyncGenerator[Mapping[str, TrustBundle], None]:
        """Give the bundles that a process may know, and again when they change. Raises as `watch`."""

        async def known(entries: Sequence[WorkloadEntry]) -> Mapping[str, TrustBundle]:
            return self._bundles(entries)

        return self._watch(look, known)

    def watch_roots(self, look: Look) -> AsyncGenerator[Roots, None]:
        """Give the bundles and what is revoked, and again when either changes. Raises as `watch`."""

        async def known(entries: Sequence[WorkloadEntry]) -> Roots:
            revoked = await self._revoked()
            return Roots(self._bundles(entries), revoked.lists)

        return self._watch(look, known)

    async def _watch(
        self, look: Look, tell: Callable[[Sequence[WorkloadEntry]], Awaitable[T]]
    ) -> AsyncGenerator[T, None]:
        shown: T | None = None
        marks: Collection[Selector] | None = None
        digested = False
        while True:
            seen = self.changes.rung
            try:
                # An entry that came since may ask for the one mark that is costly to know, and was not looked for.
                lacks_digest = not digested and await self.wants_digest()
                if marks is None or lacks_digest or await tell(await self.earned(marks)) != shown:
                    marks = await look()
                    digested = digested or lacks_digest
                    now = await tell(await self.earned(marks))
                    if now != shown:
                        shown = now
                        yield now
            except Unavailable:
                if shown is None or self._is_over(shown):
                    raise
                await asyncio.sleep(TRY_AGAIN_SEC)
                continue
            await self.changes.after(seen)

    def _is_over(self, shown: object) -> bool:
        now_us = self._desk.clock.now_us()
        return isinstance(shown, Picture) and any(held.svid.not_after_us <= now_us for held in shown.svids)

    async def _svid(self, entry: WorkloadEntry) -> HeldSvid:
        held = self._held.get(entry.entry_id)
        if held is not None and not self._is_due(held):
            return held
        making = self._making.get(entry.entry_id)
        if making is None:
            making = self._making[entry.entry_id] = asyncio.create_task(self._make(entry))
            making.add_done_callback(lambda done: self._made(entry, done))
        # One that gives up does not take it from the others.
        return await asyncio.shield(making)

    def _made(self, entry: WorkloadEntry, done: asyncio.Task[HeldSvid]) -> None:
        self._making.pop(entry.entry_id, None)
        if not done.cancelled():
            # Where all who waited have gone, a failure is nobody's news.
            done.exception()

    def _is_due(self, held: HeldSvid) -> bool:
        # By the other clock, too: a machine that slept did not count the seconds.
        ended = held.svid.not_after_us <= self._desk.clock.now_us()
        # Of one that was revoked alone, its workload gets another, with another key.
        lost = ended or not self._keys.holds(held.entry, held.private_key)
        return lost or held.renew_at_sec <= self._desk.clock.monotonic_sec()

    async def _make(self, entry: WorkloadEntry) -> HeldSvid:
        key = self._keys.next_for(entry)
        kind = str(parse_workload_path(entry.spiffe_id).kind)
        svid = await issue(
            self._desk,
            IdentityWanted(
                spiffe_id=entry.spiffe_id,
                workload=Workload(kind, key.instance, rules.ATTESTED),
                public_key=key.public,
                node=self._desk.policy.node_id,
                asked_by=f"workload:{entry.entry_id}",
                hosts=entry.dns_names,
                ttl_sec=entry.ttl_sec,
                entry=entry,
            ),
        )
        self._keys.signed(key, svid)
        half_sec = max(1.0, (svid.not_after_us - self._desk.clock.now_us()) / _US / 2)
        early_sec = half_sec * _JITTER * self._desk.ids.jitter()
        held = HeldSvid(entry, svid, key.private, self._desk.clock.monotonic_sec() + half_sec - early_sec)
        self._held[entry.entry_id] = held
        self._sooner.set()
        return held

    # --- JWT ---------------------------------------------------------------------------------

    async def tokens(
        self, entries: Sequence[WorkloadEntry], audience: Sequence[str], spiffe_id: str = ""
    ) -> Sequence[JwtSvid]:
        """Return a JWT-SVID of each entry, or of those with this identity.

        Raises InvalidRequest (`invalid_audience`), NotAllowed (`no_identity`), Unavailable.
        """
        rules.check_audience(audience)
        wanted = [entry for entry in entries if spiffe_id in ("", str(entry.spiffe_id))]
        if not wanted:
            raise NotAllowed("This process does not have that identity.", code="no_identity")
        named = tuple(sorted(set(audience)))
        return [await self._token(entry, named) for entry in wanted]

    async def _token(self, entry: WorkloadEntry, audience: tuple[str, ...]) -> JwtSvid:
        key, now_sec = (entry.entry_id, audience), self._desk.clock.monotonic_sec()
        known = self._tokens.get(key)
        if known is not None and now_sec < known[1] and known[0].entry == entry:
            return known[0]
        self._count_token(entry, now_sec)
        life_sec = rules.jwt_life_sec(entry)
        claims = rules.jwt_claims(entry.spiffe_id, audience, now_us=self._desk.clock.now_us(), life_sec=life_sec)
        # Perhaps by an HSM, which takes its time.
        made = JwtSvid(entry, await asyncio.to_thread(self._authority.sign_jwt_svid, claims))
        await self._note_token(entry, claims)
        self._tokens[key] = (made, now_sec + life_sec / 2)
        self._tokens.move_to_end(key)
        while len(self._tokens) > TOKENS_MAX:
            self._tokens.popitem(last=False)
        return made

    async def _note_token(self, entry: WorkloadEntry, claims: JsonObject) -> None:
        """Record a token before it is handed out; what cannot be recorded is not handed out."""
        facts: JsonObject = {"workload": entry.entry_id, "spiffe_id": claims["sub"], "audience": claims["aud"]}
        facts["expires_sec"] = claims["exp"]
        record = self._desk.record(
            "jwt_svid.issued", tenant=entry.tenant, subject=f"workload:{entry.entry_id}", job_id=None, facts=facts
        )
        await self._desk.store.transact(lambda tx: tx.records.append(record))

    def check_token(
        self, entries: Sequence[WorkloadEntry], token: str, audience: str
    ) -> tuple[SpiffeId, JsonObject]:
        """Return whose token it is, of this trust domain or one that these entries know, and its claims.

        Raises InvalidRequest (`invalid_jwt_svid`, `invalid_audience`).
        """
        rules.check_audience([audience])
        bundles = self._bundles(entries)

        def keys_of(subject: str) -> Sequence[JsonObject]:
            # By the token's own trust domain: another's keys say nothing about its identities.
            bundle = bundles.get(parse_spiffe_id(subject).trust_domain)
            authorities = () if bundle is None else bundle.jwt_authorities
            return [{**one.jwk, "kid": one.kid, "use": "jwt-svid"} for one in authorities]

        claims = self._reader.read(token, keys_of)
        cause = rules.claims_refusal(claims, audience, now_us=self._desk.clock.now_us())
        found = parse_spiffe_id(claims["sub"])
        if cause is None and self._desk.standing.is_banned(found):
            cause = "its identity was revoked"
        if cause is not None:
            raise InvalidRequest(f"This JWT-SVID does not hold here: {cause}.", code="invalid_jwt_svid", field="svid")
        return found, claims

    def _count_token(self, entry: WorkloadEntry, now_sec: float) -> None:
        began_sec, made = self._minutes.get(entry.entry_id, (now_sec, 0))
        if now_sec - began_sec >= 60.0:
            began_sec, made = now_sec, 0
        if made >= TOKENS_A_MINUTE_MAX:
            raise Unavailable("This workload asked for too many tokens.", code="too_many_tokens", retry_after_sec=60)
        self._minutes[entry.entry_id] = (began_sec, made + 1)

    # --- services ----------------------------------------------------------------------------

    async def _follow_entries(self) -> None:
        seen = self._desk.workloads.rung
        while True:
            await self._desk.workloads.after(seen)
            seen = self._desk.workloads.rung
            self._keys.forget_lost()
            self.changes.ring()

    async def _follow_bundle(self) -> None:
        known = self._authority.bundle()
        while True:
            try:
                now = await self._authority.next_bundle(known.sequence)
            except CrankError as fault:
                _log.error("bundle_not_followed", code=fault.error_code, message=fault.message)
                await asyncio.sleep(TRY_AGAIN_SEC)
                continue
            # What an authority signed that is gone now is made anew, all of it. One that came is no reason to: it would
            # have every certificate renewed at one moment, and they come to it by themselves.
            if set(known.x509_authorities) - set(now.x509_authorities):
                self._held.clear()
            if {one.kid for one in known.jwt_authorities} - {one.kid for one in now.jwt_authorities}:
                self._tokens.clear()
            known = now
            self.changes.ring()

    async def _follow_others(self) -> None:
        if self._others is None:
            return
        generation = self._others.generation
        while True:
            generation = await self._others.changed(generation)
            self.changes.ring()

    async def _renew(self) -> None:
        while True:
            now_sec = self._desk.clock.monotonic_sec()
            due = [key for key, held in self._held.items() if self._is_due(held)]
            for key in due:
                del self._held[key]
            # Lists that age, and those that could not be signed when something was revoked.
            listed = self._listed
            behind = listed is not None and self._lists.is_old(self._desk, listed)
            if behind:
                await self._revoked()
            if due or self._listed is not listed:
                self.changes.ring()
            next_sec = min((held.renew_at_sec for held in self._held.values()), default=now_sec + LOOK_SEC_MAX)
            next_sec = min(next_sec, now_sec + TRY_AGAIN_SEC) if behind else next_sec
            self._sooner.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_SEC_MAX, max(0.0, next_sec - now_sec))):
                    await self._sooner.wait()
