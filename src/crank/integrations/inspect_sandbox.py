"""The sandbox `crank` of Inspect AI: one session of this machine's node for each sample.

Inspect loads it by the entry point `inspect_ai`; Crank itself never does, and needs no Inspect. Commands are
ordinary programs of the profile, started inside by `guest_inspect`, which is sent along as text.
"""

import asyncio
import base64
import io
import itertools
import json
import posixpath
from pathlib import Path
from typing import Any, Literal, overload

from inspect_ai.util import (
    ExecResult,
    OutputLimitExceededError,
    SandboxEnvironment,
    SandboxEnvironmentConfigType,
    SandboxEnvironmentLimits,
    SandboxUnavailableError,
    SandboxUserUnsupportedError,
    sandboxenv,
)
from pydantic import BaseModel, ConfigDict

from crank import AsyncClient
from crank.client import AsyncSession, JobResult
from crank.errors import Conflict, CrankError, NotFound
from crank.integrations import guest_inspect

SESSION_NAME = "inspect"
HOME = "/scratch"
_BOX = ".inspect"
_CONTEXT = "inspect"
_INLINE_BYTES_MAX = 256 * 1024
# What base64 and the words around it make of a byte, with room.
_GROWTH = 2
# The command's own deadline comes before the session's, which would take the session along.
_MARGIN_SEC = 5.0
_TRUNCATED_CHARS_MAX = 16 * 1024


class CrankSandboxConfig(BaseModel):
    """What a sample's session is: `SandboxEnvironmentSpec("crank", CrankSandboxConfig(profile=…))`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: str = "python-interpreter"
    mounts: tuple[str, ...] = ()
    memory_bytes: int | None = None
    idle_sec: float = 3_600.0
    lifetime_sec: float = 86_400.0


@sandboxenv(name="crank")
class CrankSandbox(SandboxEnvironment):
    """One session. Commands of one sample run one after another, in the order in which they were asked for."""

    def __init__(self, client: AsyncClient, session: AsyncSession) -> None:
        super().__init__()
        self._client = client
        self._session = session
        self._numbers = itertools.count(1)
        self._guest = f"{Path(guest_inspect.__file__).read_text('utf-8')}\n\nresult = perform(args)\n"
        limits = session.state.limits
        self._inline_bytes = min(_INLINE_BYTES_MAX, int(limits["result_bytes"]) // (2 * _GROWTH))
        self._wall_sec = float(limits["wall_sec"]) - min(_MARGIN_SEC, float(limits["wall_sec"]) / 4)

    # --- the life of a sample ----------------------------------------------------------------

    @classmethod
    def default_concurrency(cls) -> int | None:
        """Return how many sessions a node's worker keeps unless its operator said otherwise."""
        return 8

    @classmethod
    def config_deserialize(cls, config: dict[str, Any]) -> BaseModel:
        """Read a configuration of the log."""
        return CrankSandboxConfig(**config)

    @classmethod
    async def sample_init(
        cls, task_name: str, config: SandboxEnvironmentConfigType | None, metadata: dict[str, str]
    ) -> dict[str, SandboxEnvironment]:
        """Open a session. Raises CrankError (`node_not_running`, `sessions_full`, `unknown_profile`)."""
        wanted = _wanted(config)
        client = _client()
        session = client.session(
            name=SESSION_NAME,
            profile=wanted.profile,
            mounts=list(wanted.mounts) or None,
            memory_bytes=wanted.memory_bytes,
            idle_sec=wanted.idle_sec,
            lifetime_sec=wanted.lifetime_sec,
        )
        try:
            await session.open()
        except BaseException:
            await client.close()
            raise
        return {"default": cls(client, session)}

    @classmethod
    async def sample_cleanup(
        cls,
        task_name: str,
        config: SandboxEnvironmentConfigType | None,
        environments: dict[str, SandboxEnvironment],
        interrupted: bool,
    ) -> None:
        """Close the sample's sessions, with what runs in them."""
        for environment in environments.values():
            await environment.as_type(CrankSandbox).close()

    @classmethod
    async def cli_cleanup(cls, id: str | None) -> None:  # noqa: A002 - Inspect's name
        """Close the one session, or every session that samples left open."""
        async with _client() as client:
            for state in await client.sessions(limit=500):
                if state.name == SESSION_NAME and not state.ended and id in (None, state.session_id):
                    session = client.session()
                    await session.attach(state.session_id)
                    await session.close()
                    print(f"closed session {state.session_id}")

    async def close(self) -> None:
        """End the session and the connections to its node."""
        try:
            await self._session.close()
        finally:
            await self._client.close()

    # --- what samples do ---------------------------------------------------------------------

    async def exec(  # noqa: PLR0913 - Inspect's signature
        self,
        cmd: list[str],
        input: str | bytes | None = None,  # noqa: A002 - Inspect's name
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: int | None = None,
        timeout_retry: bool = True,
        concurrency: bool = True,
    ) -> ExecResult[str]:
        """Run one of the profile's programs. Never repeated by itself: what it did once, it may have done.

        Raises TimeoutError, PermissionError, OutputLimitExceededError, SandboxUserUnsupportedError,
        SandboxUnavailableError (the session is over, or the node is away).
        """
        wanted = {
            "argv": cmd, "cwd": posixpath.join(HOME, cwd or ""), "env": env or {}, "user": user,
            "timeout_sec": self._wall_sec if timeout is None else min(timeout, self._wall_sec),
            "most": SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE,
        }  # fmt: skip
        answer = await self._perform("exec", wanted, _octets(input))
        if "killed" in answer:
            return ExecResult(False, 137, "", f"{answer['killed']}\n")
        if "user" in answer:
            raise SandboxUserUnsupportedError(f"A session has one account, {answer['user']!r}; it cannot run as {user!r}.")
        if "timed_out" in answer:
            raise TimeoutError(f"The command did not end within {wanted['timeout_sec']:g} s.")
        if "too_long" in answer:
            head = base64.b64decode(answer["head"]).decode("utf-8", "replace")[:_TRUNCATED_CHARS_MAX]
            raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE_STR, head)
        said = [await self._bytes(answer, name, wanted["most"]) for name in ("stdout", "stderr")]
        return ExecResult(answer["code"] == 0, answer["code"], *(octets.decode("utf-8", "replace") for octets in said))

    async def write_file(self, file: str, contents: str | bytes) -> None:
        """Write a file, and the folders above it. Raises PermissionError, IsADirectoryError, OSError."""
        answer = await self._perform("write", {"path": posixpath.join(HOME, file)}, _octets(contents))
        if "killed" in answer:
            raise SandboxUnavailableError(answer["killed"])

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    async def read_file(self, file: str, text: bool = True) -> str | bytes:
        """Return a file's content. Raises FileNotFoundError, PermissionError, UnicodeDecodeError, OutputLimitExceededError."""
        most = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE
        answer = await self._perform("read", {"path": posixpath.join(HOME, file), "most": most}, None)
        if "killed" in answer:
            raise SandboxUnavailableError(answer["killed"])
        if "too_long" in answer:
            raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, None)
        octets = await self._bytes(answer, "content", most)
        return octets.decode("utf-8") if text else octets

    # --- how it is done ----------------------------------------------------------------------

    async def _perform(self, work: str, wanted: dict[str, Any], octets: bytes | None) -> dict[str, Any]:
        """Have one order done inside, and return its answer; {"killed": why} when a limit of the session ended it."""
        number = next(self._numbers)
        order = {"work": work, "number": number, "box": f"{HOME}/{_BOX}", "inline": self._inline_bytes, **wanted}
        try:
            if octets is not None and len(octets) > self._inline_bytes:
                order["input_at"] = await self._put(f"{number}-input", octets)
            elif octets is not None:
                order["input"] = base64.b64encode(octets).decode("ascii")
            if len(text := json.dumps(order)) > _INLINE_BYTES_MAX * _GROWTH:
                order = {"order": await self._put(f"{number}-order", text.encode())}
            job = await self._run(number, order)
            if "order" in order:
                await self._session.remove(f"{_BOX}/{number}-order")
        except CrankError as fault:
            raise SandboxUnavailableError(f"{fault.message} ({fault.error_code})") from fault
        return self._answer(job)

    async def _run(self, number: int, order: dict[str, Any]) -> JobResult:
        # Known before it is accepted, so that a cancelled command can be ended wherever it stands.
        job_id = f"{self._session.session_id}-{number}"
        try:
            return await self._session.run(self._guest, context=_CONTEXT, args=order, job_id=job_id)
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.ensure_future(self._cancel(job_id)))
            raise

    async def _cancel(self, job_id: str) -> None:
        try:
            await self._client.cancel(job_id)
        except (NotFound, Conflict):
            return

    def _answer(self, job: JobResult) -> dict[str, Any]:
        end = job.end
        if end is not None and end.reason == "exited" and isinstance(job.result, dict):
            answer: dict[str, Any] = job.result
            if "errno" in answer:
                raise OSError(answer["errno"], answer["message"], answer["path"])
            return answer
        why = end.message or end.code or end.reason if end is not None else "no end was told"
        if job.status in ("refused", "lost") or end is None or end.reason == "raised":
            raise SandboxUnavailableError(f"The session could not do this: {why}")
        return {"killed": f"The command was ended: {why}"}

    async def _put(self, name: str, octets: bytes) -> str:
        await self._session.put(f"{_BOX}/{name}", octets)
        return f"{HOME}/{_BOX}/{name}"

    async def _bytes(self, answer: dict[str, Any], name: str, most: int) -> bytes:
        """Return what an answer holds, or what it left in the box. What lies there is the job's word, so it is bounded."""
        if name in answer:
            return base64.b64decode(answer[name])
        path = posixpath.relpath(answer[f"{name}_at"], HOME)
        held = _Bounded(most)
        try:
            await self._session.download(path, held)
            await self._session.remove(path)
        except CrankError as fault:
            raise SandboxUnavailableError(f"{fault.message} ({fault.error_code})") from fault
        return held.getvalue()


class _Bounded(io.BytesIO):
    """Takes no more than was promised."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def write(self, chunk: Any) -> int:
        if self.tell() + len(chunk) > self._most:
            raise OutputLimitExceededError(f"{self._most} bytes", None)
        return super().write(chunk)


def _client() -> AsyncClient:
    """Return a client of this machine's node. Raises RuntimeError under trio, CrankError (`node_not_running`)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError as fault:
        raise RuntimeError("The sandbox 'crank' needs asyncio: unset INSPECT_ASYNC_BACKEND.") from fault
    return AsyncClient()


def _octets(contents: str | bytes | None) -> bytes | None:
    return contents.encode("utf-8") if isinstance(contents, str) else contents


def _wanted(config: SandboxEnvironmentConfigType | None) -> CrankSandboxConfig:
    """Return the configuration; a text names the profile."""
    if isinstance(config, CrankSandboxConfig):
        return config
    if isinstance(config, str):
        return CrankSandboxConfig(profile=config)
    if config is None:
        return CrankSandboxConfig()
    raise TypeError(f"The sandbox 'crank' takes a profile's name or a CrankSandboxConfig, not {type(config).__name__}.")
