"""Scripts in a session of their own whose call is cut off: at whatever moment, no session stays that nobody knows."""

import asyncio
from dataclasses import replace

from crank.api.mcp import calls, shapes
from crank.api.mcp.errands import Errands
from crank.api.peer import Caller, Gate
from crank.domain.ids import LOCAL_TENANT
from crank.testing.fake_sandbox import ScriptedRun
from tests.support.desk import SECRET
from tests.support.pair import paired, until

SCRIPT = {"forever": ScriptedRun(end=None)}
# Sessions that are being closed must not make a worker look full.
MANY = {"count_max": 99, "memory_bytes_max": 1 << 40}
MOMENTS_MAX = 60


class Cutting:
    """A store that cuts a call off in the middle of its n-th step, and still takes that step."""

    def __init__(self, store, moment):
        self._store = store
        self._left = moment
        self.call: asyncio.Task[calls.Told]

    async def transact(self, work):
        """Change what the work changes, cutting off when it is time."""
        self._cut()
        return await self._store.transact(work)

    async def read(self, work):
        """Read what the work reads, cutting off when it is time."""
        self._cut()
        return await self._store.read(work)

    def _cut(self):
        if self._left == 0:
            self.call.cancel()
        self._left -= 1


async def _live(desk):
    return [one.session_id for one in await desk.store.read(lambda tx: list(tx.sessions.live()))]


async def _told(_elapsed_sec, _message):
    pass


async def _begin(desk, errands, store, **fields):
    credential = (await Gate(desk).admit_secret(SECRET)).credential
    call = calls.Call(Caller(credential, replace(desk, store=store)), _told, errands, desk.clock.monotonic_sec())
    asked = shapes.RunPython(code="forever", session="new", **fields)
    return asyncio.create_task(calls.run_python(call, asked))


async def test_no_step_leaves_a_session_open(desk):
    """Cut off inside of each step that the call takes, from the first to the last, it leaves neither session nor job."""
    async with paired(desk, SCRIPT, **MANY) as pair:
        cutting, moment = Cutting(desk.store, 0), 0
        for moment in range(MOMENTS_MAX):
            errands, cutting = Errands(), Cutting(desk.store, moment)
            cutting.call = await _begin(desk, errands, cutting, wait_sec=0)
            await asyncio.wait([cutting.call])
            await errands.finish()
            if not cutting.call.cancelled():
                break
            assert await _live(desk) == [], moment
        await until(lambda: sum(sandbox.alive for sandbox in pair.runner.sessions) == 1)
        told = cutting.call.result().document
        assert await _live(desk) == [told["session"]]
        jobs = await desk.store.read(lambda tx: list(tx.jobs.page(LOCAL_TENANT, limit=99, before=None, status=None)))
        assert all(job.cancel_requested or job.ended for job in jobs if job.job_id != told["job_id"])
        assert moment > 5


async def test_no_turn_of_the_loop_leaves_a_session_open(desk):
    """Cut off after any number of the loop's turns, so while it waits for the worker too, it leaves no session."""
    async with paired(desk, SCRIPT, **MANY):
        for turns in (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987):
            errands = Errands()
            calling = await _begin(desk, errands, desk.store, wait_sec=40)
            for _ in range(turns):
                await asyncio.sleep(0)
            calling.cancel()
            await asyncio.wait([calling])
            await errands.finish()
            assert await _live(desk) == [], turns


async def test_a_detached_script_keeps_its_session(desk):
    """What was to go on goes on, in the session that it runs in."""
    async with paired(desk, SCRIPT, **MANY):
        errands = Errands()
        calling = await _begin(desk, errands, desk.store, wait_sec=40, detach=True)

        async def runs():
            jobs = await desk.store.read(lambda tx: list(tx.jobs.page(LOCAL_TENANT, limit=9, before=None, status=None)))
            return [job for job in jobs if job.status == "running"]

        await until(runs)
        calling.cancel()
        await asyncio.wait([calling])
        await errands.finish()
        (job,) = await runs()
        assert (await _live(desk), job.cancel_requested) == ([job.request.session_id], False)


async def test_a_stopping_node_does_not_wait_for_a_worker_that_says_nothing(desk, monkeypatch):
    """Whoever is cut off while a session opens leaves nothing open, and the end of the node is not held up by it."""
    async with paired(desk, SCRIPT, **MANY) as pair:
        monkeypatch.setattr(pair.worker, "_session", lambda _message: None)
        errands = Errands()
        calling = await _begin(desk, errands, desk.store)
        await until(lambda: _live(desk))
        calling.cancel()
        await asyncio.wait([calling])
        errands.closing.set()
        async with asyncio.timeout(30):
            await errands.finish()
        assert await _live(desk) == []
