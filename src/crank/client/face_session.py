"""A session for ordinary code: the same calls, made on the synchronous client's own event loop."""

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from crank.client.results import JobResult
from crank.client.sessions import AsyncSession, SessionFile, SessionState


class Session:
    """One session of a node, for `with client.session(…)`. Every call promises what that of AsyncSession promises."""

    def __init__(self, remote: AsyncSession, wait_for: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._remote = remote
        self._wait_for = wait_for

    def __enter__(self) -> Self:
        self._wait_for(self._remote.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def state(self) -> SessionState:
        """Return the session as it was when last looked at."""
        return self._remote.state

    @property
    def session_id(self) -> str:
        """Return its id."""
        return self._remote.session_id

    def open(self) -> SessionState:
        """Open it; `with` does it too."""
        state: SessionState = self._wait_for(self._remote.open())
        return state

    def attach(self, session_id: str) -> SessionState:
        """Take up a session that is open already."""
        state: SessionState = self._wait_for(self._remote.attach(session_id))
        return state

    def refresh(self) -> SessionState:
        """Look at it again."""
        state: SessionState = self._wait_for(self._remote.refresh())
        return state

    def run(self, code: str | None = None, *, context: str | None = None, **more: Any) -> JobResult:
        """Run code to its end with the state that earlier runs left."""
        job: JobResult = self._wait_for(self._remote.run(code, context=context, **more))
        return job

    def interrupt(self) -> bool:
        """Interrupt what runs in it now, from another thread, and tell whether anything ran."""
        return bool(self._wait_for(self._remote.interrupt()))

    def touch(self, *, idle_sec: float | None = None, lifetime_sec: float | None = None) -> SessionState:
        """Begin its idle clock anew, and set the clocks that are given."""
        state: SessionState = self._wait_for(self._remote.touch(idle_sec=idle_sec, lifetime_sec=lifetime_sec))
        return state

    def close(self) -> None:
        """End it, with what runs in it."""
        self._wait_for(self._remote.close())

    def files(self, path: str = "") -> Sequence[SessionFile]:
        """Return what lies directly in a folder of /scratch."""
        found: Sequence[SessionFile] = self._wait_for(self._remote.files(path))
        return found

    def put(self, path: str, contents: str | bytes | Path) -> None:
        """Write a file, in place of what is there."""
        self._wait_for(self._remote.put(path, contents))

    def get(self, path: str) -> bytes:
        """Return a file's bytes."""
        octets: bytes = self._wait_for(self._remote.get(path))
        return octets

    def download(self, path: str, target: BinaryIO) -> None:
        """Copy a file into `target`."""
        self._wait_for(self._remote.download(path, target))

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with everything in it."""
        self._wait_for(self._remote.remove(path))
