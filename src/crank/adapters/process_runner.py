"""Runs a worker author's function in a fresh process (tier `process`): apart from the worker, not sandboxed.

The author is trusted as the node's owner trusts any program they install; what a call gets is a process of
its own, a deadline that kills its whole process group, bounded output and an environment without surprises.
"""

import asyncio
import codecs
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from crank.domain.json import JsonObject, JsonValue, dumps, loads_strict
from crank.domain.outcome import Clock as WhichClock
from crank.domain.outcome import End, Outcome, Reason, Stream, Usage
from crank.errors import InvalidRequest, SandboxError
from crank.ports import FunctionSpec, OutputSink

TIER = "process"
_CHUNK_BYTES = 65_536
# Room for the answer's own fields beside the result.
_ANSWER_EXTRA_BYTES = 16 * 1024
_GRACE_SEC = 5.0


class ProcessRunner:
    """The FunctionRunner port on child processes of one interpreter.

    python       interpreter that has Crank and the author's module; this one by default
    directory    where the author's module is found and calls run; the current one by default
    environment  everything that a call sees of the environment, beside where modules are found: there a
                 call looks where this process looks, so what could be declared can be called
    monotonic    seconds that never go back
    """

    tier = TIER

    def __init__(
        self,
        *,
        python: str = sys.executable,
        directory: Path = Path(),
        environment: Mapping[str, str] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._python = python
        self._directory = directory.absolute()
        found_in = os.pathsep.join(entry for entry in sys.path if entry)
        own = {"PYTHONUNBUFFERED": "1", "LANG": "C.UTF-8", "PYTHONPATH": found_in}
        self._environment = {**own, **(environment or {})}
        self._now_sec = monotonic

    async def open(self, spec: FunctionSpec) -> "ProcessCall":
        """Prepare one call; its process starts with `run`."""
        return ProcessCall(spec, self._python, self._directory, self._environment, self._now_sec)


class ProcessCall:
    """One call in one process group."""

    tier = TIER

    def __init__(
        self,
        spec: FunctionSpec,
        python: str,
        directory: Path,
        environment: Mapping[str, str],
        now_sec: Callable[[], float],
    ) -> None:
        self._spec = spec
        self._python = python
        self._directory = directory
        self._environment = dict(environment)
        self._now_sec = now_sec
        self._process: asyncio.subprocess.Process | None = None
        self._stopped: End | None = None

    async def run(self, args: JsonValue, sink: OutputSink) -> Outcome:
        """Run the function to its end, its deadline, or `stop`. Raises SandboxError when no process starts."""
        begun_sec = self._now_sec()
        answer_from, answer_to = os.pipe()
        try:
            process = await self._start(answer_to)
        except BaseException:
            os.close(answer_from)
            raise
        finally:
            os.close(answer_to)
        limits = self._spec.limits
        streams = {name: _Output(self, name, sink, begun_sec, self._now_sec) for name in ("stdout", "stderr")}
        setup_sec = self._now_sec() - begun_sec
        answer = asyncio.create_task(_read_answer(answer_from, limits.result_bytes + _ANSWER_EXTRA_BYTES))
        try:
            try:
                async with asyncio.timeout(limits.wall_sec):
                    await _order(process, args, self._spec.memory_bytes)
                    raw = await self._watch(process, streams, answer)
            except TimeoutError:
                self._kill(End(Reason.TIMEOUT, clock=WhichClock.WALL, message="It passed its wall clock deadline."))
                raw = await _after_kill(answer)
        finally:
            await asyncio.shield(self._reap(process, streams, answer))
        wall_sec = self._now_sec() - begun_sec
        return self._outcome(process, streams, raw, Usage(wall_sec=wall_sec, setup_sec=setup_sec))

    async def stop(self, reason: Reason) -> None:
        """Kill the process group; `run` returns what there is, with this reason."""
        self._kill(End(reason))

    async def close(self) -> None:
        """Kill what is left."""
        self._kill(End(Reason.CANCELLED))

    def flooded(self, seen_bytes: int) -> None:
        """End the call when its streams together passed their ceiling."""
        if seen_bytes > self._spec.limits.output_flood_bytes:
            self._kill(End(Reason.OUTPUT, message="It wrote more output than a job may."))

    @property
    def output_bytes(self) -> int:
        """Return how many bytes of each stream are kept."""
        return self._spec.limits.output_bytes

    async def _start(self, answer_to: int) -> asyncio.subprocess.Process:
        if self._stopped is not None:
            raise SandboxError("The call was stopped before its process started.", code="stopped")
        arguments = ["-m", "crank.worker.call", self._spec.target, self._spec.capability, str(answer_to)]
        try:
            self._process = await asyncio.create_subprocess_exec(
                self._python,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=self._directory,
                env=self._environment,
                pass_fds=(answer_to,),
                start_new_session=True,
            )
        except OSError as fault:
            raise SandboxError(
                f"The process of a call cannot start: {fault.strerror}.", code="no_process", detail=str(fault)
            ) from fault
        return self._process

    async def _watch(
        self, process: asyncio.subprocess.Process, streams: Mapping[str, "_Output"], answer: "asyncio.Task[bytes]"
    ) -> bytes:
        assert process.stdout is not None
        assert process.stderr is not None
        reading = [
            asyncio.create_task(streams["stdout"].follow(process.stdout)),
            asyncio.create_task(streams["stderr"].follow(process.stderr)),
        ]
        try:
            # The answer is the end of the call: a child that the author left behind holds nothing up.
            raw = await answer
            await process.wait()
            self._kill_group(process.pid)
            await asyncio.wait(reading, timeout=_GRACE_SEC)
        finally:
            for one in reading:
                one.cancel()
            await asyncio.wait(reading)
        return raw

    def _kill(self, end: End) -> None:
        if self._stopped is None:
            self._stopped = end
        if self._process is not None and self._process.returncode is None:
            self._kill_group(self._process.pid)

    @staticmethod
    def _kill_group(pid: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)

    async def _reap(
        self, process: asyncio.subprocess.Process, streams: Mapping[str, "_Output"], answer: "asyncio.Task[bytes]"
    ) -> None:
        self._kill_group(process.pid)
        await process.wait()
        if process.stdin is not None:
            process.stdin.close()
        answer.cancel()
        await asyncio.wait([answer])
        for stream in streams.values():
            stream.end()

    def _outcome(
        self, process: asyncio.subprocess.Process, streams: Mapping[str, "_Output"], raw: bytes, usage: Usage
    ) -> Outcome:
        stdout, stderr = streams["stdout"].kept(), streams["stderr"].kept()
        plain = Outcome(End(Reason.EXITED), stdout, stderr, usage=usage, tier=TIER)
        if self._stopped is not None and not raw:
            return _with(plain, self._stopped)
        if not raw:
            return _with(plain, _died(process.returncode))
        try:
            document = loads_strict(raw, depth_max=128)
            return _answered(plain, document, self._spec.limits.result_bytes)
        except (InvalidRequest, KeyError, TypeError, ValueError):
            message = "The call's own process gave no proper answer."
            return _with(plain, End(Reason.PROTOCOL_VIOLATION, code="bad_answer", message=message))


class _Output:
    """One stream of a call: all of it goes to the sink, head and tail are kept."""

    def __init__(
        self, owner: ProcessCall, name: str, sink: OutputSink, begun_sec: float, now_sec: Callable[[], float]
    ) -> None:
        self._owner = owner
        self._name = name
        self._sink = sink
        self._begun_sec = begun_sec
        self._now_sec = now_sec
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._seen_bytes = 0
        self._head = bytearray()
        self._tail = bytearray()

    async def follow(self, source: asyncio.StreamReader) -> None:
        """Read to the end of the stream."""
        while chunk := await source.read(_CHUNK_BYTES):
            self._tell(self._decoder.decode(chunk), self._seen_bytes)
            self._seen_bytes += len(chunk)
            room = self._owner.output_bytes - self._owner.output_bytes // 2 - len(self._head)
            self._head += chunk[:room] if room > 0 else b""
            self._tail += chunk[max(room, 0) :]
            del self._tail[: max(0, len(self._tail) - self._owner.output_bytes // 2)]
            self._owner.flooded(self._seen_bytes)

    def end(self) -> None:
        """Tell what an unfinished character left."""
        self._tell(self._decoder.decode(b"", final=True), self._seen_bytes)

    def kept(self) -> Stream:
        """Return what was kept, with a marker line where bytes were cut."""
        kept_bytes = len(self._head) + len(self._tail)
        dropped = self._seen_bytes - kept_bytes
        marker = f"\n[{dropped} bytes cut]\n" if dropped else ""
        text = self._head.decode("utf-8", "replace") + marker + self._tail.decode("utf-8", "replace")
        if not dropped:
            text = bytes(self._head + self._tail).decode("utf-8", "replace")
        return Stream(text=text, seen_bytes=self._seen_bytes, kept_bytes=kept_bytes)

    def _tell(self, text: str, offset_bytes: int) -> None:
        if text:
            self._sink.output(self._name, text, offset_bytes, self._now_sec() - self._begun_sec)


async def _order(process: asyncio.subprocess.Process, args: JsonValue, memory_bytes: int | None) -> None:
    assert process.stdin is not None
    process.stdin.write(dumps({"args": args, "memory_bytes": memory_bytes}).encode() + b"\n")
    with suppress(ConnectionError):
        await process.stdin.drain()


async def _read_answer(answer_from: int, bytes_max: int) -> bytes:
    """Read to the end of the pipe; an answer over its bound is cut, and so is not JSON any more."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    pipe = os.fdopen(answer_from, "rb", buffering=0)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    raw = bytearray()
    try:
        while chunk := await reader.read(_CHUNK_BYTES):
            raw += chunk
            if raw.endswith(b"\n"):
                break
            if len(raw) > bytes_max:
                raise ValueError("the answer is too large")
        return bytes(raw)
    except ValueError:
        return b"too large"
    finally:
        transport.close()


async def _after_kill(answer: "asyncio.Task[bytes]") -> bytes:
    # The deadline decides, even where an answer was on its way.
    answer.cancel()
    await asyncio.wait([answer])
    return b""


def _died(status: int | None) -> End:
    if status is not None and status < 0:
        name = signal.Signals(-status).name
        return End(Reason.SIGNALLED, signal=name, message=f"The call's process was ended by {name}.")
    return End(Reason.EXITED, exit_code=status, code="no_answer", message="The call's process left without an answer.")


def _with(plain: Outcome, end: End) -> Outcome:
    return Outcome(end, plain.stdout, plain.stderr, usage=plain.usage, tier=plain.tier)


def _answered(plain: Outcome, document: JsonObject, result_bytes: int) -> Outcome:
    end = End(
        Reason(document["reason"]),
        exit_code=document.get("exit_code"),
        code=document.get("code"),
        message=document.get("message"),
    )
    has_result = bool(document.get("has_result"))
    result = document.get("result")
    if has_result and len(dumps(result).encode()) > result_bytes:
        message = f"The result is larger than {result_bytes} bytes."
        end, has_result, result = End(Reason.RAISED, exit_code=1, code="invalid_result", message=message), False, None
    usage = Usage(
        wall_sec=plain.usage.wall_sec,
        cpu_sec=float(document["cpu_sec"]),
        peak_memory_bytes=int(document["peak_bytes"]),
        setup_sec=plain.usage.setup_sec,
    )
    return Outcome(end, plain.stdout, plain.stderr, has_result=has_result, result=result, usage=usage, tier=plain.tier)
