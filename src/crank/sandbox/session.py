"""One sandbox as the worker sees it: frames from a supervisor, turned into output, progress and an outcome.

The supervisor is ours and is trusted; what it forwards came from a stranger and is still bounded here.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, BinaryIO, NoReturn

from crank.domain.ids import Digest
from crank.domain.json import JsonValue, dumps, loads_strict
from crank.domain.outcome import Clock, End, Outcome, Reason, Usage
from crank.domain.profile import Limits
from crank.domain.quantity import KIB
from crank.errors import NotSupported, SandboxError
from crank.ports import FileEntry, OutputSink
from crank.sandbox import artifacts
from crank.sandbox.frames import Frame, FrameReader, encode
from crank.sandbox.ledger import StreamText
from crank.sandbox.link import refusal
from crank.sandbox.supervisor import OUTPUT_HEAD, RUN_BYTES_MAX

TIER = "namespaces"
_CHUNK = 256 * KIB
_DOORS = 2
_STOP_SEC = 15.0
# The supervisor keeps the deadlines; this is only for the day when it does not.
_PATIENCE_SEC = 60.0


def _kinds(limits: Limits) -> dict[str, int]:
    rich = limits.result_bytes + 64 * KIB
    output = 64 * KIB + OUTPUT_HEAD.size
    small = 256 * KIB
    return {"R": small, "F": small, "O": output, "E": output, "o": output, "e": output} | {
        "G": small,
        "D": rich,
        "V": 2 * rich,
        "Z": small,
    }


class Channel:
    """The worker's end of one session: receives in the event loop, hands each frame on."""

    def __init__(self, limits: Limits, *, take: Callable[[Frame], None], lost: Callable[[], None]) -> None:
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        self._socket = ours
        self._reader = FrameReader(_kinds(limits))
        self._take = take
        self._lost = lost
        self._sending = asyncio.Lock()
        self.doors: list[int] = []
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(ours.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        try:
            chunk, doors, _, _ = socket.recv_fds(self._socket, _CHUNK, _DOORS, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            chunk, doors = b"", []
        self.doors += doors
        if not chunk:
            self._loop.remove_reader(self._socket.fileno())
            self._lost()
            return
        for frame in self._reader.feed(chunk):
            self._take(frame)

    async def send(self, kind: str, payload: bytes) -> None:
        """Send one frame, whole. Does nothing when the other side is gone; that is told by `lost`."""
        async with self._sending:
            try:
                await self._loop.sock_sendall(self._socket, encode(kind, payload))
            except OSError:
                return

    @property
    def is_open(self) -> bool:
        """Tell whether it was not closed yet."""
        return self._socket.fileno() >= 0

    def close(self) -> None:
        """Close everything; the supervisor reads it as the end of the session. Safe to call twice."""
        if self.is_open:
            self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self.theirs.close()
        while self.doors:
            os.close(self.doors.pop())


class NamespaceSession:
    """One sandbox of the tier `namespaces`. Made by NamespaceRunner.open."""

    tier = TIER

    def __init__(self, limits: Limits) -> None:
        loop = asyncio.get_running_loop()
        self._limits = limits
        self._ready: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._ended: asyncio.Future[dict[str, Any] | None] = loop.create_future()
        self._texts = {"O": StreamText(limits.output_bytes), "E": StreamText(limits.output_bytes)}
        self._tails = {"o": b"", "e": b""}
        self._displays: list[JsonValue] = []
        self._result: JsonValue = None
        self._sink: OutputSink | None = None
        self._at_sec = 0.0
        self._ran = False
        self.channel = Channel(limits, take=self._take, lost=self._on_lost)
        self.facts: dict[str, Any] = {}

    # --- frames ---

    def _take(self, frame: Frame) -> None:
        match frame.kind:
            case "O" | "E":
                self._take_output(frame.kind, frame.payload)
            case "o" | "e":
                self._tails[frame.kind] = frame.payload
            case "G" if self._sink is not None:
                told = loads_strict(frame.payload)
                self._sink.progress(told["fraction"], told["message"])
            case "D":
                self._displays.append(loads_strict(frame.payload))
            case "V":
                self._result = loads_strict(frame.payload)
            case "R" if not self._ready.done():
                self._ready.set_result(loads_strict(frame.payload))
            case "F" if not self._ready.done():
                self._ready.set_exception(refusal(loads_strict(frame.payload)))
            case "Z" if not self._ended.done():
                self._ended.set_result(loads_strict(frame.payload))

    def _take_output(self, kind: str, payload: bytes) -> None:
        _, self._at_sec = OUTPUT_HEAD.unpack_from(payload)
        text, offset = self._texts[kind].feed(payload[OUTPUT_HEAD.size :])
        self._emit(kind, text, offset)

    def _emit(self, kind: str, text: str, offset: int) -> None:
        if text and self._sink is not None:
            self._sink.output("stdout" if kind == "O" else "stderr", text, offset, self._at_sec)

    def _on_lost(self) -> None:
        if not self._ready.done():
            self._ready.set_exception(
                SandboxError("The sandbox launcher ended before the sandbox stood.", code="launcher_lost")
            )
        if not self._ended.done():
            self._ended.set_result(None)

    async def stand(self) -> None:
        """Wait until the sandbox is proven. Raises SandboxError that names the missing layer."""
        self.facts = await self._ready

    # --- the port ---

    async def put_file(self, path: str, source: BinaryIO) -> None:
        """Copy a file to /scratch/<path> before the run. Raises InvalidRequest, TooLarge."""
        if self._ran:
            raise NotSupported("Files are put before the run.", code="not_supported", field="files")
        owner = artifacts.Owner(self.facts["uid"], self.facts["gid"]) if self.facts["privileged"] else None
        await asyncio.to_thread(artifacts.put_file, self.channel.doors[0], path, source, owner)

    @property
    def alive(self) -> bool:
        """Tell whether it can still be used; a session of this tier ends with its run."""
        return self.channel.is_open and not self._ended.done()

    async def list_files(self, path: str = "") -> tuple[FileEntry, ...]:
        """Not in this version."""
        _not_yet("list_files")

    async def get_file(self, path: str, target: BinaryIO) -> int:
        """Not in this version."""
        _not_yet("get_file")

    async def remove_file(self, path: str) -> None:
        """Not in this version."""
        _not_yet("remove_file")

    async def run_python(
        self,
        code: str,
        args: JsonValue,
        sink: OutputSink,
        *,
        context: str = "main",
        limits: Limits | None = None,
        stdin: bool = False,
    ) -> Outcome:
        """Run a script to its end; see SandboxSession.run_python. A session of this tier runs once."""
        if self._ran:
            raise NotSupported("A session runs one script in this version.", code="not_supported")
        order = dumps({"code": code, "args": args}).encode("utf-8")
        if len(order) > RUN_BYTES_MAX:
            raise SandboxError("The code and its args are too large for one run.", code="run_too_large")
        self._ran = True
        self._sink = sink
        # Shielded: half a frame would leave the channel unusable for the order to stop.
        sending = asyncio.ensure_future(self.channel.send("r", order))
        try:
            await asyncio.shield(sending)
            ended = await asyncio.wait_for(asyncio.shield(self._ended), self._limits.wall_sec + _PATIENCE_SEC)
        except TimeoutError:
            self.channel.close()
            ended = None
        except asyncio.CancelledError:
            await sending
            await self._end_now(Reason.CANCELLED)
            raise
        return self._outcome(ended)

    async def stop(self, reason: Reason) -> None:
        """End the run now with this reason; run_python then returns the partial outcome."""
        await self.channel.send("s", dumps({"reason": reason.value}).encode())

    async def _end_now(self, reason: Reason) -> None:
        await self.stop(reason)
        await asyncio.wait({self._ended}, timeout=_STOP_SEC)

    async def run_program(
        self, argv: Sequence[str], sink: OutputSink, *, limits: Limits | None = None, stdin: bool = False
    ) -> Outcome:
        """Not in this version."""
        _not_yet("run_program")

    async def write_stdin(self, chunk: bytes) -> None:
        """Not in this version: a job's stdin is empty."""
        _not_yet("write_stdin")

    async def close_stdin(self) -> None:
        """Not in this version: a job's stdin is empty."""
        _not_yet("close_stdin")

    async def signal(self, name: str) -> None:
        """Not in this version; `stop` ends a run."""
        _not_yet("signal")

    def collect(self, store: Callable[[BinaryIO], Digest], outcome: Outcome) -> Outcome:
        """Return the outcome with the files of /out; blocking, after the run, before close."""
        if not self._ended.done() or len(self.channel.doors) < _DOORS:
            return outcome
        taken, skipped = artifacts.collect(self.channel.doors[1], self._limits, store)
        return replace(outcome, artifacts=taken, skipped=skipped)

    async def close(self) -> None:
        """Kill what is left and free everything. Safe to call twice."""
        if not self._ended.done():
            await self._end_now(Reason.CANCELLED)
        self.channel.close()
        if not self._ready.done():
            self._ready.cancel()

    # --- the end ---

    def _outcome(self, ended: dict[str, Any] | None) -> Outcome:
        for kind, text in self._texts.items():
            rest, offset = text.rest()
            self._emit(kind, rest, offset)
        seen = ended["seen"] if ended is not None else [0, 0]
        stdout = self._texts["O"].finish(seen[0], self._tails["o"])
        stderr = self._texts["E"].finish(seen[1], self._tails["e"])
        if ended is None:
            end = End(Reason.SANDBOX_FAILED, message="The sandbox was lost while the job ran.")
            return Outcome(end, stdout, stderr, displays=tuple(self._displays), tier=self.tier)
        return Outcome(
            end=_end(ended["end"]),
            stdout=stdout,
            stderr=stderr,
            has_result=ended["has_result"],
            result=self._result if ended["has_result"] else None,
            displays=tuple(self._displays),
            usage=Usage(
                wall_sec=ended["wall_sec"],
                cpu_sec=ended["cpu_sec"],
                peak_memory_bytes=ended["peak_memory_bytes"],
                setup_sec=self.facts.get("setup_sec", 0.0),
            ),
            tier=self.tier,
            notes=tuple(ended["denials"]),
        )


def _end(source: dict[str, Any]) -> End:
    clock = source["clock"]
    return replace(
        End(**{**source, "reason": Reason(source["reason"])}), clock=Clock(clock) if clock is not None else None
    )


def _not_yet(operation: str) -> NoReturn:
    raise NotSupported(f"{operation} is not part of this version of the sandbox.", code="not_supported")
