"""Sessions of the older era, counted for each credential: nobody keeps others out by opening many and leaving them."""

import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from starlette.datastructures import Headers

from crank.errors import Unavailable
from crank.ports import Clock

# The older era is over, so its revisions are a closed list; a request that names none is of it too.
OLDER_REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
SESSIONS_MAX = 1_000
SESSIONS_OF_ONE_MAX = 250
SESSION_IDLE_SEC = 1_800.0
# What the SDK allows itself; the counts here are reached first, and refuse with a code.
SESSIONS_OF_SDK_MAX = 2 * SESSIONS_MAX
# Ends a session, by its id.
End: TypeAlias = Callable[[str], Awaitable[None]]


@dataclass(slots=True)
class _Seat:
    owner: str
    used_sec: float
    calls: int = 0
    streams: int = 0


class Seats:
    """The open sessions by id, the one that was used least lately first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seats: OrderedDict[str, _Seat] = OrderedDict()
        self._opening: dict[str, int] = {}

    @contextlib.contextmanager
    def using(self, session_id: str, owner: str, method: str) -> Iterator[None]:
        """Note that a session is used meanwhile, if it is this credential's; a stream that only listens is no use."""
        seat = self._seats.get(session_id)
        if seat is None or seat.owner != owner:
            yield
            return
        call = method == "POST"
        if call:
            self._seats.move_to_end(session_id)
        seat.calls += call
        seat.streams += not call
        try:
            yield
        finally:
            seat.calls -= call
            seat.streams -= not call
            seat.used_sec = self._clock.monotonic_sec()
            if method == "DELETE":
                self._seats.pop(session_id, None)

    @contextlib.asynccontextmanager
    async def opening(self, owner: str, end: End) -> AsyncIterator[Callable[[str], None]]:
        """Make room for one session more and give what notes its id. Raises Unavailable (`mcp_sessions_full`).

        end  ends a session of this credential
        """
        self._forget_idle()
        idlest = self._make_room(owner)
        self._opening[owner] = self._opening.get(owner, 0) + 1
        try:
            if idlest is not None:
                await end(idlest)
            yield lambda session_id: self._seat(session_id, owner)
        finally:
            self._opening[owner] -= 1
            if not self._opening[owner]:
                del self._opening[owner]

    def _seat(self, session_id: str, owner: str) -> None:
        self._seats[session_id] = _Seat(owner, self._clock.monotonic_sec())

    def _make_room(self, owner: str) -> str | None:
        """Return the session that must end first, already forgotten here; None where there is room."""
        own = [session_id for session_id, seat in self._seats.items() if seat.owner == owner]
        if len(own) + self._opening.get(owner, 0) < SESSIONS_OF_ONE_MAX:
            if len(self._seats) + sum(self._opening.values()) >= SESSIONS_MAX:
                raise _full(f"the node has {SESSIONS_MAX}")
            return None
        idlest = next((session_id for session_id in own if not self._seats[session_id].calls), None)
        if idlest is None:
            raise _full(f"this credential has {SESSIONS_OF_ONE_MAX}, each with a call under way")
        del self._seats[idlest]
        return idlest

    def _forget_idle(self) -> None:
        """Forget what the SDK has ended for being idle."""
        limit_sec = self._clock.monotonic_sec() - SESSION_IDLE_SEC
        for session_id, seat in list(self._seats.items()):
            if not (seat.calls or seat.streams) and seat.used_sec < limit_sec:
                del self._seats[session_id]


def opens_session(headers: Headers) -> bool:
    """Tell whether a request asks for a session of the older era: it names none, and no newer revision."""
    revision = headers.get("mcp-protocol-version")
    return "mcp-session-id" not in headers and (revision is None or revision in OLDER_REVISIONS)


def _full(cause: str) -> Unavailable:
    return Unavailable(
        f"No MCP session can be opened now: {cause}.",
        code="mcp_sessions_full",
        fix="End a session with DELETE /mcp and its Mcp-Session-Id, or use the revision of 2026-07-28, which needs none.",
        retry_after_sec=10,
    )
