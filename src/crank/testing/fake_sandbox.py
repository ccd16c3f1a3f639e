"""A sandbox that runs nothing: a script says how each piece of code ends. It keeps the protocol of its port."""

import asyncio
import io
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from crank.domain.ids import Digest
from crank.domain.json import JsonValue
from crank.domain.outcome import Artifact, End, Outcome, Reason, Stream
from crank.errors import InvalidRequest, NotSupported, SandboxError
from crank.ports import OutputSink, SandboxSession, SandboxSpec

TIER = "none"


@dataclass(frozen=True, slots=True)
class ScriptedRun:
    """How one piece of code runs.

    output  pairs of stream and text, told in order
    end     how it ends; None runs until it is stopped
    files   what it leaves in /out: path to (bytes, media type)
    """

    output: tuple[tuple[str, str], ...] = ()
    end: End | None = field(default_factory=lambda: End(Reason.EXITED, exit_code=0))
    has_result: bool = False
    result: JsonValue = None
    files: Mapping[str, tuple[bytes, str]] = field(default_factory=dict)


class FakeSandboxRunner:
    """The SandboxRunner port on scripted runs, found by the code itself, else the default."""

    tier = TIER

    def __init__(self, script: Mapping[str, ScriptedRun], *, default: ScriptedRun | None = None) -> None:
        self._script = dict(script)
        self._default = default if default is not None else ScriptedRun()
        self._sessions: list[FakeSandboxSession] = []
        self._stopped = False

    async def start(self) -> None:
        """Nothing needs proof here."""

    async def open(self, spec: SandboxSpec) -> SandboxSession:
        """Open a session. Raises SandboxError after `stop`."""
        if self._stopped:
            raise SandboxError("The runner was stopped.", code="runner_stopped")
        session = FakeSandboxSession(spec, self._script, self._default)
        self._sessions.append(session)
        return session

    async def stop(self) -> None:
        """End every session; no new one opens."""
        self._stopped = True
        for session in self._sessions:
            await session.close()


class FakeSandboxSession:
    """The SandboxSession port on one scripted run."""

    tier = TIER

    def __init__(self, spec: SandboxSpec, script: Mapping[str, ScriptedRun], default: ScriptedRun) -> None:
        self.spec = spec
        self.files: dict[str, bytes] = {}
        self._script = script
        self._default = default
        self._run: ScriptedRun | None = None
        self._reason: Reason | None = None
        self._ended = asyncio.Event()

    async def put_file(self, path: str, source: BinaryIO) -> None:
        """Keep a file. Raises InvalidRequest for a path that is not plain, or that is there already."""
        if not _is_plain(path) or path in self.files:
            raise InvalidRequest(f"The path {path!r} cannot be put.", code="invalid_path", field="files")
        self.files[path] = source.read()

    async def run_python(self, code: str, args: JsonValue, sink: OutputSink) -> Outcome:
        """Play the run of this code. Raises NotSupported for a second run."""
        if self._run is not None:
            raise NotSupported("A session runs once.")
        self._run = run = self._script.get(code, self._default)
        kept = {"stdout": "", "stderr": ""}
        for stream, text in run.output:
            sink.output(stream, text, len(kept[stream].encode()), 0.0)
            kept[stream] += text
        if run.end is None:
            await self._ended.wait()
        streams = {name: Stream(text, len(text.encode()), len(text.encode())) for name, text in kept.items()}
        if self._reason is not None:
            return Outcome(End(self._reason), streams["stdout"], streams["stderr"], tier=TIER)
        assert run.end is not None, "a run without an end is stopped with a reason"
        return Outcome(
            run.end, streams["stdout"], streams["stderr"], has_result=run.has_result, result=run.result, tier=TIER
        )

    async def run_program(self, argv: Sequence[str], sink: OutputSink) -> Outcome:
        """There are no programs here. Raises NotSupported."""
        raise NotSupported("This sandbox runs no program.")

    async def stop(self, reason: Reason) -> None:
        """End the run now."""
        if not self._ended.is_set():
            self._reason = reason
            self._ended.set()

    async def write_stdin(self, chunk: bytes) -> None:
        """There is no stdin here. Raises NotSupported."""
        raise NotSupported("This sandbox has no stdin.")

    async def signal(self, name: str) -> None:
        """There are no signals here. Raises NotSupported."""
        raise NotSupported("This sandbox has no signals.")

    def collect(self, store: Callable[[BinaryIO], Digest], outcome: Outcome) -> Outcome:
        """Store and list the files that the run left."""
        files = self._run.files if self._run is not None else {}
        artifacts = tuple(
            Artifact(path, len(content), store(io.BytesIO(content)), media_type)
            for path, (content, media_type) in sorted(files.items())
        )
        return replace(outcome, artifacts=artifacts)

    async def close(self) -> None:
        """End what is left."""
        await self.stop(Reason.CANCELLED)


def _is_plain(path: str) -> bool:
    segments = path.split("/")
    tidy = all(part and part.strip(" .") == part for part in segments)
    shown = all(unicodedata.category(char)[0] != "C" for char in path)
    return tidy and shown and "\\" not in path and unicodedata.normalize("NFC", path) == path
