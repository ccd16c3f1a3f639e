"""A sandbox that runs nothing: a test says what each script does, and holds it where it wants.

The `code` of a job names its script; a script is an async function of a `Stage`.
"""

import asyncio
import io
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import BinaryIO

from crank.domain.ids import Digest
from crank.domain.json import JsonValue
from crank.domain.outcome import Artifact, End, Outcome, Reason, Stream
from crank.domain.profile import Limits
from crank.errors import NotSupported, SandboxError
from crank.ports import CallTaker, FileEntry, OutputSink, PoolCount, SandboxSession, SandboxSpec

TIER = "none"


class Stage:
    """What a script acts on: args and files come in, output and files go out."""

    def __init__(self, args: JsonValue, files: Mapping[str, bytes], sink: OutputSink) -> None:
        self.args = args
        self.files = files
        self.out: dict[str, bytes] = {}
        self.result: JsonValue = None
        self.text = ""
        self._sink = sink

    async def write(self, text: str) -> None:
        """Print text to stdout."""
        self._sink.output("stdout", text, len(self.text.encode()), len(self.text) / 1000)
        self.text += text
        await asyncio.sleep(0)

    def progress(self, fraction: float, message: str) -> None:
        """Tell of progress."""
        self._sink.progress(fraction, message)


Script = Callable[[Stage], Awaitable[None]]


class FakeSandbox:
    """The SandboxRunner port on scripts. `opened` keeps every session for the test to look at."""

    tier = TIER

    def __init__(self, scripts: Mapping[str, Script], *, fault: SandboxError | None = None) -> None:
        self._scripts = dict(scripts)
        self._fault = fault
        self.opened: list[FakeSession] = []
        self.pooled: tuple[PoolCount, ...] = ()
        self.runs: list[str] = []

    async def start(self) -> None:
        """Nothing needs proof here."""

    def pools(self) -> tuple[PoolCount, ...]:
        """Return what a test put into `pooled`."""
        return self.pooled

    async def open(self, spec: SandboxSpec) -> SandboxSession:
        """Open a session, or raise the fault that was given."""
        await asyncio.sleep(0)
        if self._fault is not None:
            raise self._fault
        session = FakeSession(self, spec, self._scripts)
        self.opened.append(session)
        return session

    async def stop(self) -> None:
        """Close every session."""
        for session in self.opened:
            await session.close()


class FakeSession:
    """The SandboxSession port on one script."""

    tier = TIER

    def __init__(self, owner: FakeSandbox, spec: SandboxSpec, scripts: Mapping[str, Script]) -> None:
        self._owner = owner
        self._scripts = scripts
        self._running: asyncio.Future[None] | None = None
        self._reason: Reason | None = None
        self.spec = spec
        self.files: dict[str, bytes] = {}
        self.out: dict[str, bytes] = {}
        self.closed = False

    async def put_file(self, path: str, source: BinaryIO) -> None:
        """Keep a file for the script."""
        self.files[path] = source.read()

    @property
    def alive(self) -> bool:
        """Tell whether it can still be used."""
        return not self.closed

    async def list_files(self, path: str = "") -> tuple[FileEntry, ...]:
        """Nothing here lasts."""
        raise NotSupported("This sandbox keeps no files.")

    async def get_file(self, path: str, target: BinaryIO) -> int:
        """Nothing here lasts."""
        raise NotSupported("This sandbox keeps no files.")

    async def remove_file(self, path: str) -> None:
        """Nothing here lasts."""
        raise NotSupported("This sandbox keeps no files.")

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
        """Run the script that `code` names."""
        self._owner.runs.append(code)
        stage = Stage(args, self.files, sink)
        self._running = asyncio.ensure_future(self._scripts[code](stage))
        try:
            await asyncio.wait([self._running])
        except asyncio.CancelledError:
            self._running.cancel()
            raise
        self.out = stage.out
        seen = len(stage.text.encode())
        plain = Outcome(End(Reason.EXITED, exit_code=0), stdout=Stream(stage.text, seen, seen), tier=TIER)
        if self._running.cancelled():
            return replace(plain, end=End(self._reason or Reason.CANCELLED))
        fault = self._running.exception()
        if isinstance(fault, SandboxError):
            raise fault
        if fault is not None:
            return replace(plain, end=End(Reason.RAISED, exit_code=1, message=str(fault)))
        return replace(plain, has_result=stage.result is not None, result=stage.result)

    async def run_program(
        self, argv: Sequence[str], sink: OutputSink, *, limits: Limits | None = None, stdin: bool = False
    ) -> Outcome:
        """There are no programs here."""
        raise NotSupported("A fake sandbox runs no program.")

    async def stop(self, reason: Reason) -> None:
        """End the script now."""
        self._reason = reason
        if self._running is not None:
            self._running.cancel()

    async def write_stdin(self, chunk: bytes) -> None:
        """There is no stdin here."""
        raise NotSupported("A fake sandbox has no stdin.")

    async def close_stdin(self) -> None:
        """There is no stdin here."""
        raise NotSupported("A fake sandbox has no stdin.")

    async def signal(self, name: str) -> None:
        """There are no signals here."""
        raise NotSupported("A fake sandbox has no signals.")

    def collect(self, store: Callable[[BinaryIO], Digest], outcome: Outcome) -> Outcome:
        """Store what the script put into `out`."""
        artifacts = tuple(
            Artifact(path, len(content), store(io.BytesIO(content))) for path, content in sorted(self.out.items())
        )
        return replace(outcome, artifacts=artifacts)

    async def close(self) -> None:
        """Kill what is left."""
        self.closed = True
        if self._running is not None:
            self._running.cancel()
