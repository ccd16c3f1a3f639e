"""What an attempt runs: a script or program in a fresh sandbox, in a session, or an author's function."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any, Protocol

from crank.domain.ids import JobId
from crank.domain.json import JsonValue
from crank.domain.outcome import End, Outcome, Reason
from crank.domain.profile import Limits
from crank.domain.rules import session as rules
from crank.errors import Conflict, CrankError, InvalidRequest, NotSupported, SandboxError
from crank.ports import FunctionCall, OutputSink, SandboxSession
from crank.wire import Lease
from crank.worker.calls import JobCalls
from crank.worker.functions import told
from crank.worker.offers import ScriptOffer, ShippedOffer, lowered
from crank.worker.sessions import Kept, Sessions

# How long a job of a session may take to end after an interrupt, before its sandbox is taken from it.
CANCEL_GRACE_SEC = 5.0
# A call may come in the moment between the word that a job runs and its first line.
_BEGIN_SEC = 5.0
_NOT_YET_SEC = 0.02
# What the controller itself hands to a job lies here in /scratch; no file of a caller does.
OWN_FILES = ".crank/"


class Run(Protocol):
    """What every run has in common. `sandbox` is what leaves artifacts, None for a function; `calls` those of its code."""

    tier: str

    @property
    def sandbox(self) -> SandboxSession | None:
        """Return the sandbox, or None."""
        ...

    @property
    def calls(self) -> JobCalls | None:
        """Return what takes the calls of its code, or None."""
        ...

    async def run(self, args: JsonValue, sink: OutputSink) -> Outcome:
        """Run to the end."""
        ...

    async def stop(self, reason: Reason) -> None:
        """End the run now with this reason."""
        ...

    async def interrupt(self) -> None:
        """Send SIGINT. Raises Conflict, NotSupported."""
        ...

    async def write_stdin(self, chunk: bytes) -> None:
        """Send bytes to stdin. Raises Conflict, NotSupported."""
        ...

    async def close_stdin(self) -> None:
        """End stdin. Raises Conflict, NotSupported."""
        ...

    async def close(self) -> None:
        """Free what the run held. Safe to call twice."""
        ...


class FunctionRun:
    """An author's function, as a run."""

    sandbox: None = None
    calls: None = None

    def __init__(self, call: FunctionCall) -> None:
        self.tier = call.tier
        self._call = call

    async def run(self, args: JsonValue, sink: OutputSink) -> Outcome:
        """Run the function."""
        return await self._call.run(args, sink)

    async def stop(self, reason: Reason) -> None:
        """End the call."""
        await self._call.stop(reason)

    async def interrupt(self) -> None:
        """Raise NotSupported: a function can only be cancelled."""
        raise NotSupported("A function is not interrupted.", fix="Cancel the job instead.")

    async def write_stdin(self, chunk: bytes) -> None:
        """Raise NotSupported."""
        raise NotSupported("A function has no stdin.")

    async def close_stdin(self) -> None:
        """Raise NotSupported."""
        raise NotSupported("A function has no stdin.")

    async def close(self) -> None:
        """Kill what is left."""
        await self._call.close()


class ScriptRun:
    """A script or a program in a sandbox of its own."""

    def __init__(self, sandbox: SandboxSession, lease: Lease, calls: JobCalls | None = None) -> None:
        self.tier = sandbox.tier
        self.sandbox: SandboxSession = sandbox
        self.calls = calls
        self._lease = lease

    async def run(self, args: JsonValue, sink: OutputSink) -> Outcome:
        """Run what the lease names."""
        return await self._run(args, sink, limits=None)

    async def _run(self, args: JsonValue, sink: OutputSink, *, limits: Limits | None) -> Outcome:
        lease = self._lease
        if lease.program is not None:
            return await self.sandbox.run_program(lease.program, sink, limits=limits, stdin=lease.stdin)
        assert lease.code is not None, "checked before it was opened"
        how: dict[str, Any] = {"context": lease.context or "main", "limits": limits, "stdin": lease.stdin}
        if self.calls is not None:
            how["calls"] = self.calls
        return await self.sandbox.run_python(lease.code, args, sink, **how)

    async def stop(self, reason: Reason) -> None:
        """End the run."""
        await self.sandbox.stop(reason)

    async def interrupt(self) -> None:
        """Send SIGINT, waiting for the first line if that is about to run. Raises Conflict."""
        tries = round(_BEGIN_SEC / _NOT_YET_SEC)
        for left in reversed(range(tries)):
            try:
                await self.sandbox.signal("SIGINT")
                return
            except Conflict:
                if not left:
                    raise
                await asyncio.sleep(_NOT_YET_SEC)

    async def write_stdin(self, chunk: bytes) -> None:
        """Send bytes to stdin."""
        await self.sandbox.write_stdin(chunk)

    async def close_stdin(self) -> None:
        """End stdin."""
        await self.sandbox.close_stdin()

    async def close(self) -> None:
        """Kill what is left."""
        await self.sandbox.close()


class ShippedRun(ScriptRun):
    """A capability that comes with Crank, in a sandbox of its own: its code, and an order made of the lease."""

    def __init__(self, sandbox: SandboxSession, lease: Lease, offer: ShippedOffer) -> None:
        super().__init__(sandbox, lease)
        self._offer = offer

    async def run(self, args: JsonValue, sink: OutputSink) -> Outcome:
        """Run it, and read its answer as that of a function."""
        lease, offer = self._lease, self._offer
        order = {
            "capability": offer.capability.name,
            "args": args if isinstance(args, Mapping) else {},
            "files": [file.path for file in lease.files if not file.path.startswith(OWN_FILES)],
            "mounts": [mount.name for mount in lease.mounts],
            "limits": asdict(lowered(offer.limits, lease)),
            "version": offer.marks,
        }
        outcome = told(await self.sandbox.run_python(offer.code, order, sink))
        code = outcome.end.code
        if outcome.end.reason is Reason.RAISED and code is not None and code not in offer.capability.error_codes:
            return replace(outcome, end=replace(outcome.end, code="bad_answer"))
        return outcome


class SessionRun(ScriptRun):
    """A script or a program in a session. Cancelling interrupts it; only one that does not yield ends the session."""

    def __init__(self, sessions: Sessions, kept: Kept, lease: Lease, calls: JobCalls | None = None) -> None:
        assert kept.sandbox is not None, "a session is entered when it stands"
        super().__init__(kept.sandbox, lease, calls)
        self._sessions = sessions
        self._kept = kept
        self._limits = lowered(kept.limits, lease)
        self._stopping: Reason | None = None
        self._over = asyncio.Event()
        self._end: End | None = None

    async def run(self, args: JsonValue, sink: OutputSink) -> Outcome:
        """Run what the lease names, with the state that earlier jobs left."""
        try:
            outcome = self._ended(await self._run(args, sink, limits=self._limits))
        finally:
            self._over.set()
        self._end = outcome.end
        return outcome

    def _ended(self, outcome: Outcome) -> Outcome:
        if self._kept.end is not None and outcome.end.reason is Reason.CANCELLED:
            return replace(outcome, end=rules.cut_off(self._kept.end))
        finished = outcome.end.reason is Reason.EXITED and outcome.end.exit_code == 0
        if self._stopping is Reason.CANCELLED and not finished and self.sandbox.alive:
            message = "It was interrupted; its session lives on."
            return replace(outcome, end=End(Reason.CANCELLED, code="cancelled", message=message))
        return outcome

    async def stop(self, reason: Reason) -> None:
        """Interrupt the run; end the session when that does not help."""
        self._stopping = reason
        with suppress(CrankError, TimeoutError):
            async with asyncio.timeout(CANCEL_GRACE_SEC):
                await self.interrupt()
                await self._over.wait()
        if not self._over.is_set():
            await self.sandbox.stop(reason)

    async def interrupt(self) -> None:
        """Send SIGINT to this run, and to none that comes after it. Raises Conflict."""
        if self._over.is_set():
            raise Conflict("This run has ended.", code="not_running")
        await super().interrupt()

    async def close(self) -> None:
        """Leave the session to its next job."""
        self._sessions.rest(self._kept, JobId(self._lease.job_id), self._end)


def check_program(offer: ScriptOffer, lease: Lease) -> None:
    """Check that the lease says what to run. Raises InvalidRequest (`program_not_listed`), SandboxError."""
    if lease.program is None:
        if lease.code is None:
            raise SandboxError("The lease has no code and no program.", code="no_code")
        return
    listed = offer.build.profile.programs
    if not lease.program or lease.program[0] not in listed:
        name = lease.program[0] if lease.program else ""
        has = ", ".join(sorted(listed)) or "none"
        raise InvalidRequest(
            f"{name[:80]!r} is not a program of {offer.build.profile.name}, which has: {has}.",
            code="program_not_listed",
            field="program",
        )
