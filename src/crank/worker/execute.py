"""Execute: one attempt, from its lease to an outcome that is safe on disk.

Steps, marked again in the code:
 1. fetch the input files
 2. open a sandbox (or take one that is kept, for an author's function or the session's) and put the files in
 3. note durably that code of this job is about to run
 4. run it, output going live through the attempt's feed
 5. collect what it left in /out into the spool
 6. keep the outcome durably; from here on only the controller's word makes the worker forget it

Whatever happens to the link, these steps go on; `deliver` tells the controller about them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from crank.domain.json import JsonObject, dumps
from crank.domain.outcome import NEVER_BEGAN, End, Outcome, Reason, Skipped
from crank.domain.outcome_codec import outcome_document
from crank.domain.rules import session as session_rules
from crank.domain.worker import GpuDevice
from crank.errors import CrankError, InvalidRequest, SandboxError, Unavailable
from crank.ports import FunctionSpec, MountBinding, SandboxSession, SandboxSpec
from crank.wire import Lease
from crank.worker.attempt import Attempt, Bench
from crank.worker.calls import JobCalls
from crank.worker.current import CurrentLink
from crank.worker.inputs import Inputs, fetch_all
from crank.worker.offers import FunctionOffer, Offer, ScriptOffer, ShippedOffer, lowered
from crank.worker.runs import FunctionRun, Run, ScriptRun, SessionRun, ShippedRun, check_program
from crank.worker.sessions import Kept, Sessions
from crank.worker.stdin import StdinQueue

_log = structlog.get_logger(__name__)

# The sandbox keeps its own deadline; this net is for a sandbox that does not.
NET_SEC = 30.0
# As many as may stand ready, and one more that is made for the job.
_SANDBOXES_MAX = 5


@dataclass(frozen=True, slots=True)
class Seat:
    """A job's place in a session; it was entered when the lease came."""

    sessions: Sessions
    kept: Kept


@dataclass(frozen=True, slots=True)
class Order:
    """A lease with what the worker set aside for it."""

    lease: Lease
    offer: Offer
    device: GpuDevice | None
    seat: Seat | None = None


async def execute(attempt: Attempt, order: Order, bench: Bench, current: CurrentLink) -> None:
    """Bring an attempt to its outcome. Raises nothing that the job did; CancelledError when abandoned."""
    try:
        outcome = await _until_begun(attempt, order, bench, current)
    except asyncio.CancelledError:
        if not attempt.cancelled or _being_cancelled():
            raise
        outcome = _unrun(Reason.CANCELLED, "cancelled", "It was cancelled before its code began.")
    except CrankError as fault:
        _log.warning("attempt.sandbox_failed", job_id=attempt.job_id, code=fault.error_code, detail=fault.detail)
        outcome = _faulted(order, fault)
    await keep(attempt, outcome, bench)


async def _until_begun(attempt: Attempt, order: Order, bench: Bench, current: CurrentLink) -> Outcome:
    for left in reversed(range(_SANDBOXES_MAX)):
        try:
            return await _once(attempt, order, bench, current)
        except SandboxError as fault:
            if fault.error_code != NEVER_BEGAN or order.seat is not None or not left:
                raise
            # A sandbox died before it came to the job's first line; all that stood ready may have died with it.
            _log.warning("attempt.sandbox_died_ready", job_id=attempt.job_id)
    raise AssertionError("the last try returns or raises")


async def _once(attempt: Attempt, order: Order, bench: Bench, current: CurrentLink) -> Outcome:
    run: Run | None = await attempt.prepare(_prepare(order, bench, current))
    assert run is not None
    try:
        return await _run(attempt, run, order, bench)
    finally:
        await asyncio.shield(run.close())


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _unrun(reason: Reason, code: str, message: str) -> Outcome:
    return Outcome(end=End(reason, code=code, message=message))


def _faulted(order: Order, fault: CrankError) -> Outcome:
    ended = order.seat.kept.end if order.seat is not None else None
    if ended is not None:
        # Its session ended under it: that is why, whatever the first thing was that did not work.
        return Outcome(end=session_rules.cut_off(ended))
    reason = Reason.POLICY if fault.error_code == "program_not_listed" else Reason.SANDBOX_FAILED
    return _unrun(reason, fault.error_code, fault.message)


async def _prepare(order: Order, bench: Bench, current: CurrentLink) -> Run:
    lease, offer = order.lease, order.offer
    limits = lowered(offer.limits, lease)
    if isinstance(offer, FunctionOffer):
        if bench.functions is None:
            raise SandboxError("This worker runs no functions.", code="no_functions")
        spec = FunctionSpec(offer.target, offer.capability.name, limits, offer.isolation)
        return FunctionRun(await bench.functions.open(spec))  # 2
    if bench.sandbox is None:
        raise SandboxError("This worker has no sandbox.", code="no_sandbox")
    if isinstance(offer, ScriptOffer):
        check_program(offer, lease)
    inputs = await fetch_all(lease.files, bench, current)  # 1
    try:
        if order.seat is not None:
            return await _in_session(order.seat, lease, inputs, lambda sandbox: _calls(lease, sandbox, bench, current))
        devices = order.device.nodes if order.device else ()
        mounts = tuple(MountBinding(mount.name, Path(mount.host_path)) for mount in lease.mounts)
        session = await bench.sandbox.open(SandboxSpec(offer.build, limits, mounts, devices))  # 2
        try:
            await inputs.put_into(session)
        except BaseException:
            await asyncio.shield(session.close())
            raise
        if isinstance(offer, ShippedOffer):
            return ShippedRun(session, lease, offer)
        return ScriptRun(session, lease, _calls(lease, session, bench, current))
    finally:
        inputs.close()


def _calls(lease: Lease, sandbox: SandboxSession, bench: Bench, current: CurrentLink) -> JobCalls | None:
    return JobCalls(lease, sandbox, bench, current) if lease.handles else None


async def _in_session(
    seat: Seat, lease: Lease, inputs: Inputs, calls: Callable[[SandboxSession], JobCalls | None]
) -> Run:
    assert seat.kept.sandbox is not None, "a session is entered when it stands"
    run = SessionRun(seat.sessions, seat.kept, lease, calls(seat.kept.sandbox))
    await inputs.put_into(run.sandbox)
    return run


async def _run(attempt: Attempt, run: Run, order: Order, bench: Bench) -> Outcome:
    await asyncio.to_thread(bench.spool.begin, attempt.job_id, attempt.epoch)  # 3
    bench.failpoints.reach("worker.begun")
    if attempt.cancelled:
        return _unrun(Reason.CANCELLED, "cancelled", "It was cancelled before its code began.")
    if order.lease.stdin:
        attempt.stdin = StdinQueue()
    attempt.calls = run.calls
    attempt.begin(run)
    pumping = asyncio.ensure_future(attempt.stdin.pump(run)) if attempt.stdin is not None else None
    net_sec = lowered(order.offer.limits, order.lease).wall_sec + NET_SEC
    try:
        async with asyncio.timeout(net_sec):
            outcome = await run.run(order.lease.args, attempt.feed)  # 4
    except TimeoutError:
        return _unrun(Reason.SANDBOX_FAILED, "deadline_overrun", "The sandbox did not keep the job's deadline.")
    finally:
        if pumping is not None:
            pumping.cancel()
            await asyncio.wait([pumping])
    bench.failpoints.reach("worker.ran")
    if run.sandbox is not None:
        outcome = await _collect(attempt, run.sandbox, outcome, bench)  # 5
    return outcome


async def _collect(attempt: Attempt, session: SandboxSession, outcome: Outcome, bench: Bench) -> Outcome:
    try:
        return await _finish_anyway(
            asyncio.to_thread(
                session.collect, lambda source: bench.spool.put_blob(attempt.job_id, attempt.epoch, source), outcome
            )
        )
    except Unavailable as fault:
        lost = End(Reason.DISK, code="artifacts_not_kept", message=f"Its files could not be kept: {fault.message}")
        skipped = (*outcome.skipped, Skipped("/out", fault.message))
        return replace(outcome, end=lost, artifacts=(), skipped=skipped)


async def _finish_anyway(work: Awaitable[Outcome]) -> Outcome:
    # A thread cannot be cancelled: let it end before anybody closes what it works on.
    running = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


async def keep(attempt: Attempt, outcome: Outcome, bench: Bench) -> None:
    """Keep an outcome durably, then let it be delivered."""
    document = _document(outcome)
    try:
        await asyncio.to_thread(bench.spool.finish, attempt.job_id, attempt.epoch, document)  # 6
    except Unavailable as fault:
        # Still told while this process lives; after a crash the attempt is reported as interrupted.
        _log.error("attempt.outcome_not_durable", job_id=attempt.job_id, code=fault.error_code, detail=fault.detail)
    bench.failpoints.reach("worker.kept")
    attempt.finish(document)


def _document(outcome: Outcome) -> JsonObject:
    document = outcome_document(outcome)
    try:
        dumps(document).encode()
    except (ValueError, InvalidRequest):
        # A result that is not JSON must not stop the worker from saying that it is so.
        end = End(Reason.PROTOCOL_VIOLATION, code="outcome_not_json", message="The job's result is not JSON.")
        plain = Outcome(end=end, usage=outcome.usage, tier=outcome.tier)
        document = outcome_document(plain)
    return document
