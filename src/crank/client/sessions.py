"""A session seen from a program: run code that shares state, move files, interrupt, close."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import quote

from crank.client.contents import CHUNK_BYTES
from crank.client.link import Link
from crank.client.results import JobResult
from crank.domain.json import JsonObject
from crank.errors import Conflict, ProtocolError


@dataclass(frozen=True, slots=True)
class SessionFile:
    """One thing that lies in a session's /scratch; `kind` is file, folder or other."""

    path: str
    kind: str
    size_bytes: int
    modified_at: str | None = None


@dataclass(frozen=True, slots=True)
class SessionState:
    """A session as the node tells it. `end` says why it ended, once it has; `clocks` when it will."""

    session_id: str
    state: str
    name: str | None = None
    capability: str | None = None
    env_profile: str | None = None
    tier: str | None = None
    worker_id: str | None = None
    running_job_id: str | None = None
    queued_jobs: int = 0
    limits: Mapping[str, Any] = field(default_factory=dict)
    clocks: Mapping[str, Any] = field(default_factory=dict)
    end: Mapping[str, Any] | None = None
    document: JsonObject = field(repr=False, compare=False, default_factory=dict)

    @property
    def ended(self) -> bool:
        """Tell whether it is over."""
        return self.state == "ended"


def parse_session(body: Any) -> SessionState:
    """Read a session document. Raises ProtocolError when it is none."""
    if not isinstance(body, dict) or not isinstance(body.get("session_id"), str) or "state" not in body:
        raise ProtocolError("The node answered something that is not a session.")
    names = set(SessionState.__dataclass_fields__) - {"document"}
    return SessionState(**{name: value for name, value in body.items() if name in names}, document=body)


class AsyncSession:
    """One session of a node. Opened by `async with client.session(…)`, which also closes it."""

    def __init__(self, link: Link, run: Callable[..., Awaitable[JobResult]], wanted: JsonObject) -> None:
        self._link = link
        self._run = run
        self._wanted = wanted
        self._state: SessionState | None = None

    @property
    def state(self) -> SessionState:
        """Return the session as it was when last looked at. Raises Conflict before it was opened."""
        if self._state is None:
            raise Conflict("The session was not opened.", code="session_not_open", fix="Use it as 'async with'.")
        return self._state

    @property
    def session_id(self) -> str:
        """Return its id."""
        return self.state.session_id

    async def __aenter__(self) -> Self:
        if self._state is None:
            await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> SessionState:
        """Open it. Never repeated by itself: a lost answer leaves a session that its idle clock ends.

        Raises InvalidRequest, NotAllowed, Unavailable (`sessions_full`).
        """
        _, document = await self._link.ask("POST", "/v1/sessions", json=self._wanted, retry=False)
        self._state = parse_session(document)
        return self._state

    async def attach(self, session_id: str) -> SessionState:
        """Take up a session that is open already. Raises NotFound."""
        _, document = await self._link.ask("GET", f"/v1/sessions/{quote(session_id, safe='')}")
        self._state = parse_session(document)
        return self._state

    async def refresh(self) -> SessionState:
        """Look at it again."""
        return await self.attach(self.session_id)

    async def run(self, code: str | None = None, *, context: str | None = None, **more: Any) -> JobResult:
        """Run code to its end with the state that earlier runs left; `more` as for `client.run`.

        Raises Conflict (`session_ended`).
        """
        return await self._run(code, session=self.session_id, context=context, **more)

    async def interrupt(self) -> bool:
        """Interrupt what runs in it now, and tell whether anything ran. Its state stays."""
        running = (await self.refresh()).running_job_id
        if running is None:
            return False
        try:
            await self._link.ask("POST", f"/v1/jobs/{quote(running, safe='')}/interrupt", retry=False)
        except Conflict as fault:
            if fault.error_code != "job_not_running":
                raise
            return False
        return True

    async def touch(self, *, idle_sec: float | None = None, lifetime_sec: float | None = None) -> SessionState:
        """Begin its idle clock anew, and set the clocks that are given. Raises Conflict (`session_ended`)."""
        asked = {"idle_sec": idle_sec, "lifetime_sec": lifetime_sec}
        body = {name: value for name, value in asked.items() if value is not None}
        _, document = await self._link.ask("POST", f"/v1/sessions/{self.session_id}/touch", json=body)
        self._state = parse_session(document)
        return self._state

    async def close(self) -> None:
        """End it, with what runs in it. Safe to call twice."""
        if self._state is not None:
            _, document = await self._link.ask("DELETE", f"/v1/sessions/{self.session_id}")
            self._state = parse_session(document)

    # --- files -------------------------------------------------------------------------------

    def _file(self, path: str) -> str:
        return f"/v1/sessions/{self.session_id}/files/{quote(path)}"

    async def files(self, path: str = "") -> Sequence[SessionFile]:
        """Return what lies directly in a folder of /scratch. Raises NotFound."""
        _, document = await self._link.ask("GET", f"/v1/sessions/{self.session_id}/files", params={"path": path})
        return tuple(SessionFile(**entry) for entry in document["files"])

    async def put(self, path: str, contents: str | bytes | Path) -> None:
        """Write a file, in place of what is there. Raises TooLarge."""
        if isinstance(contents, Path):
            contents = await asyncio.to_thread(contents.read_bytes)
        octets = contents.encode("utf-8") if isinstance(contents, str) else contents
        headers = {"Content-Type": "application/octet-stream"}
        await self._link.ask("PUT", self._file(path), content=octets, headers=headers)

    async def get(self, path: str) -> bytes:
        """Return a file's bytes. Raises NotFound."""
        async with self._link.stream("GET", self._file(path)) as answer:
            return b"".join([chunk async for chunk in answer.aiter_bytes(CHUNK_BYTES)])

    async def download(self, path: str, target: BinaryIO) -> None:
        """Copy a file into `target`. Raises NotFound."""
        async with self._link.stream("GET", self._file(path)) as answer:
            async for chunk in answer.aiter_bytes(CHUNK_BYTES):
                await asyncio.to_thread(target.write, chunk)

    async def remove(self, path: str) -> None:
        """Remove a file, or a folder with everything in it. Raises NotFound."""
        await self._link.ask("DELETE", self._file(path), retry=False)
