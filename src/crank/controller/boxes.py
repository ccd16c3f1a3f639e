"""The E2B sandboxes of this node: each a session with a steward inside, belonging to the key that made it."""

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from crank.controller.box_call import BoxRefused
from crank.controller.box_line import BoxLine
from crank.controller.cancel import cancel
from crank.controller.desk import Desk
from crank.controller.end_session import close_session, find_session
from crank.controller.open_session import open_session, touch_session
from crank.controller.uploads import Uploads
from crank.domain.credential import Credential
from crank.domain.ids import SessionId, TenantId
from crank.domain.json import JsonObject
from crank.domain.quantity import GIB, MIB
from crank.domain.rules import e2b as rules
from crank.domain.session import Session
from crank.errors import Conflict, CrankError, NotAuthenticated, NotFound, Unavailable

BOX_MEMORY_BYTES = 1 * GIB
# What its disk holds, as its profile says; an operator may only lower that.
BOX_DISK_BYTES = 256 * MIB
# Sandboxes that are remembered; the oldest that have ended go first.
REMEMBERED_MAX = 1_000
_HELLO_SEC = 30.0
# What the session of a sandbox is called, so that it is found again after a restart.
_NAME = "e2b"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who asks: a key, and the desk as it sees it. A sandbox belongs to the key that made it."""

    credential: Credential
    desk: Desk

    @property
    def tenant(self) -> TenantId:
        """Return the tenant whose key it is."""
        return self.credential.tenant

    @property
    def subject(self) -> str:
        """Return what records name."""
        return self.credential.subject

    def is_same(self, other: "Owner") -> bool:
        """Tell whether this is the same key."""
        return self.credential.credential_id == other.credential.credential_id


@dataclass(slots=True)
class Box:
    """One sandbox as its clients know it. `ends_us` is when its time is over."""

    session: Session
    owner: Owner
    line: BoxLine
    token: str
    ends_us: int
    template: str = rules.TEMPLATES[0]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def sandbox_id(self) -> str:
        """Return its name for clients."""
        return rules.sandbox_id(self.session.session_id)


class Boxes:
    """Opens, finds and ends sandboxes."""

    def __init__(self, desk: Desk, *, modules: Mapping[str, str], secret: bytes) -> None:
        """Take what a steward is made of, and what access tokens are derived from."""
        self.desk = desk
        self.uploads = Uploads()
        self._modules = modules
        self._secret = secret
        self._boxes: dict[SessionId, Box] = {}
        self._adopting = asyncio.Lock()

    def _token(self, session_id: SessionId) -> str:
        return hmac.new(self._secret, f"envd {session_id}".encode(), hashlib.sha256).hexdigest()

    async def open(self, owner: Owner, draft: rules.SandboxDraft) -> Box:
        """Open a sandbox and return it when its steward answers. Raises what `open_session` raises, Unavailable."""
        seconds = max(1.0, draft.timeout_sec)
        fields: JsonObject = {
            "capability": rules.CAPABILITY,
            "memory_bytes": BOX_MEMORY_BYTES,
            "lifetime_sec": seconds,
            "idle_sec": seconds,
            "name": _NAME,
        }
        session = await open_session(owner.desk, tenant=owner.tenant, subject=owner.subject, fields=fields)
        box = self._keep(session, owner, booted=False)
        box.template, box.metadata = draft.template, dict(draft.metadata)
        try:
            async with asyncio.timeout(_HELLO_SEC):
                await box.line.ask("hello", env=dict(draft.environment))
        except BaseException as fault:
            await asyncio.shield(self.kill(box))
            if isinstance(fault, BoxRefused | TimeoutError):
                raise Unavailable("The sandbox did not answer when it was made.", code="sandbox_slow") from fault
            raise
        return box

    def _keep(self, session: Session, owner: Owner, *, booted: bool) -> Box:
        line = BoxLine(owner.desk, owner.tenant, session.session_id, self._modules, booted=booted)
        ends_us = session.created_us + int(session.request.lifetime_sec * 1_000_000)
        box = Box(session, owner, line, self._token(session.session_id), ends_us)
        self._boxes[session.session_id] = box
        self._sweep()
        return box

    def _sweep(self) -> None:
        for session_id, box in list(self._boxes.items()):
            if len(self._boxes) <= REMEMBERED_MAX:
                return
            if box.line.gone or box.ends_us < self.desk.clock.now_us():
                del self._boxes[session_id]

    async def find(self, sandbox_id: str, owner: Owner | None = None) -> Box:
        """Return a sandbox that lives. With an owner, only theirs.

        Raises NotFound, the same whether it never was, has ended, or is another's.
        """
        session_id = rules.session_id(sandbox_id)
        box = None if session_id is None else self._boxes.get(session_id)
        if session_id is not None and box is None and owner is not None:
            box = await self._adopt(session_id, owner)
        if box is None or (owner is not None and not box.owner.is_same(owner)) or not await self._lives(box):
            raise NotFound("The sandbox was not found.", code="sandbox_not_found")
        return box

    async def _lives(self, box: Box) -> bool:
        try:
            session = await find_session(box.owner.desk, tenant=box.owner.tenant, session_id=box.session.session_id)
        except (NotFound, NotAuthenticated):
            session = None
        if session is None or session.ended or box.line.gone:
            self._boxes.pop(box.session.session_id, None)
            await box.line.close()
            if session is not None and not session.ended:
                # Its steward is gone, so nobody can use what is left of it.
                await self.kill(box)
            return False
        box.session = session
        return True

    async def _adopt(self, session_id: SessionId, owner: Owner) -> Box | None:
        """Take up a sandbox that an earlier controller opened; what was noted about it is gone with that one."""
        async with self._adopting:
            if session_id in self._boxes:
                return self._boxes[session_id]
            store = owner.desk.store
            session = await store.read(lambda tx: tx.sessions.find(owner.tenant, session_id))
            if session is None or session.ended or session.request.name != _NAME:
                return None
            for job in await store.read(lambda tx: list(tx.jobs.of_session(session_id))):
                # It still listens to a controller that is no more; its steward lives on.
                with contextlib.suppress(CrankError):
                    await cancel(owner.desk, tenant=owner.tenant, subject=owner.subject, job_id=job.job_id)
            return self._keep(session, owner, booted=True)

    async def listing(self, owner: Owner) -> list[Box]:
        """Return every sandbox of an owner that lives, oldest first."""
        live = await owner.desk.store.read(lambda tx: list(tx.sessions.live()))
        own = owner.credential.credential_id
        mine = [each.session_id for each in live if each.owner == own and each.request.name == _NAME]
        found = []
        for session_id in mine:
            with contextlib.suppress(NotFound):
                found.append(await self.find(rules.sandbox_id(session_id), owner))
        return sorted(found, key=lambda box: (box.session.created_us, box.session.session_id))

    async def set_timeout(self, box: Box, seconds: float, *, extend_only: bool = False) -> None:
        """Let a sandbox live for so long from now. Raises InvalidRequest (`limit_out_of_range`), NotFound, Unavailable.

        extend_only  never end it sooner than it would have ended
        """
        now_us = self.desk.clock.now_us()
        ends_us = now_us + int(seconds * 1_000_000)
        if extend_only and ends_us <= box.ends_us:
            return
        lifetime_sec = max(1.0, (ends_us - box.session.created_us) / 1_000_000)
        idle_sec = max(1.0, min(lifetime_sec, self.desk.policy.session_idle_sec_max))
        fields: JsonObject = {"lifetime_sec": lifetime_sec, "idle_sec": idle_sec}
        try:
            await touch_session(
                box.owner.desk, tenant=box.owner.tenant, session_id=box.session.session_id, fields=fields
            )
        except Conflict as ended:
            raise NotFound("The sandbox was not found.", code="sandbox_not_found") from ended
        box.ends_us = ends_us

    async def kill(self, box: Box) -> None:
        """End a sandbox now; whoever waits for it hears of it."""
        self._boxes.pop(box.session.session_id, None)
        with contextlib.suppress(NotFound, NotAuthenticated):
            await close_session(
                box.owner.desk, tenant=box.owner.tenant, subject=box.owner.subject, session_id=box.session.session_id
            )
        await box.line.close()

    def signed(self, path: str, operation: str, user: str, expiration: str | None, given: str) -> Box | None:
        """Return the sandbox whose token made a signature, or None."""
        for box in self._boxes.values():
            made = rules.signature(path, operation, user, box.token, expiration)
            if hmac.compare_digest(made.encode(), given.encode("utf-8", "surrogatepass")):
                return box
        return None

    def with_token(self, token: str) -> Box | None:
        """Return the sandbox of an access token, or None."""
        for box in self._boxes.values():
            if hmac.compare_digest(box.token.encode(), token.encode("utf-8", "surrogatepass")):
                return box
        return None

    async def close(self) -> None:
        """Let go of every line; sandboxes live on."""
        await asyncio.gather(*(box.line.close() for box in self._boxes.values()), return_exceptions=True)
