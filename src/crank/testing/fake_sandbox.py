"""A sandbox that runs nothing: a script says how each piece of code ends. It keeps the protocol of its port."""

import asyncio
import io
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Literal

from crank.domain.ids import Digest
from crank.domain.json import JsonValue
from crank.domain.outcome import Artifact, End, Outcome, Reason, Stream
from crank.domain.profile import Limits
from crank.errors import Conflict, InvalidRequest, NotFound, NotSupported, SandboxError
from crank.ports import CallTaker, FileEntry, OutputSink, PoolCount, SandboxSession, SandboxSpec

TIER = "none"
# What a session outlives; every other end takes its sandbox with it.
_HARMLESS = frozenset({Reason.EXITED, Reason.RAISED})


@dataclass(frozen=True, slots=True)
class ScriptedRun:
    """How one piece of code runs.

    output  pairs of stream and text, told in order
    end     how it ends; None runs until it is stopped or interrupted
    files   what it leaves in /out: path to (bytes, media type)
    writes  what it leaves in /scratch
    echoes_stdin  waits for the end of its stdin, then prints what came
    """

    output: tuple[tuple[str, str], ...] = ()
    end: End | None = field(default_factory=lambda: End(Reason.EXITED, exit_code=0))
    has_result: bool = False
    result: JsonValue = None
    files: Mapping[str, tuple[bytes, str]] = field(default_factory=dict)
    writes: Mapping[str, bytes] = field(default_factory=dict)
    echoes_stdin: bool = False


class FakeSandboxRunner:
    """The SandboxRunner port on scripted runs, found by the code (or the joined argv) itself, else the default."""

    tier = TIER

    def __init__(self, script: Mapping[str, ScriptedRun], *, default: ScriptedRun | None = None) -> None:
        self._script = dict(script)
        self._default = default if default is not None else ScriptedRun()
        self.sessions: list[FakeSandboxSession] = []
        self.pooled: tuple[PoolCount, ...] = ()
        self._stopped = False

    async def start(self) -> None:
        """Nothing needs proof here."""

    async def open(self, spec: SandboxSpec) -> SandboxSession:
        """Open a session. Raises SandboxError after `stop`."""
        if self._stopped:
            raise SandboxError("The runner was stopped.", code="runner_stopped")
        session = FakeSandboxSession(spec, self._script, self._default)
        self.sessions.append(session)
        return session

    def pools(self) -> tuple[PoolCount, ...]:
        """Return what a test put into `pooled`."""
        return self.pooled

    async def stop(self) -> None:
        """End every session; no new one opens."""
        self._stopped = True
        for session in self.sessions:
            await session.close()


class FakeSandboxSession:
    """The SandboxSession port on scripted runs.

    files    what lies in /scratch
    history  pairs of context and code (programs have none), in the order in which they ran
    """

    tier = TIER

    def __init__(self, spec: SandboxSpec, script: Mapping[str, ScriptedRun], default: ScriptedRun) -> None:
        self.spec = spec
        self.files: dict[str, bytes] = {}
        self.history: list[tuple[str | None, str]] = []
        self._out: dict[str, tuple[bytes, str]] = {}
        self._script = script
        self._default = default
        self._dead = False
        self._running = False
        self._reason: Reason | None = None
        self._ended = asyncio.Event()
        self._stdin = bytearray()
        self._stdin_ended = asyncio.Event()

    @property
    def alive(self) -> bool:
        """Tell whether it can still be used."""
        return not self._dead

    # --- files ---

    async def put_file(self, path: str, source: BinaryIO) -> None:
        """Keep a file. Raises InvalidRequest for a path that is not plain, or (unless it lasts) is there already."""
        self._check_alive()
        if not _is_plain(path) or (path in self.files and not self.spec.lasting):
            raise InvalidRequest(f"The path {path!r} cannot be put.", code="invalid_path", field="files")
        self.files[path] = source.read()

    async def list_files(self, path: str = "") -> tuple[FileEntry, ...]:
        """Return the files and folders directly in a folder, by name."""
        self._check_alive()
        _check_plain(path)
        prefix = f"{path}/" if path else ""
        below = [name for name in self.files if name.startswith(prefix)]
        if path and not below:
            raise NotFound(f"There is no folder {path!r}.", code="file_not_found", field="path")
        entries = {prefix + name.removeprefix(prefix).partition("/")[0] for name in below}
        return tuple(self._entry(name) for name in sorted(entries))

    def _entry(self, path: str) -> FileEntry:
        content = self.files.get(path)
        kind: Literal["file", "folder"] = "folder" if content is None else "file"
        return FileEntry(path, kind, len(content or b""), 0)

    async def get_file(self, path: str, target: BinaryIO) -> int:
        """Copy a file out. Raises NotFound."""
        self._check_alive()
        _check_plain(path)
        if path not in self.files:
            raise NotFound(f"There is no file {path!r}.", code="file_not_found", field="path")
        return target.write(self.files[path])

    async def remove_file(self, path: str) -> None:
        """Remove a file or folder. Raises NotFound."""
        self._check_alive()
        _check_plain(path)
        gone = [name for name in self.files if name == path or name.startswith(f"{path}/")]
        if not gone:
            raise NotFound(f"There is no file {path!r}.", code="file_not_found", field="path")
        for name in gone:
            del self.files[name]

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
        """Play the run of this code. Raises NotSupported for a second run of a session that does not last."""
        return await self._play(context, code, sink, stdin=stdin)

    async def run_program(
        self, argv: Sequence[str], sink: OutputSink, *, limits: Limits | None = None, stdin: bool = False
    ) -> Outcome:
        """Play the run of a program. Raises InvalidRequest for one that the profile does not list."""
        if argv[0] not in self.spec.build.programs:
            raise InvalidRequest(f"{argv[0]} is not a program here.", code="program_not_listed", field="program")
        return await self._play(None, " ".join(argv), sink, stdin=stdin)

    async def _play(self, context: str | None, code: str, sink: OutputSink, *, stdin: bool) -> Outcome:
        if self._running or (self.history and not self.spec.lasting):
            raise NotSupported("A session runs one at a time, and once unless it lasts.")
        self._check_alive()
        self.history.append((context, code))
        run = self._script.get(code, self._default)
        self._running, self._reason = True, None
        self._ended.clear()
        self._stdin_ended.clear()
        if not stdin:
            self._stdin_ended.set()
        self._stdin.clear()
        try:
            return await self._told(run, sink)
        except asyncio.CancelledError:
            self._dead = True
            raise
        finally:
            self._running = False

    async def _told(self, run: ScriptedRun, sink: OutputSink) -> Outcome:
        kept = {"stdout": "", "stderr": ""}

        def tell(stream: str, text: str) -> None:
            sink.output(stream, text, len(kept[stream].encode()), 0.0)
            kept[stream] += text

        for stream, text in run.output:
            tell(stream, text)
        if run.echoes_stdin:
            await self._until_ended(self._stdin_ended)
            tell("stdout", bytes(self._stdin).decode())
        elif run.end is None:
            await self._ended.wait()
        end = self._end(run)
        self._dead = self._dead or not self.spec.lasting or end.reason not in _HARMLESS
        self.files.update(run.writes)
        self._out.update(run.files)
        streams = {name: Stream(text, len(text.encode()), len(text.encode())) for name, text in kept.items()}
        whole = end is run.end
        return Outcome(
            end,
            streams["stdout"],
            streams["stderr"],
            has_result=run.has_result and whole,
            result=run.result if whole else None,
            tier=TIER,
        )

    async def _until_ended(self, wanted: asyncio.Event) -> None:
        waiting = [asyncio.ensure_future(event.wait()) for event in (wanted, self._ended)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()

    def _end(self, run: ScriptedRun) -> End:
        if self._reason is not None:
            return End(self._reason)
        if self._ended.is_set():
            return End(Reason.RAISED, exit_code=1, message="KeyboardInterrupt")
        assert run.end is not None, "a run without an end is stopped or interrupted"
        return run.end

    async def stop(self, reason: Reason) -> None:
        """End the run and the session now."""
        self._dead = True
        if self._running and not self._ended.is_set():
            self._reason = reason
        self._ended.set()

    async def write_stdin(self, chunk: bytes) -> None:
        """Send bytes to what runs. Raises Conflict."""
        self._check_running()
        if self._stdin_ended.is_set():
            raise Conflict("Its stdin has ended.", code="stdin_closed")
        self._stdin += chunk

    async def close_stdin(self) -> None:
        """End the stdin of what runs. Raises Conflict."""
        self._check_running()
        self._stdin_ended.set()

    async def signal(self, name: str) -> None:
        """Interrupt what runs. Raises Conflict, NotSupported for another signal than SIGINT."""
        if name != "SIGINT":
            raise NotSupported(f"{name} is not sent.")
        self._check_running()
        self._ended.set()

    def collect(self, store: Callable[[BinaryIO], Digest], outcome: Outcome) -> Outcome:
        """Store and list the files that the runs left."""
        artifacts = tuple(
            Artifact(path, len(content), store(io.BytesIO(content)), media_type)
            for path, (content, media_type) in sorted(self._out.items())
        )
        return replace(outcome, artifacts=artifacts)

    async def close(self) -> None:
        """End what is left."""
        await self.stop(Reason.CANCELLED)

    def _check_alive(self) -> None:
        if self._dead:
            raise SandboxError("The sandbox is dead.", code="sandbox_gone")

    def _check_running(self) -> None:
        if not self._running:
            raise Conflict("Nothing runs.", code="not_running")


def _check_plain(path: str) -> None:
    if path and not _is_plain(path):
        raise InvalidRequest(f"The path {path!r} leaves the session.", code="invalid_path", field="path")


def _is_plain(path: str) -> bool:
    segments = path.split("/")
    tidy = all(part and part.strip(" .") == part for part in segments)
    shown = all(unicodedata.category(char)[0] != "C" for char in path)
    return tidy and shown and "\\" not in path and unicodedata.normalize("NFC", path) == path
