"""One caller at the socket: who it is, looked at anew whenever something is handed out, and how much it may ask at once."""

import asyncio
import contextlib
from collections.abc import Collection, Iterator
from concurrent.futures import Executor
from weakref import WeakValueDictionary

from crank.controller.svids import Svids
from crank.domain.workload import Selector, WorkloadEntry
from crank.errors import Unavailable
from crank.ports import Caller

LOOK_SEC_MAX = 5.0
# Fewer than HTTP/2 lets a connection open, so that one too many is told why.
STREAMS_OF_CONNECTION_MAX = 64
STREAMS_MAX = 4096
# Threads that look at processes, and how many of them may look at those of one account: a huge program takes seconds.
LOOKERS_MAX = 4
LOOKS_OF_ACCOUNT_MAX = 2


class Crowd:
    """How many calls are open: of each account, and in all."""

    def __init__(self, *, streams_max: int = STREAMS_MAX, streams_of_connection_max: int = STREAMS_OF_CONNECTION_MAX) -> None:
        self._streams_max = streams_max
        self._streams_of_connection_max = streams_of_connection_max
        self._open: dict[int, int] = {}
        self._all = 0
        # Weak: whoever waits for one or looks by one holds it.
        self._turns: WeakValueDictionary[int, asyncio.Semaphore] = WeakValueDictionary()

    def turn(self, uid: int) -> asyncio.Semaphore:
        """Return what an account's looks are let through by, so that they never take every thread."""
        turn = self._turns.get(uid)
        if turn is None:
            turn = self._turns[uid] = asyncio.Semaphore(LOOKS_OF_ACCOUNT_MAX)
        return turn

    @contextlib.contextmanager
    def place(self, uid: int, *, of_connection: int) -> Iterator[None]:
        """Hold a place for one call. Raises Unavailable (`spiffe_busy`)."""
        fair = self._streams_max // 2
        held = self._open.get(uid, 0)
        if of_connection >= self._streams_of_connection_max or held >= fair or self._all >= self._streams_max:
            raise Unavailable("Too many calls are open.", code="spiffe_busy", fix="Close some, or try again later.")
        self._open[uid] = held + 1
        self._all += 1
        try:
            yield
        finally:
            self._all -= 1
            self._open[uid] -= 1
            if not self._open[uid]:
                del self._open[uid]


def _looked(turn: asyncio.Semaphore, done: "asyncio.Future[frozenset[Selector]]") -> None:
    turn.release()
    if not done.cancelled():
        # Where nobody waits any more, a failure is nobody's news.
        done.exception()


class Seat:
    """A connection's caller."""

    def __init__(self, caller: Caller, svids: Svids, crowd: Crowd, lookers: Executor) -> None:
        self._caller = caller
        self._crowd = crowd
        self._lookers = lookers
        self._streams = 0
        self.svids = svids

    async def marks(self) -> Collection[Selector]:
        """Return what is true of the process now. Raises NotAllowed (`caller_changed`), Unavailable."""
        digest = await self.svids.wants_digest()
        turn = self._crowd.turn(self._caller.uid)
        try:
            async with asyncio.timeout(LOOK_SEC_MAX):
                await turn.acquire()
                looking = asyncio.get_running_loop().run_in_executor(
                    self._lookers, lambda: self._caller.marks(digest=digest)
                )
                # A thread that was given up on goes on, and its turn ends when it does.
                looking.add_done_callback(lambda done: _looked(turn, done))
                return await asyncio.shield(looking)
        except TimeoutError:
            raise Unavailable("The process could not be looked at in time.", code="caller_slow") from None

    async def entries(self) -> tuple[WorkloadEntry, ...]:
        """Return who the process is now. Raises NotAllowed (`no_identity`, `caller_changed`), Unavailable."""
        return await self.svids.earned(await self.marks())

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Hold a place for one call. Raises Unavailable (`spiffe_busy`)."""
        with self._crowd.place(self._caller.uid, of_connection=self._streams):
            self._streams += 1
            try:
                yield
            finally:
                self._streams -= 1
