"""Report: everything that an enrolled worker says after its hello."""

from dataclasses import replace

from crank.controller.call_from_job import begin_call
from crank.controller.complete import complete, end_job
from crank.controller.desk import Desk
from crank.controller.end_session import on_ended, on_listed, on_opened, on_unknown
from crank.controller.forsake import end_forsaken
from crank.controller.reach import answered
from crank.controller.roster import LiveWorker
from crank.controller.take_over import on_held
from crank.controller.tell_trust import on_trusted
from crank.domain.capability import CAPABILITIES_MAX
from crank.domain.ids import LOCAL_TENANT, JobId
from crank.domain.job import Job
from crank.domain.outcome import End, Reason
from crank.domain.rules import lease
from crank.domain.rules.session import SESSION_ENDED, SESSION_UNKNOWN
from crank.errors import ProtocolError
from crank.ports import Transaction
from crank.wire import (
    Answered,
    Beat,
    Declined,
    Draining,
    Ended,
    Finished,
    Held,
    JobEvent,
    Message,
    Opened,
    Output,
    Pools,
    Sessions,
    Started,
    Trusted,
)
from crank.wire.calls import Call

# Why a worker may hand a lease back so that another try is right; every other code ends the job.
_TRY_ELSEWHERE = frozenset({"busy", "draining"})
_PAUSE_SEC = 0.5


async def receive(desk: Desk, *, worker: LiveWorker, message: Message) -> None:
    """Act on one message. Raises ProtocolError for one that a worker may not send."""
    async with worker.turn:
        if worker.successor is None:
            worker.beat_at_sec = desk.clock.monotonic_sec()
            await _receive(desk, worker, message)
        elif isinstance(message, Answered):
            # Said before the newer link stood. All else is said again on that one.
            answered(worker.successor, message)
        elif isinstance(message, Call):
            begin_call(desk, worker.latest, message)


async def _receive(desk: Desk, worker: LiveWorker, message: Message) -> None:
    match message:
        case Beat():
            if worker.free_slots(worker.beat_at_sec) and not desk.watch.work.is_set():
                desk.watch.work.set()
        case Pools():
            worker.pools = message.pools[:CAPABILITIES_MAX]
        case Started():
            await _started(desk, worker, message)
        case Output():
            await _output(desk, worker, message)
        case Finished():
            await _finished(desk, worker, message)
        case Declined():
            await _declined(desk, worker, message)
        case Draining():
            worker.draining = True
        case Call():
            begin_call(desk, worker, message)
        case _:
            await _receive_later_kinds(desk, worker, message)


async def _receive_later_kinds(desk: Desk, worker: LiveWorker, message: Message) -> None:
    match message:
        case Opened():
            await on_opened(desk, worker, message)
        case Ended():
            await on_ended(desk, worker, message)
        case Sessions():
            await on_listed(desk, worker, message)
        case Answered():
            answered(worker, message)
        case Trusted():
            on_trusted(desk, worker, message)
        case Held():
            await on_held(desk, worker, message)
        case _:
            raise ProtocolError(f"A worker may not send {type(message).__name__}.")


async def _finished(desk: Desk, worker: LiveWorker, message: Finished) -> None:
    held = worker.leases.get(JobId(message.job_id))
    await complete(desk, worker=worker, message=message)
    if held is not None and held.hands:
        # At once, and not at the next look: what it called for is of use to nobody any more.
        await end_forsaken(desk)


async def _started(desk: Desk, worker: LiveWorker, message: Started) -> None:
    job_id = JobId(message.job_id)

    def note(tx: Transaction) -> None:
        job = tx.jobs.find(LOCAL_TENANT, job_id)
        if job is not None and lease.is_current(job, worker.known.worker_id, message.epoch):
            tx.jobs.update(lease.start(job, desk.clock.now_us()))

    await desk.store.transact(note)
    desk.failpoints.reach("report.started")
    desk.watch.moved(LOCAL_TENANT, job_id)


async def _output(desk: Desk, worker: LiveWorker, message: Output) -> None:
    job_id = JobId(message.job_id)
    held = worker.leases.get(job_id)
    if held is None or held.epoch != message.epoch:
        return
    fresh: list[JobEvent] = []
    for event in message.events:
        # A resent event is dropped; a gap means that something was lost on the way.
        if event.seq < held.next_seq:
            continue
        if event.seq > held.next_seq or event.epoch != message.epoch:
            raise ProtocolError("The events of an attempt have a gap.")
        held.next_seq += 1
        fresh.append(event)
    if fresh:
        await desk.streams.append(job_id, fresh)
        desk.watch.moved(LOCAL_TENANT, job_id)


async def _declined(desk: Desk, worker: LiveWorker, message: Declined) -> None:
    job_id = JobId(message.job_id)

    def settle(tx: Transaction) -> None:
        job = tx.jobs.find(LOCAL_TENANT, job_id)
        if job is None or not lease.is_current(job, worker.known.worker_id, message.epoch):
            return
        if message.code in _TRY_ELSEWHERE and not job.cancel_requested:
            tx.jobs.update(_uncounted(lease.requeue(job)))
            return
        if message.code in (SESSION_ENDED, SESSION_UNKNOWN) and not job.cancel_requested:
            # It never began: the session was over before its turn came.
            end = End(Reason.REFUSED, code=SESSION_ENDED, message=message.message)
            end_job(desk, tx, lease.requeue(job), end, subject=worker.known.worker_id)
            return
        reason = Reason.CANCELLED if job.cancel_requested else Reason.SANDBOX_FAILED
        end_job(desk, tx, job, End(reason, code=message.code, message=message.message), subject=worker.known.worker_id)

    await desk.store.transact(settle)
    if message.code == SESSION_UNKNOWN:
        await on_unknown(desk, worker, job_id)
    if (live := worker.leases.get(job_id)) is not None and live.epoch == message.epoch:
        del worker.leases[job_id]
    worker.paused_until_sec = desk.clock.monotonic_sec() + _PAUSE_SEC
    desk.watch.changed(LOCAL_TENANT, job_id)
    desk.watch.work.set()


def _uncounted(job: Job) -> Job:
    return replace(job, attempts=job.attempts - 1)
