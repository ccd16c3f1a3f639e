"""The line to the steward of an E2B sandbox: requests go in and events come back, through jobs that carry them.

The steward is a process of the sandbox's session and outlives every job (`crank.sandbox.guest_relay`). While
somebody waits for something, one job of the session is attached to it: its stdin carries our requests, its stdout
the answers. When nobody waits for a while it lets go, so that a resting sandbox holds no slot; after it has carried
a lot, or for long, the next job takes over. A sandbox whose job ends in any other way is lost.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any

import structlog

from crank.controller.box_call import BoxCall, BoxGone, BoxRefused, LineReader
from crank.controller.cancel import cancel
from crank.controller.desk import Desk
from crank.controller.follow import events
from crank.controller.reach import write_stdin
from crank.controller.submit import Submission, submit
from crank.domain.ids import JobId, SessionId, TenantId
from crank.domain.json import JsonObject, loads_strict
from crank.domain.outcome import Reason
from crank.domain.quantity import KIB, MIB
from crank.errors import Conflict, CrankError, NotFound, TooLarge, Unavailable

_log = structlog.get_logger(__name__)

# One request as a line; larger things travel as files of the session.
REQUEST_BYTES_MAX = 2 * MIB
# Events that nobody takes; a reader that is slower than that is let go.
_UNREAD_BYTES_MAX = 16 * MIB
_WAITING_MAX = 256
_WRITE_BYTES = 512 * KIB
# A line of this size is read in a thread.
_LARGE_BYTES = 64 * KIB
# How long a job stays attached when nobody waits for anything.
REST_SEC = 0.5
_AGAIN_SEC = 0.02
_BOOT = """
import sys, types
for name in ("crank", "crank.sandbox"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = []
for name, text in args["modules"].items():
    module = types.ModuleType(f"crank.sandbox.{name}")
    sys.modules[module.__name__] = module
    exec(compile(text, f"<{name}>", "exec"), module.__dict__)
    setattr(sys.modules["crank.sandbox"], name, module)
loaded = sys.modules["crank.sandbox"]
for name in [name for name in sys.modules if name == "crank" or name.startswith("crank.")]:
    del sys.modules[name]
sys.crank_relay = loaded.guest_relay.Relay(loaded.guest_steward.serve)
sys.crank_relay.pump()
"""
_PUMP = "import sys\nsys.crank_relay.pump()\n"


class BoxLine:
    """Requests to one steward. Made when its session stands; ends with it."""

    def __init__(
        self, desk: Desk, tenant: TenantId, session_id: SessionId, modules: Mapping[str, str], *, booted: bool = False
    ) -> None:
        """Take the texts of the steward's modules, in the order in which they import each other.

        booted  the steward runs already: an earlier controller started it
        """
        self._desk = desk
        self._tenant = tenant
        self._session_id = session_id
        self._modules = modules
        self._calls: dict[int, BoxCall] = {}
        self._outbox: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._driving: asyncio.Task[None] | None = None
        self._number = 0
        self._booted = booted
        self._turning = False
        self.gone = False

    # --- for those who ask ---

    async def ask(self, verb: str, **fields: Any) -> JsonObject:
        """Make a request and return its answer. Raises BoxRefused, BoxGone, TooLarge, Unavailable."""
        number, call = self._send(verb, fields)
        try:
            while call.done is None:
                if call.fault is not None:
                    raise call.fault
                call.changed.clear()
                await call.changed.wait()
            return call.done
        finally:
            self._forget(number, call)

    async def stream(self, verb: str, **fields: Any) -> AsyncIterator[JsonObject]:
        """Make a request and yield its events until it is done. Closing the iterator lets it go. Raises as `ask`."""
        number, call = self._send(verb, fields)
        try:
            while True:
                call.changed.clear()
                while call.events:
                    event, size = call.events.popleft()
                    call.bytes -= size
                    yield event
                if call.fault is not None:
                    raise call.fault
                if call.done is not None:
                    return
                await call.changed.wait()
        finally:
            self._forget(number, call)

    def _send(self, verb: str, fields: JsonObject) -> tuple[int, BoxCall]:
        if self.gone:
            raise BoxGone
        if len(self._calls) >= _WAITING_MAX:
            raise Unavailable("Too many requests wait for this sandbox.", code="sandbox_busy")
        self._number += 1
        line = json.dumps({"id": self._number, "op": verb, **fields}, separators=(",", ":")).encode() + b"\n"
        if len(line) > REQUEST_BYTES_MAX:
            raise TooLarge(f"A request is at most {REQUEST_BYTES_MAX} bytes.", code="request_too_large")
        call = self._calls[self._number] = BoxCall()
        self._post(line)
        return self._number, call

    def _post(self, line: bytes) -> None:
        self._outbox.append(line)
        self._wake.set()
        if self._driving is None or self._driving.done():
            self._driving = asyncio.create_task(self._drive(), name=f"e2b {self._session_id}")

    def _forget(self, number: int, call: BoxCall) -> None:
        self._calls.pop(number, None)
        if call.done is None and call.fault is None and not self.gone:
            # Whoever asked went away: what it started to hear is interrupted or let go.
            self._post(json.dumps({"id": number, "op": "drop"}).encode() + b"\n")
        self._wake.set()

    async def close(self) -> None:
        """Answer everybody who still waits; the session is ended by its owner."""
        self._end()
        if self._driving is not None:
            self._driving.cancel()
            await asyncio.gather(self._driving, return_exceptions=True)

    # --- jobs that carry ---

    async def _drive(self) -> None:
        try:
            while self._calls or self._outbox:
                if not await self._carry():
                    self._end()
                    return
        except (CrankError, OSError) as fault:
            if isinstance(fault, Conflict | NotFound):
                self._end()
                return
            _log.warning("e2b.line_failed", session=self._session_id, cause=str(fault))
            self._fail(fault)
        except Exception as fault:
            _log.exception("e2b.line_defect", session=self._session_id)
            self._fail(fault)
            raise

    def _fail(self, fault: Exception) -> None:
        self._outbox.clear()
        for call in self._calls.values():
            call.fault = fault
            call.changed.set()

    def _end(self) -> None:
        self.gone = True
        self._fail(BoxGone())

    async def _carry(self) -> bool:
        """Run one job that carries lines; tell whether the steward lives on."""
        fields: JsonObject = {
            "code": _PUMP if self._booted else _BOOT,
            "session": self._session_id,
            "stdin": True,
            "effects": "external",
        }
        if not self._booted:
            fields["args"] = {"modules": dict(self._modules)}
        submitted = await submit(self._desk, tenant=self._tenant, subject="e2b", submission=Submission(fields))
        job_id = submitted.job.job_id
        self._turning = False
        writing: asyncio.Task[None] | None = None
        lines = LineReader()
        try:
            async for _, kind, body in events(self._desk, tenant=self._tenant, job_id=job_id, after=0):
                if kind == "status" and body["status"] == "running" and writing is None:
                    writing = asyncio.create_task(self._write(job_id), name=f"e2b write {job_id}")
                elif kind == "stdout":
                    for line in lines.feed(body["text"]):
                        await self._hear(line)
                elif kind == "end":
                    end = body["end"] or {}
                    self._booted = True
                    if writing is not None and writing.done() and not writing.cancelled() and writing.exception():
                        _log.warning("e2b.write_failed", job=job_id, cause=str(writing.exception()))
                    return bool(end.get("reason") == Reason.EXITED and end.get("exit_code", 0) in (0, None))
        except asyncio.CancelledError:
            await asyncio.shield(self._leave(job_id))
            raise
        finally:
            if writing is not None:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
        return False

    async def _leave(self, job_id: JobId) -> None:
        with contextlib.suppress(CrankError):
            await cancel(self._desk, tenant=self._tenant, subject="e2b", job_id=job_id)

    async def _write(self, job_id: JobId) -> None:
        """Write what waits to the job's stdin, and end it when nobody waits any more or a turn is due."""
        offset_bytes = 0
        while True:
            chunk = b"" if self._turning else self._take()
            end = self._turning or (not chunk and not await self._is_needed())
            if not chunk and not end:
                continue
            offset_bytes = await self._write_all(job_id, chunk, offset_bytes, end=end)
            if end:
                return

    def _take(self) -> bytes:
        parts, size = [], 0
        while (
            self._outbox
            and size + len(self._outbox[0]) <= max(_WRITE_BYTES, len(self._outbox[0]))
            and size < _WRITE_BYTES
        ):
            parts.append(self._outbox.popleft())
            size += len(parts[-1])
        return b"".join(parts)

    async def _is_needed(self) -> bool:
        """Wait for something to write; tell whether somebody still waits for something."""
        self._wake.clear()
        if self._outbox or self._turning:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if self._calls else REST_SEC):
                await self._wake.wait()
        return bool(self._calls or self._outbox)

    async def _write_all(self, job_id: JobId, chunk: bytes, offset_bytes: int, *, end: bool) -> int:
        pieces = [chunk[at : at + MIB] for at in range(0, len(chunk), MIB)] or [b""]
        for position, piece in enumerate(pieces):
            last = end and position == len(pieces) - 1
            while True:
                try:
                    await write_stdin(
                        self._desk, piece, tenant=self._tenant, job_id=job_id, offset_bytes=offset_bytes, end=last
                    )
                    break
                except Unavailable as fault:
                    if fault.error_code not in ("stdin_full", "worker_busy", "worker_slow"):
                        raise
                    await asyncio.sleep(_AGAIN_SEC)
            offset_bytes += len(piece)
        return offset_bytes

    async def _hear(self, line: str) -> None:
        """Take one line of the steward. It came from a sandbox: what is not of the agreed shape is dropped."""
        octets = line.encode("utf-8", "surrogatepass")
        try:
            # A result of megabytes takes seconds to read, and others have the loop to themselves meanwhile.
            word = loads_strict(octets) if len(octets) < _LARGE_BYTES else await asyncio.to_thread(loads_strict, octets)
        except CrankError:
            return
        if not isinstance(word, dict):
            return
        if word.get("turn") is True:
            self._turning = True
            self._wake.set()
            return
        number = word.get("id")
        call = self._calls.get(number) if isinstance(number, int) else None
        if call is None:
            return
        await self._note(call, word, len(line))

    async def _note(self, call: BoxCall, word: JsonObject, size: int) -> None:
        if isinstance(word.get("part"), str):
            await self._join(call, word["part"], last=word.get("last") is True)
            return
        if isinstance(word.get("error"), dict):
            call.fault = BoxRefused(str(word["error"].get("code")), str(word["error"].get("message"))[:4000])
        elif isinstance(word.get("event"), dict):
            call.events.append((word["event"], size))
            call.bytes += size
            if call.bytes > _UNREAD_BYTES_MAX:
                call.fault = BoxRefused("resource_exhausted", "the client does not read what it asked for")
        elif isinstance(word.get("done"), dict):
            call.done = word["done"]
        call.changed.set()

    async def _join(self, call: BoxCall, part: str, *, last: bool) -> None:
        call.parts.append(part)
        call.bytes += len(part)
        if call.bytes > _UNREAD_BYTES_MAX:
            call.fault = BoxRefused("resource_exhausted", "one result is larger than a client may be sent")
            call.changed.set()
        elif last:
            whole = "".join(call.parts)
            call.parts.clear()
            call.bytes -= len(whole)
            await self._hear(whole)
