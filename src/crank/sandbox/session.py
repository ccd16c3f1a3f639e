"""One sandbox as the worker sees it: frames from a supervisor, turned into output, progress and an outcome.

The supervisor is ours and is trusted; what it forwards came from a stranger and is still bounded here, and
read strictly.
"""

import asyncio
import io
import itertools
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, BinaryIO

from crank import errors
from crank.domain.ids import Digest
from crank.domain.json import JsonObject, JsonValue, dumps, loads_strict
from crank.domain.outcome import NEVER_BEGAN, Artifact, Clock, Denial, End, Outcome, Reason, Skipped, Usage
from crank.domain.profile import Limits
from crank.domain.quantity import KIB
from crank.errors import Conflict, CrankError, InvalidRequest, SandboxError, TooLarge
from crank.ports import CallTaker, FileEntry, OutputSink
from crank.sandbox import artifacts, verdict
from crank.sandbox.channel import Channel
from crank.sandbox.frames import Frame
from crank.sandbox.link import refusal
from crank.sandbox.session_run import SessionRun
from crank.sandbox.spoken import RUN_BYTES_MAX, RUN_HEAD

TIER = "namespaces"
_STOP_SEC = 15.0
_FILE_SEC = 60.0
# Of standard input: what is sent at a time, and what may be under way and not taken yet.
_STDIN_STEP_BYTES = 64 * KIB
_STDIN_WAITING_BYTES = 256 * KIB
# The supervisor keeps the deadlines; this is only for the day when it does not.
_PATIENCE_SEC = 60.0


class NamespaceSession:
    """One sandbox of the tier `namespaces`. Made by NamespaceRunner.open."""

    tier: str = TIER
    # What everybody should know of an outcome here.
    note: str | None = None

    def __init__(self, limits: Limits, *, programs: Sequence[str] = ()) -> None:
        loop = asyncio.get_running_loop()
        self.limits = self._stood_for = limits
        self._programs = frozenset(programs)
        self._lasting = False
        self._doubtful: Callable[[], None] | None = None
        self._ready: asyncio.Future[JsonObject] = loop.create_future()
        self._gone: asyncio.Future[bool] = loop.create_future()
        self._asked: dict[int, asyncio.Future[tuple[JsonObject, int | None]]] = {}
        self._questions = itertools.count(1)
        self._loop = loop
        self._run: SessionRun | None = None
        self._ran = self._stdin = self._died = False
        self.facts: JsonObject = {}
        self.pool_hit = False
        self.setup_sec = 0.0
        self.channel = Channel(limits, take=self._take, lost=self._on_lost)

    # --- frames ---

    def _take(self, frame: Frame) -> None:
        if frame.kind == "R" or (frame.kind == "F" and not self._ready.done()):
            self._set_ready(frame)
        elif frame.kind == "F":
            self._never_began(refusal(loads_strict(frame.payload)))
        elif frame.kind == "C":
            clean = loads_strict(frame.payload)["clean"]
            if not clean:
                self._doubt()
            self._set_gone(clean=clean)
        elif frame.kind == "Y":
            self._answer(loads_strict(frame.payload))
        elif self._run is not None and frame.kind == "Z":
            ended = loads_strict(frame.payload)
            # Known before the word that the tree is gone: whoever has the outcome must not try again.
            self._died = not ended["alive"]
            self._run.ended.set_result(ended)
            self._run.stdin_room.set()
        elif self._run is not None and frame.kind == "Q":
            self._run.begin_call(frame.payload, lambda answer: self.channel.send("a", answer))
        elif self._run is not None:
            self._run.take(frame)

    def _set_ready(self, frame: Frame) -> None:
        if self._ready.done():
            # Whoever waited for it has left.
            return
        if frame.kind == "R":
            self._ready.set_result(loads_strict(frame.payload))
        else:
            self._ready.set_exception(refusal(loads_strict(frame.payload)))

    def _answer(self, answer: JsonObject) -> None:
        door = self.channel.doors.pop(0) if answer["door"] else None
        asked = self._asked.get(answer["number"])
        if asked is not None and not asked.done():
            asked.set_result((answer, door))
        elif door is not None:
            # Whoever asked has left.
            os.close(door)

    def _doubt(self) -> None:
        if self._doubtful is not None:
            self._doubtful()
            self._doubtful = None

    def _never_began(self, fault: SandboxError) -> None:
        # Whether something is left of it is still to be told.
        self._died = True
        if self._run is not None and not self._run.ended.done():
            self._run.ended.set_exception(fault)

    def _set_gone(self, *, clean: bool) -> None:
        if not self._gone.done():
            self._gone.set_result(clean)

    def _on_lost(self) -> None:
        if not self._ready.done():
            fault = SandboxError("The sandbox launcher ended before the sandbox stood.", code="launcher_lost")
            self._ready.set_exception(fault)
        elif not self._gone.done():
            # Its supervisor died without a word: what it left is anybody's guess.
            self._doubt()
        self._set_gone(clean=False)
        for asked in self._asked.values():
            if not asked.done():
                asked.set_result(({"fault": {"kind": "SandboxError", "code": "session_dead", "message": _DEAD}}, None))
        if self._run is not None and not self._run.ended.done():
            self._run.stdin_room.set()
            if self._run.taken:
                self._run.ended.set_result(None)
            else:
                self._run.ended.set_exception(SandboxError(_DIED_WAITING, code=NEVER_BEGAN))

    def tell_doubts(self, to: Callable[[], None]) -> None:
        """Call this, once, if it turns out that something of the session may be left when it is over."""
        self._doubtful = to

    def give(self, limits: Limits, *, lasting: bool, hit: bool, setup_sec: float) -> None:
        """Hand a session over to its job: from now on it has the job's limits, and lasts if it shall."""
        self.limits, self._lasting, self.pool_hit, self.setup_sec = limits, lasting, hit, setup_sec

    async def stand(self) -> None:
        """Wait until the sandbox is proven. Raises SandboxError that names the missing layer."""
        self.facts = await self._ready
        self.setup_sec = self.facts["setup_sec"]

    @property
    def alive(self) -> bool:
        """Tell whether it can still be used."""
        usable = self.channel.is_connected and not self._gone.done() and not self._died
        return usable and (self._lasting or not self._ran)

    @property
    def memory_bytes(self) -> int:
        """Return what it took when it stood ready."""
        return int(self.facts.get("memory_bytes", 0))

    @property
    def layers(self) -> tuple[str, ...]:
        """Return the walls that the guest found standing, and the control group where one counts."""
        found = self.facts.get("proof", {}).get("layers", [])
        return (*found, "cgroup") if self.facts.get("cgroup") else tuple(found)

    # --- files ---

    async def put_file(self, path: str, source: BinaryIO) -> None:
        """Copy a file to /scratch/<path>. Raises InvalidRequest, TooLarge."""
        _, door = await self._ask("put" if self._lasting else "create", path)
        if door is None:
            raise SandboxError(_DEAD, code="session_dead")
        try:
            with os.fdopen(door, "wb") as target:
                await asyncio.to_thread(shutil.copyfileobj, source, target, 1 << 20)
        except OSError as fault:
            raise TooLarge(
                "The files of this job do not fit its disk limit.", code="files_too_large", field="files"
            ) from fault

    async def list_files(self, path: str = "") -> tuple[FileEntry, ...]:
        """Return what lies directly in the folder /scratch/<path>."""
        listed, _ = await self._ask("list", path)
        return tuple(FileEntry(name, kind, size, modified) for name, kind, size, modified in listed)

    async def get_file(self, path: str, target: BinaryIO) -> int:
        """Copy the regular file /scratch/<path> into `target` and return its size in bytes."""
        size, door = await self._ask("get", path)
        if door is None:
            raise SandboxError(_DEAD, code="session_dead")
        with os.fdopen(door, "rb") as source:
            return await asyncio.to_thread(_copy_some, source, target, size)

    async def remove_file(self, path: str) -> None:
        """Remove a file, or a folder with everything in it."""
        await self._ask("remove", path)

    async def _ask(self, operation: str, path: str = "") -> tuple[Any, int | None]:
        """Ask the supervisor about files; return its answer and the descriptor that came with it."""
        if not self.channel.is_connected:
            raise SandboxError(_DEAD, code="session_dead")
        number = next(self._questions)
        asked = self._asked[number] = self._loop.create_future()
        try:
            await self.channel.send("f", dumps({"operation": operation, "path": path, "number": number}).encode())
            async with asyncio.timeout(_FILE_SEC):
                await asyncio.wait([asked])
        except TimeoutError:
            raise SandboxError("The sandbox did not answer about a file.", code="session_dead") from None
        except asyncio.CancelledError:
            if asked.done() and (door := asked.result()[1]) is not None:
                os.close(door)
            raise
        finally:
            del self._asked[number]
        answer, door = asked.result()
        if "fault" in answer:
            fault = answer["fault"]
            kind = getattr(errors, fault["kind"], CrankError)
            raise kind(fault["message"], code=fault["code"], field="path")
        return answer["value"], door

    # --- runs ---

    async def run_python(
        self,
        code: str,
        args: JsonValue,
        sink: OutputSink,
        *,
        context: str = "main",
        limits: Limits | None = None,
        stdin: bool = False,
        calls: CallTaker | None = None,
    ) -> Outcome:
        """Run a script to its end; see SandboxSession.run_python."""
        head: JsonObject = {"context": context, "program": None, "stdin": stdin, "lasting": self._lasting}
        if calls is not None:
            head["handles"] = list(calls.told)
        run = SessionRun(limits or self.limits, sink, calls)
        return await self._run_order(head, code.encode("utf-8"), dumps(args).encode("utf-8"), run)

    async def run_program(
        self, argv: Sequence[str], sink: OutputSink, *, limits: Limits | None = None, stdin: bool = False
    ) -> Outcome:
        """Run one of the profile's programs to its end; see SandboxSession.run_program."""
        if not argv or argv[0] not in self._programs:
            raise InvalidRequest(
                f"The program {argv[0][:80] if argv else ''!r} is not one that this profile lists.",
                code="program_not_listed",
                field="program",
                fix=f"Use one of: {', '.join(sorted(self._programs)) or 'none, this profile lists no programs'}.",
            )
        head: JsonObject = {"context": "main", "program": list(argv), "stdin": stdin, "lasting": self._lasting}
        return await self._run_order(head, b"", b"null", SessionRun(limits or self.limits, sink))

    async def _run_order(self, head: JsonObject, code: bytes, args: bytes, run: SessionRun) -> Outcome:
        if self._run is not None and (not self._lasting or not self._run.ended.done()):
            raise Conflict("This session runs something, or ran all that it may.", code="session_used")
        if not self.alive:
            raise SandboxError(_DEAD, code="session_dead")
        lowered = run.limits if run.limits != self._stood_for else None
        text = dumps({**head, "limits": asdict(lowered) if lowered else None}).encode("utf-8")
        order = RUN_HEAD.pack(len(text), len(code)) + text + code + args
        if len(order) > RUN_BYTES_MAX:
            raise SandboxError("The code and its args are too large for one run.", code="run_too_large")
        self._ran = True
        self._stdin = head["stdin"]
        self._run = run
        run.sent = True
        try:
            await self.channel.send("r", order)
            async with asyncio.timeout(run.limits.wall_sec + _PATIENCE_SEC):
                ended = await asyncio.shield(run.ended)
        except TimeoutError:
            self.channel.close()
            ended = None
        except asyncio.CancelledError:
            run.finish()
            await self._end_now(Reason.CANCELLED)
            raise
        return self._outcome(run, ended)

    async def stop(self, reason: Reason) -> None:
        """End the run and the session now with this reason; the run then returns the partial outcome."""
        await self.channel.send("s", dumps({"reason": reason.value}).encode())

    async def _end_now(self, reason: Reason) -> None:
        await self.stop(reason)
        await asyncio.wait({self._gone}, timeout=_STOP_SEC)

    async def write_stdin(self, chunk: bytes) -> None:
        """Send bytes to the stdin of what runs."""
        self._check_stdin()
        run = self._run
        for start in range(0, len(chunk), _STDIN_STEP_BYTES):
            while run is not None and run.stdin_sent - run.stdin_passed > _STDIN_WAITING_BYTES and not run.ended.done():
                run.stdin_room.clear()
                await run.stdin_room.wait()
            self._check_stdin()
            if run is not self._run or run is None:
                raise Conflict("What took this input has ended.", code="not_running")
            part = chunk[start : start + _STDIN_STEP_BYTES]
            run.stdin_sent += len(part)
            await self.channel.send("i", part)

    async def close_stdin(self) -> None:
        """End the stdin of what runs."""
        self._running()
        if self._stdin:
            self._stdin = False
            await self.channel.send("i", b"")

    async def signal(self, name: str) -> None:
        """Send a signal to the running code."""
        self._running()
        await self.channel.send("k", dumps({"number": int(signal.Signals[name])}).encode())

    def _check_stdin(self) -> None:
        self._running()
        if not self._stdin:
            raise Conflict("The standard input of what runs is empty, or was ended.", code="stdin_closed")

    def _running(self) -> None:
        if self._run is None or not self._run.sent or self._run.ended.done():
            raise Conflict("Nothing runs in this session now.", code="not_running")

    # --- the end ---

    def collect(self, store: Callable[[BinaryIO], Digest], outcome: Outcome) -> Outcome:
        """Return the outcome with the files of /out; blocking, called in a thread after the run, before close."""
        collecting = asyncio.run_coroutine_threadsafe(self._surveyed(), self._loop)
        found = collecting.result()
        if found is None:
            return outcome
        taken: list[Artifact] = []
        skipped = [Skipped(path, cause) for path, cause in found["skipped"]]
        for path, promised in found["files"]:
            try:
                _, door = asyncio.run_coroutine_threadsafe(self._ask("take", path), self._loop).result()
            except CrankError as fault:
                skipped.append(Skipped(path, fault.message))
                continue
            if door is not None:
                source = artifacts.Bounded(door, promised)
                with io.BufferedReader(source) as reader:
                    digest = store(reader)
                    if source.grew():
                        # In a session that lives on, it may be written to; what was counted is what may be taken.
                        skipped.append(Skipped(path, "it grew while it was taken"))
                    else:
                        taken.append(Artifact(path, source.passed_bytes, digest, artifacts.media_type(path)))
        return replace(outcome, artifacts=tuple(taken), skipped=tuple(skipped))

    async def _surveyed(self) -> JsonObject | None:
        """List /out once nobody writes there any more; in a lasting session the tree lives on."""
        if not self._lasting:
            await asyncio.wait({self._gone}, timeout=_STOP_SEC)
        try:
            found, _ = await self._ask("survey")
        except CrankError:
            return None
        survey: JsonObject = found
        return survey

    async def gone(self) -> bool:
        """Wait until the tree is dead, and tell whether nothing of it was left."""
        return await asyncio.shield(self._gone)

    async def close(self) -> None:
        """Kill what is left and free everything. Safe to call twice."""
        if self.channel.is_open and not self._gone.done() and self._run is not None:
            await self._end_now(Reason.CANCELLED)
        self.channel.close()
        self._set_gone(clean=False)
        if not self._ready.done():
            self._ready.cancel()

    def _outcome(self, run: SessionRun, ended: JsonObject | None) -> Outcome:
        run.finish()
        seen = ended["seen"] if ended is not None else [0, 0]
        stdout = run.texts["O"].finish(seen[0], run.tails["o"])
        stderr = run.texts["E"].finish(seen[1], run.tails["e"])
        result, displays = run.hand_over()
        if ended is None:
            end = End(Reason.SANDBOX_FAILED, message="The sandbox was lost while the job ran.")
            return Outcome(end, stdout, stderr, displays=displays, tier=self.tier, layers=self.layers)
        end = verdict.violation_end(run.broken) if run.broken is not None else _end(ended["end"])
        has_result = ended["has_result"] and run.broken is None
        return Outcome(
            end=end,
            stdout=stdout,
            stderr=stderr,
            has_result=has_result,
            result=result if has_result else None,
            displays=displays,
            usage=Usage(
                wall_sec=ended["wall_sec"],
                cpu_sec=ended["cpu_sec"],
                peak_memory_bytes=ended["peak_memory_bytes"],
                setup_sec=self.setup_sec,
                pool_hit=self.pool_hit,
                tasks_peak=ended["tasks_peak"],
            ),
            tier=self.tier,
            layers=self.layers,
            denials=tuple(Denial(**each) for each in ended["denials"]),
            notes=(*ended["notes"], *([self.note] if self.note else [])),
        )


_DEAD = "This sandbox has ended."
_DIED_WAITING = "The sandbox died before it took the job."


def _end(source: JsonObject) -> End:
    clock = source["clock"]
    return replace(
        End(**{**source, "reason": Reason(source["reason"])}), clock=Clock(clock) if clock is not None else None
    )


def _copy_some(source: BinaryIO, target: BinaryIO, size: int) -> int:
    """Copy at most `size` bytes: the file may still grow."""
    copied = 0
    while copied < size and (chunk := source.read(min(1 << 20, size - copied))):
        target.write(chunk)
        copied += len(chunk)
    return copied
