"""The asynchronous client: submit a job, follow it, fetch what it left."""

import asyncio
import base64
import hashlib
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeAlias
from urllib.parse import quote

import httpx2

from crank.client.contents import CHUNK_BYTES, Contents, Mounts, chunks, digest_of, mount_uses
from crank.client.federation import AsyncFederation
from crank.client.identities import AsyncIdentities
from crank.client.keys import AsyncKeys
from crank.client.link import EVENT_BYTES_MAX, ClientOptions, Link, transport_fault
from crank.client.nodes import AsyncNodes
from crank.client.results import Artifact, JobEvent, JobResult, Mount, Page, parse_job, parse_mount, parse_page
from crank.client.sessions import AsyncSession, SessionState, parse_session
from crank.client.tokens import AsyncTokens
from crank.client.workloads import AsyncWorkloads
from crank.domain.json import JsonObject, JsonValue
from crank.domain.quantity import WAIT_SEC_MAX
from crank.errors import CrankError, ProtocolError, Unavailable

INLINE_BYTES_MAX = 64 * 1024
# A stream that says nothing for this long is dead; the node sends a comment more often.
_QUIET_SEC = 60.0

_CONSTRAINTS = (
    "accelerator", "gpu_model", "memory_bytes", "max_output_bytes", "cpu_sec", "idle_sec", "no_output_sec",
    "attestation",
)  # fmt: skip
_FIELDS = frozenset(
    ("capability", "version", "job_id", "idempotency_key", "effects", "route", "detach",
     "session", "context", "program", "stdin", "handles")
)  # fmt: skip

OnEvent: TypeAlias = Callable[[JobEvent], None]
OnOutput: TypeAlias = Callable[[str, str], None]


class AsyncClient:
    """Speaks to one node. Use it as `async with`, in one event loop."""

    def __init__(self, options: ClientOptions) -> None:
        self.options = options
        self._link = Link(options)
        self.keys = AsyncKeys(self._link)
        self.nodes = AsyncNodes(self._link)
        self.identities = AsyncIdentities(self._link)
        self.federation = AsyncFederation(self._link)
        self.tokens = AsyncTokens(self._link)
        self.workloads = AsyncWorkloads(self._link)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._link.close()

    # --- jobs --------------------------------------------------------------------------------

    async def submit(self, body: JsonObject, *, wait_sec: float = 0, idempotency_key: str | None = None) -> JobResult:
        """Send a job as the API takes it and return it, ended or not.

        wait_sec  0 to 40: how long the node may hold the answer for the end
        A lost answer is asked for again with the same key, so that the job runs once.
        Raises InvalidRequest, NotSupported, Conflict, Unavailable, NotAuthenticated, UntrustedPeer.
        """
        headers = {"Idempotency-Key": idempotency_key or body.get("idempotency_key") or uuid.uuid4().hex}
        if wait_sec > 0:
            headers["Prefer"] = f"wait={min(int(wait_sec) or 1, WAIT_SEC_MAX)}"
        _, document = await self._link.ask("POST", "/v1/jobs", json=body, headers=headers)
        return parse_job(document)

    async def run(
        self,
        code: str | None = None,
        *,
        profile: str | None = None,
        args: JsonValue = None,
        files: Mapping[str, Contents] | None = None,
        mounts: Mounts | None = None,
        timeout_sec: float | None = None,
        on_output: OnOutput | None = None,
        **more: Any,
    ) -> JobResult:
        """Run a job to its end and return it. A job that fails is a result, not an exception.

        on_output  called with `stdout` or `stderr` and the text, while the job prints
        more  `capability`, `version`, `accelerator`, `gpu_model`, `memory_bytes`, `max_output_bytes`,
              `cpu_sec`, `idle_sec`, `no_output_sec`, `attestation`, `job_id`, `idempotency_key`, `effects`, `session`, `context`,
              `program` (a list, in place of code), `stdin` (True keeps it open for `write_stdin`)
        Raises as `submit`; when the caller is cancelled, the job goes on.
        """
        body = await self.prepare(
            code, profile=profile, args=args, files=files, mounts=mounts, timeout_sec=timeout_sec, **more
        )
        job = await self.submit(body, wait_sec=0 if on_output else WAIT_SEC_MAX)
        if job.ended and on_output is None:
            return job

        def printed(event: JobEvent) -> None:
            if on_output is not None and event.kind in ("stdout", "stderr"):
                on_output(event.kind, event.text)

        return await self.wait(job.job_id, on_event=printed)

    async def prepare(
        self,
        code: str | None,
        *,
        profile: str | None = None,
        args: JsonValue = None,
        files: Mapping[str, Contents] | None = None,
        mounts: Mounts | None = None,
        timeout_sec: float | None = None,
        **more: Any,
    ) -> JsonObject:
        """Return the request body of a job; big files are uploaded on the way."""
        constraints = {"timeout_sec": timeout_sec, **{name: more.pop(name, None) for name in _CONSTRAINTS}}
        unknown = set(more) - _FIELDS
        if unknown:
            raise TypeError(f"unknown argument: {', '.join(sorted(unknown))}")
        body: JsonObject = {
            "code": code,
            "env_profile": profile or (None if more.get("capability") or more.get("session") else "python-core"),
            "args": args,
            "files": [await self._file(path, contents) for path, contents in (files or {}).items()] or None,
            "mounts": mount_uses(mounts) or None,
            "constraints": {name: value for name, value in constraints.items() if value is not None} or None,
            **more,
        }
        return {name: value for name, value in body.items() if value is not None}

    async def _file(self, path: str, contents: Contents) -> JsonObject:
        if isinstance(contents, Path):
            if (await asyncio.to_thread(contents.stat)).st_size > INLINE_BYTES_MAX:
                return {"path": path, "sha256": await self.upload(contents)}
            contents = await asyncio.to_thread(contents.read_bytes)
        octets = contents.encode("utf-8") if isinstance(contents, str) else contents
        if len(octets) > INLINE_BYTES_MAX:
            return {"path": path, "sha256": await self.upload(octets)}
        return {"path": path, "base64": base64.b64encode(octets).decode("ascii")}

    async def get(self, job_id: str) -> JobResult:
        """Return a job as it stands. Raises NotFound."""
        _, document = await self._link.ask("GET", f"/v1/jobs/{quote(job_id, safe='')}")
        return parse_job(document)

    async def list(self, *, limit: int = 50, before: str | None = None, status: str | None = None) -> Page:
        """Return jobs, newest first; `before` is the cursor that the last page gave."""
        asked = {"limit": limit, "before": before, "status": status}
        params = {name: value for name, value in asked.items() if value is not None}
        _, document = await self._link.ask("GET", "/v1/jobs", params=params)
        return parse_page(document)

    async def cancel(self, job_id: str) -> JobResult:
        """Ask for the end of a job; doing it twice changes nothing. Raises NotFound."""
        _, document = await self._link.ask("POST", f"/v1/jobs/{quote(job_id, safe='')}/cancel")
        return parse_job(document)

    async def interrupt(self, job_id: str) -> JobResult:
        """Send SIGINT to a running job's code. Raises NotFound, Conflict (`job_not_running`)."""
        _, document = await self._link.ask("POST", f"/v1/jobs/{quote(job_id, safe='')}/interrupt", retry=False)
        return parse_job(document)

    async def write_stdin(
        self, job_id: str, chunk: str | bytes, *, offset_bytes: int | None = None, end: bool = False
    ) -> int:
        """Write to the stdin of a job that was submitted with stdin=True; return the bytes it has taken in all.

        offset_bytes  where these begin; then a lost answer is asked for again and no byte is taken twice
        Raises NotFound, Conflict (`job_not_running`, `stdin_closed`, `stdin_gap`), Unavailable (`stdin_full`).
        """
        octets = chunk.encode("utf-8") if isinstance(chunk, str) else chunk
        body: JsonObject = {"base64": base64.b64encode(octets).decode("ascii"), "end": end}
        if offset_bytes is not None:
            body["offset_bytes"] = offset_bytes
        path = f"/v1/jobs/{quote(job_id, safe='')}/stdin"
        _, document = await self._link.ask("POST", path, json=body, retry=offset_bytes is not None)
        return int(document["taken_bytes"])

    async def events(self, job_id: str, *, after: int = 0) -> AsyncGenerator[JobEvent, None]:
        """Yield what the job prints and tells, then its end; goes on where it was when the link drops.

        Raises NotFound, and Unavailable when the node stays away longer than `retry_sec`.
        """
        position = after
        silent_since: float | None = None
        while True:
            try:
                # Closed here and now, so that no half-read answer is left to the garbage collector.
                async with aclosing(self._events_once(job_id, position)) as arriving:
                    async for event in arriving:
                        position, silent_since = max(position, event.position), None
                        yield event
                        if event.kind == "end":
                            return
            except Unavailable:
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > self.options.retry_sec:
                    raise
            await asyncio.sleep(0.2)

    async def _events_once(self, job_id: str, after: int) -> AsyncGenerator[JobEvent, None]:
        path = f"/v1/jobs/{quote(job_id, safe='')}/events"
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        timeout = httpx2.Timeout(_QUIET_SEC, connect=10.0)
        async with self._link.stream("GET", path, headers=headers, timeout=timeout) as answer:
            try:
                async for event in httpx2.EventSource(answer, max_event_size=EVENT_BYTES_MAX):
                    if event.event and event.data:
                        body = event.json()
                        yield JobEvent(int(event.id or 0), event.event, body if isinstance(body, dict) else {})
            except (httpx2.SSEError, ValueError) as fault:
                raise ProtocolError(f"The node sent events that cannot be read: {fault}") from fault
            except httpx2.TransportError as silence:
                raise transport_fault(silence, self.options.api) from silence

    async def wait(
        self, job_id: str, *, timeout_sec: float | None = None, on_event: OnEvent | None = None, after: int = 0
    ) -> JobResult:
        """Return the job when it has ended. Raises NotFound, and TimeoutError after `timeout_sec`."""
        async with asyncio.timeout(timeout_sec):
            async with aclosing(self.events(job_id, after=after)) as arriving:
                async for event in arriving:
                    if on_event is not None:
                        on_event(event)
        return await self.get(job_id)

    # --- sessions ----------------------------------------------------------------------------

    def session(self, *, profile: str | None = None, mounts: Mounts | None = None, **more: Any) -> AsyncSession:
        """Return a session that opens with `async with` and closes at its end.

        more  `name`, `capability`, `version`, `accelerator`, `gpu_model`, `memory_bytes`, `attestation`, `idle_sec`,
              `lifetime_sec`
        """
        body: JsonObject = {"env_profile": profile, "mounts": mount_uses(mounts) or None, **more}
        return AsyncSession(self._link, self.run, {name: value for name, value in body.items() if value is not None})

    async def sessions(self, *, limit: int = 50) -> Sequence[SessionState]:
        """Return sessions, newest first, the ended ones too."""
        _, document = await self._link.ask("GET", "/v1/sessions", params={"limit": limit})
        return tuple(parse_session(entry) for entry in document["sessions"])

    # --- files -------------------------------------------------------------------------------

    async def artifacts(self, job_id: str) -> Sequence[Artifact]:
        """Return the files that a job left. Raises NotFound."""
        return (await self.get(job_id)).artifacts

    async def download(self, job_id: str, artifact: Artifact, target: BinaryIO) -> None:
        """Copy one artifact into `target` and check its digest. Raises NotFound, ProtocolError, Unavailable."""
        path = f"/v1/jobs/{quote(job_id, safe='')}/artifacts/{quote(artifact.path)}"
        digest = hashlib.sha256()
        async with self._link.stream("GET", path) as answer:
            async for chunk in answer.aiter_bytes(CHUNK_BYTES):
                digest.update(chunk)
                await asyncio.to_thread(target.write, chunk)
        if digest.hexdigest() != artifact.sha256:
            raise ProtocolError(f"The artifact {artifact.path} arrived damaged.", fix="Download it again.")

    async def upload(self, contents: Path | bytes) -> str:
        """Store bytes on the node and return their SHA-256. Raises TooLarge, Unavailable."""
        digest = await asyncio.to_thread(digest_of, contents)
        try:
            await self._link.ask("HEAD", f"/v1/blobs/{digest}")
        except CrankError as fault:
            if isinstance(fault, Unavailable):
                raise
        else:
            return digest
        headers = {"Content-Type": "application/octet-stream"}
        if isinstance(contents, bytes):
            await self._link.ask("PUT", f"/v1/blobs/{digest}", content=contents, headers=headers)
        else:
            # Not repeated by itself: a stream can be read once.
            source = chunks(contents)
            await self._link.ask("PUT", f"/v1/blobs/{digest}", content=source, headers=headers, retry=False)
        return digest

    # --- the node ----------------------------------------------------------------------------

    async def add_mount(self, path: str, name: str | None = None) -> Mount:
        """Allow jobs to read a folder of the node. Raises InvalidRequest, NotAllowed."""
        body = {"path": path} if name is None else {"path": path, "name": name}
        _, document = await self._link.ask("POST", "/v1/mounts", json=body)
        return parse_mount(document)

    async def mounts(self) -> Sequence[Mount]:
        """Return the folders that jobs may read."""
        _, document = await self._link.ask("GET", "/v1/mounts")
        return tuple(parse_mount(entry) for entry in document["mounts"])

    async def remove_mount(self, mount_id: str) -> None:
        """Take a folder away from later jobs. Raises NotFound."""
        await self._link.ask("DELETE", f"/v1/mounts/{quote(mount_id, safe='')}")

    async def workers(self) -> JsonObject:
        """Return what is known of the workers."""
        _, document = await self._link.ask("GET", "/v1/workers")
        return dict(document)

    async def capabilities(self) -> JsonObject:
        """Return what the node can do now."""
        _, document = await self._link.ask("GET", "/v1/capabilities")
        return dict(document)

    async def ready(self) -> JsonObject:
        """Return the node's own word on its readiness. Raises Unavailable while it is not ready."""
        _, document = await self._link.ask("GET", "/readyz", retry=False)
        return dict(document)
