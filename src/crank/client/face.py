"""The synchronous client: the same calls, made on a private event loop in a thread of its own."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar

from crank.client.contents import Contents, Mounts
from crank.client.face_session import Session
from crank.client.federation import Federation
from crank.client.identities import Identities
from crank.client.keys import Keys
from crank.client.link import ClientOptions
from crank.client.nodes import Nodes
from crank.client.remote import AsyncClient, OnOutput
from crank.client.results import Artifact, JobEvent, JobResult, Mount, Page
from crank.client.sessions import SessionState
from crank.client.tokens import Tokens
from crank.client.workloads import Workloads
from crank.domain.json import JsonObject, JsonValue

T = TypeVar("T")


class Client:
    """Speaks to one node, from ordinary code. Safe in several threads; `close` it, or use it in `with`.

    Every call promises what the call of the same name on AsyncClient promises.
    """

    def __init__(self, options: ClientOptions) -> None:
        self.options = options
        self._remote = AsyncClient(options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="crank-client", daemon=True)
        self._thread.start()
        self.keys = Keys(self._remote.keys, self._wait_for)
        self.nodes = Nodes(self._remote.nodes, self._wait_for)
        self.identities = Identities(self._remote.identities, self._wait_for)
        self.federation = Federation(self._remote.federation, self._wait_for)
        self.tokens = Tokens(self._remote.tokens, self._wait_for)
        self.workloads = Workloads(self._remote.workloads, self._wait_for)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection and end the thread. Safe to call twice."""
        if self._loop.is_closed():
            return
        self._wait_for(self._remote.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        pending = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return pending.result()
        except BaseException:
            # Ctrl-C here must not leave the call running behind the caller's back.
            pending.cancel()
            raise

    def run(
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
        """Run a job to its end and return it. `on_output` is called on the client's own thread."""
        work = self._remote.run(
            code, profile=profile, args=args, files=files, mounts=mounts,
            timeout_sec=timeout_sec, on_output=on_output, **more,
        )  # fmt: skip
        return self._wait_for(work)

    def submit(self, body: JsonObject, *, wait_sec: float = 0, idempotency_key: str | None = None) -> JobResult:
        """Send a job as the API takes it and return it, ended or not."""
        return self._wait_for(self._remote.submit(body, wait_sec=wait_sec, idempotency_key=idempotency_key))

    def get(self, job_id: str) -> JobResult:
        """Return a job as it stands."""
        return self._wait_for(self._remote.get(job_id))

    def wait(self, job_id: str, *, timeout_sec: float | None = None) -> JobResult:
        """Return the job when it has ended."""
        return self._wait_for(self._remote.wait(job_id, timeout_sec=timeout_sec))

    def events(self, job_id: str, *, after: int = 0) -> Iterator[JobEvent]:
        """Yield what the job prints and tells, then its end."""
        source = self._remote.events(job_id, after=after)

        async def following() -> JobEvent | None:
            return await anext(source, None)

        try:
            while (event := self._wait_for(following())) is not None:
                yield event
        finally:
            self._wait_for(source.aclose())

    def list(self, *, limit: int = 50, before: str | None = None, status: str | None = None) -> Page:
        """Return jobs, newest first."""
        return self._wait_for(self._remote.list(limit=limit, before=before, status=status))

    def cancel(self, job_id: str) -> JobResult:
        """Ask for the end of a job."""
        return self._wait_for(self._remote.cancel(job_id))

    def interrupt(self, job_id: str) -> JobResult:
        """Send SIGINT to a running job's code."""
        return self._wait_for(self._remote.interrupt(job_id))

    def write_stdin(
        self, job_id: str, chunk: str | bytes, *, offset_bytes: int | None = None, end: bool = False
    ) -> int:
        """Write to the stdin of a job that was submitted with stdin=True; return the bytes it has taken in all."""
        return self._wait_for(self._remote.write_stdin(job_id, chunk, offset_bytes=offset_bytes, end=end))

    def session(self, *, profile: str | None = None, mounts: Mounts | None = None, **more: Any) -> Session:
        """Return a session that opens with `with` and closes at its end."""
        return Session(self._remote.session(profile=profile, mounts=mounts, **more), self._wait_for)

    def sessions(self, *, limit: int = 50) -> Sequence[SessionState]:
        """Return sessions, newest first, the ended ones too."""
        return self._wait_for(self._remote.sessions(limit=limit))

    def artifacts(self, job_id: str) -> Sequence[Artifact]:
        """Return the files that a job left."""
        return self._wait_for(self._remote.artifacts(job_id))

    def download(self, job_id: str, artifact: Artifact, target: BinaryIO) -> None:
        """Copy one artifact into `target` and check its digest."""
        self._wait_for(self._remote.download(job_id, artifact, target))

    def upload(self, contents: Any) -> str:
        """Store bytes (or the file at a Path) on the node and return their SHA-256."""
        return self._wait_for(self._remote.upload(contents))

    def add_mount(self, path: str, name: str | None = None) -> Mount:
        """Allow jobs to read a folder of the node."""
        return self._wait_for(self._remote.add_mount(path, name))

    def mounts(self) -> Sequence[Mount]:
        """Return the folders that jobs may read."""
        return self._wait_for(self._remote.mounts())

    def remove_mount(self, mount_id: str) -> None:
        """Take a folder away from later jobs."""
        self._wait_for(self._remote.remove_mount(mount_id))

    def workers(self) -> JsonObject:
        """Return what is known of the workers."""
        return self._wait_for(self._remote.workers())

    def capabilities(self) -> JsonObject:
        """Return what the node can do now."""
        return self._wait_for(self._remote.capabilities())
