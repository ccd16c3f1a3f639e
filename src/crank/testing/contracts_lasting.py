"""The promises of a session that lasts, as tests that every sandbox adapter passes.

Subclass one of the two beside the suites of `contracts_sandbox`. `LastingProtocol` needs no real execution: a
fake is told what each script does. `LastingExecution` adds what only a real sandbox can show.
"""

import asyncio
import io
from contextlib import AsyncExitStack
from typing import Any

from crank.domain.outcome import Outcome, Reason
from crank.errors import Conflict, InvalidRequest, NotFound, SandboxError
from crank.ports import SandboxRunner, SandboxSession, SandboxSpec
from crank.testing.contracts_sandbox import RecordingSink
from crank.testing.expect import faults

# The scripts of the protocol part; a fake is told what each does.
SETS = "x = 20\n'set'"
FAILS = "1 / 0"
WAITS = "import sys, time\nsys.stdout.write('begun\\n')\nwhile True:\n    time.sleep(60)\n"
ECHOES = "import sys\nprint(sys.stdin.read(), end='')"
LEAVES = "import os\nos.makedirs('made/deep', exist_ok=True)\nopen('made/deep/a.txt', 'w').write('hello')\n'left'"
DIES = "import os\nos.kill(os.getpid(), 9)"

_SOON_SEC = 30.0


class LastingProtocol:
    """How a lasting session behaves, whatever runs inside."""

    def make_runner(self) -> SandboxRunner:
        """Return a runner that was not started."""
        raise NotImplementedError

    def make_spec(self, **limits: float) -> SandboxSpec:
        """Return a spec of a lasting session, with some limits changed."""
        raise NotImplementedError

    async def _session(self, stack: AsyncExitStack, **limits: float) -> SandboxSession:
        runner = self.make_runner()
        stack.push_async_callback(runner.stop)
        await runner.start()
        session = await runner.open(self.make_spec(**limits))
        stack.push_async_callback(session.close)
        return session

    async def test_a_lasting_session_runs_again_and_again(self) -> None:
        """After a run that ended well, and after one that raised, the session is alive and runs the next."""
        async with AsyncExitStack() as stack:
            session = await self._session(stack)
            for code, reason in ((SETS, Reason.EXITED), (FAILS, Reason.RAISED), (SETS, Reason.EXITED)):
                outcome = await soon(session.run_python(code, None, RecordingSink()))
                assert (outcome.end.reason, session.alive) == (reason, True)

    async def test_an_interrupt_ends_the_run_and_not_the_session(self) -> None:
        """SIGINT raises KeyboardInterrupt in the code; the session runs on."""
        async with AsyncExitStack() as stack:
            session = await self._session(stack)
            running, _ = await _begun(session, WAITS)
            await session.signal("SIGINT")
            outcome = await soon(running)
            assert outcome.end.reason is Reason.RAISED
            assert (outcome.end.message or "").startswith("KeyboardInterrupt")
            assert session.alive
            again = await soon(session.run_python(SETS, None, RecordingSink()))
            assert again.end.reason is Reason.EXITED

    async def test_stopping_ends_run_and_session(self) -> None:
        """A stopped session ends its run with the reason given, is dead, and refuses the next."""
        async with AsyncExitStack() as stack:
            session = await self._session(stack)
            running, _ = await _begun(session, WAITS)
            await session.stop(Reason.CANCELLED)
            outcome = await soon(running)
            assert (outcome.end.reason, outcome.stdout.text) == (Reason.CANCELLED, "begun\n")
            assert not session.alive
            with faults(SandboxError):
                await session.run_python(SETS, None, RecordingSink())

    async def test_a_sandbox_that_died_says_so(self) -> None:
        """A run that kills its process ends by its signal, and the session is dead."""
        async with AsyncExitStack() as stack:
            session = await self._session(stack)
            outcome = await soon(session.run_python(DIES, None, RecordingSink()))
            assert outcome.end.reason is Reason.SIGNALLED
            assert not session.alive

    async def test_stdin_reaches_what_runs(self) -> None:
        """What is written to stdin arrives, and its end ends the reading; unless asked for, stdin is empty."""
        async with AsyncExitStack() as stack:
            session = await self._session(stack)
            running = asyncio.ensure_future(session.run_python(ECHOES, None, RecordingSink(), stdin=True))
            await _accepted(session.write_stdin, b"one ", running)
            await session.write_stdin(b"two")
            await session.close_stdin()
            assert (await soon(running)).stdout.text == "one two"
            with faults(Conflict, "not_running"):
                await session.write_stdin(b"late")
            assert (await soon(session.run_python(ECHOES, None, RecordingSink()))).stdout.text == ""

    async def test_files_come_and_go_between_runs(self) -> None:
        """Files are put, listed, read and removed at any time; what a run left is there too."""
        async with AsyncExitStack() as stack:
            session = await self._session(stack)
            await session.put_file("b.txt", io.BytesIO(b"first"))
            await session.put_file("b.txt", io.BytesIO(b"second, longer"))
            await soon(session.run_python(LEAVES, None, RecordingSink()))
            listed = [(one.path, one.kind, one.size_bytes) for one in await session.list_files()]
            assert listed == [("b.txt", "file", 14), ("made", "folder", 0)]
            assert [one.path for one in await session.list_files("made/deep")] == ["made/deep/a.txt"]
            target = io.BytesIO()
            assert await session.get_file("made/deep/a.txt", target) == 5
            assert target.getvalue() == b"hello"
            await session.remove_file("made")
            await session.remove_file("b.txt")
            assert await session.list_files() == ()

    async def test_files_that_are_not_there_are_not_found(self) -> None:
        """Reading, listing or removing what is not there says so; paths that leave the session are refused."""
        async with AsyncExitStack() as stack:
            session = await self._session(stack)
            for operation in (session.list_files, session.remove_file, _get(session)):
                with faults(NotFound, "file_not_found"):
                    await operation("nothing")
                with faults(InvalidRequest):
                    await operation("../etc/passwd")


class LastingExecution(LastingProtocol):
    """What code sees in a lasting session that really runs it."""

    async def test_state_stays_between_runs(self) -> None:
        """Variables, imports, the working folder and files live on, through an exception and an interrupt."""
        async with AsyncExitStack() as stack:
            session = await self._session(stack)
            await soon(session.run_python("import os\nx = 40\nos.mkdir('w')\nos.chdir('w')", None, RecordingSink()))
            await soon(session.run_python(FAILS, None, RecordingSink()))
            running, _ = await _begun(session, WAITS)
            await session.signal("SIGINT")
            await soon(running)
            outcome = await soon(session.run_python("[x + 2, os.getcwd()]", None, RecordingSink()))
            assert outcome.result == [42, "/scratch/w"]

    async def test_contexts_have_globals_of_their_own(self) -> None:
        """A name set in one context is not seen in another."""
        async with AsyncExitStack() as stack:
            session = await self._session(stack)
            await soon(session.run_python("x = 1", None, RecordingSink(), context="a"))
            await soon(session.run_python("x = 2", None, RecordingSink(), context="b"))
            outcome = await soon(session.run_python("x", None, RecordingSink(), context="a"))
            assert outcome.result == 1
            missing = await soon(session.run_python("x", None, RecordingSink()))
            assert (missing.end.message or "").startswith("NameError")


async def soon(work: Any) -> Outcome:
    """Return how a run ended; a run that hangs fails the test."""
    outcome: Outcome = await asyncio.wait_for(work, _SOON_SEC)
    return outcome


async def _begun(session: SandboxSession, code: str) -> tuple[asyncio.Future[Outcome], RecordingSink]:
    sink = RecordingSink()
    running = asyncio.ensure_future(session.run_python(code, None, sink))
    await asyncio.wait_for(sink.arrived.wait(), _SOON_SEC)
    return running, sink


async def _accepted(write: Any, chunk: bytes, running: asyncio.Future[Outcome]) -> None:
    # The run begins in the background; until then there is nobody to write to.
    async with asyncio.timeout(_SOON_SEC):
        while not running.done():
            try:
                await write(chunk)
                return
            except Conflict:
                await asyncio.sleep(0)


def _get(session: SandboxSession) -> Any:
    return lambda path: session.get_file(path, io.BytesIO())
