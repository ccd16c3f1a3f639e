"""The promises of SandboxRunner and SandboxSession, as tests that every adapter passes.

Subclass one of the two in a test module, say how a runner and a spec are made, and pytest (with
pytest-asyncio in automatic mode) does the rest. `SandboxProtocol` needs no real execution: a fake passes it.
`SandboxExecution` adds what only a real sandbox can show.
"""

import asyncio
import hashlib
import io
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from crank.domain.ids import Digest
from crank.domain.json import JsonValue
from crank.domain.outcome import Clock, Outcome, Reason
from crank.errors import Conflict, InvalidRequest, SandboxError
from crank.ports import SandboxRunner, SandboxSession, SandboxSpec

# The scripts of the protocol part; a fake is told what each does.
HELLO = "print('hello')\n6 * 7\n"
FOREVER = "print('begun')\nwhile True:\n    pass\n"
LEAVES_A_FILE = "open('/out/report.md', 'w').write('# done')\n"

_SOON_SEC = 30.0
_BAD_PATHS = ("../x", "/x", "a/../../b", "a\\b", "a\0b", "a.", "a ", "", ".", "a//b", "e\u0301", "a\nb", "\u202ea")


@dataclass(slots=True)
class RecordingSink:
    """Takes output and progress, and says when something has arrived."""

    chunks: list[tuple[str, str, int, float]] = field(default_factory=list)
    told: list[tuple[float | None, str]] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def output(self, stream: str, text: str, offset_bytes: int, at_sec: float) -> None:
        """Keep a piece of output."""
        self.chunks.append((stream, text, offset_bytes, at_sec))
        self.arrived.set()

    def progress(self, fraction: float | None, message: str) -> None:
        """Keep what was told."""
        self.told.append((fraction, message))

    def text(self, stream: str) -> str:
        """Return everything that one stream brought."""
        return "".join(chunk[1] for chunk in self.chunks if chunk[0] == stream)


class Shelf:
    """Stores blobs in memory, for `collect`."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}

    def __call__(self, source: BinaryIO) -> Digest:
        """Keep everything the source holds and return its digest."""
        content = source.read()
        digest = Digest(hashlib.sha256(content).hexdigest())
        self.blobs[digest] = content
        return digest


class SandboxProtocol:
    """How a runner and its sessions behave, whatever runs inside."""

    def make_runner(self) -> SandboxRunner:
        """Return a runner that was not started."""
        raise NotImplementedError

    def make_spec(self, **limits: float) -> SandboxSpec:
        """Return a spec with some limits changed."""
        raise NotImplementedError

    async def _session(self, stack: AsyncExitStack, **limits: float) -> SandboxSession:
        runner = self.make_runner()
        stack.push_async_callback(runner.stop)
        await runner.start()
        session = await runner.open(self.make_spec(**limits))
        stack.push_async_callback(session.close)
        return session

    async def _run(
        self, code: str, args: JsonValue = None, sink: RecordingSink | None = None, **limits: float
    ) -> Outcome:
        async with AsyncExitStack() as stack:
            session = await self._session(stack, **limits)
            return await asyncio.wait_for(session.run_python(code, args, sink or RecordingSink()), _SOON_SEC)

    async def test_output_reaches_the_sink_and_the_outcome(self) -> None:
        """What a job prints is told while it runs and kept at the end, with its result."""
        sink = RecordingSink()
        outcome = await self._run(HELLO, sink=sink)
        assert outcome.end.reason is Reason.EXITED
        assert outcome.end.exit_code == 0
        assert sink.text("stdout") == outcome.stdout.text == "hello\n"
        assert sink.chunks[0][2] == 0
        assert (outcome.has_result, outcome.result) == (True, 42)
        assert not outcome.stdout.truncated

    async def test_stop_ends_the_run_with_its_reason(self) -> None:
        """A run that is stopped ends with the reason given, and keeps what it printed."""
        async with AsyncExitStack() as stack:
            session = await self._session(stack)
            sink = RecordingSink()
            running = asyncio.ensure_future(session.run_python(FOREVER, None, sink))
            await asyncio.wait_for(sink.arrived.wait(), _SOON_SEC)
            await session.stop(Reason.CANCELLED)
            outcome = await asyncio.wait_for(running, _SOON_SEC)
        assert outcome.end.reason is Reason.CANCELLED
        assert outcome.stdout.text.startswith("begun")
        assert not outcome.has_result

    async def test_cancelling_the_caller_ends_the_run(self) -> None:
        """Cancelling whoever awaits the run ends the run first, and the session can still be closed."""
        async with AsyncExitStack() as stack:
            session = await self._session(stack)
            sink = RecordingSink()
            running = asyncio.ensure_future(session.run_python(FOREVER, None, sink))
            await asyncio.wait_for(sink.arrived.wait(), _SOON_SEC)
            running.cancel()
            done, _ = await asyncio.wait({running}, timeout=_SOON_SEC)
            assert done
            assert running.cancelled()

    async def test_a_session_runs_once(self) -> None:
        """A second run in one session is refused, not mixed with the first."""
        async with AsyncExitStack() as stack:
            session = await self._session(stack)
            await session.run_python(HELLO, None, RecordingSink())
            assert await _refused(session.run_python(HELLO, None, RecordingSink()))

    async def test_what_is_not_there_is_refused(self) -> None:
        """A program that the profile does not list, and stdin or signals while nothing runs, are refused."""
        async with AsyncExitStack() as stack:
            session = await self._session(stack)
            assert await _refused(session.run_program(["true"], RecordingSink()))
            assert await _refused(session.write_stdin(b"x"))
            assert await _refused(session.signal("SIGINT"))

    async def test_paths_of_files_stay_inside(self) -> None:
        """A file's path that could leave /scratch, or that tricks its reader, is refused."""
        async with AsyncExitStack() as stack:
            session = await self._session(stack)
            accepted = []
            for path in _BAD_PATHS:
                try:
                    await session.put_file(path, io.BytesIO(b"x"))
                    accepted.append(path)
                except InvalidRequest:
                    continue
            assert accepted == []

    async def test_artifacts_are_stored_and_listed(self) -> None:
        """A file left in /out is stored under its digest and listed with size and media type."""
        async with AsyncExitStack() as stack:
            session = await self._session(stack)
            outcome = await session.run_python(LEAVES_A_FILE, None, RecordingSink())
            assert outcome.artifacts == ()
            shelf = Shelf()
            outcome = await asyncio.to_thread(session.collect, shelf, outcome)
        (artifact,) = outcome.artifacts
        assert (artifact.path, artifact.size_bytes, artifact.media_type) == ("report.md", 6, "text/markdown")
        assert shelf.blobs[artifact.sha256] == b"# done"

    async def test_closing_twice_is_harmless(self) -> None:
        """Closing a session and stopping a runner twice does nothing more."""
        runner = self.make_runner()
        await runner.start()
        session = await runner.open(self.make_spec())
        await session.close()
        await session.close()
        await runner.stop()
        await runner.stop()

    async def test_a_stopped_runner_opens_nothing(self) -> None:
        """After stop there are no new sessions."""
        runner = self.make_runner()
        await runner.start()
        await runner.stop()
        try:
            await runner.open(self.make_spec())
        except SandboxError:
            return
        raise AssertionError("a stopped runner opened a session")

    async def test_outcomes_name_the_tier(self) -> None:
        """Every outcome says which isolation really held."""
        runner = self.make_runner()
        outcome = await self._run(HELLO)
        assert outcome.tier == runner.tier


async def _refused(operation: Any) -> bool:
    try:
        await operation
    except (InvalidRequest, Conflict):
        return True
    return False


class SandboxExecution(SandboxProtocol):
    """What a job sees and leaves, in a sandbox that really runs it."""

    async def test_args_are_a_global(self) -> None:
        """The job finds its arguments in `args`, and its own name is `__main__`."""
        outcome = await self._run("[args, __name__]", {"n": 1, "text": "ü"})
        assert outcome.result == [{"n": 1, "text": "ü"}, "__main__"]

    async def test_the_global_result_wins(self) -> None:
        """The global `result` is the result, even where the script ends in another expression."""
        assert (await self._run("result = 'this'\n'that'")).result == "this"

    async def test_no_result_is_no_result(self) -> None:
        """A script that ends in no value has no result; one that sets None has."""
        assert (await self._run("x = 1")).has_result is False
        outcome = await self._run("result = None")
        assert (outcome.has_result, outcome.result) == (True, None)

    async def test_values_become_json(self) -> None:
        """Common values have the JSON form that a person would expect."""
        outcome = await self._run(
            "import dataclasses, datetime, decimal, enum, pathlib, uuid\n"
            "@dataclasses.dataclass\n"
            "class Point:\n    x: int\n    y: float\n"
            "class Colour(enum.Enum):\n    RED = 'red'\n"
            "{'point': Point(1, 2.5), 'day': datetime.date(2026, 1, 2), 'sum': decimal.Decimal('1.10'),\n"
            " 'path': pathlib.Path('/out/x'), 'colour': Colour.RED, 'pair': (1, None), 3: True,\n"
            " 'id': uuid.UUID(int=0)}"
        )
        assert outcome.result == {
            "point": {"x": 1, "y": 2.5},
            "day": "2026-01-02",
            "sum": "1.10",
            "path": "/out/x",
            "colour": "red",
            "pair": [1, None],
            "3": True,
            "id": "00000000-0000-0000-0000-000000000000",
        }

    async def test_a_result_without_json_form_is_told(self) -> None:
        """A value with no JSON form does not fail the job: it is told, and shown as text."""
        outcome = await self._run("object()")
        assert outcome.end.reason is Reason.EXITED
        assert outcome.end.exit_code == 0
        assert not outcome.has_result
        assert "no JSON form" in (outcome.end.message or "")
        assert "no JSON form" in outcome.stderr.text
        assert outcome.displays[0]["text/plain"].startswith("<object")

    async def test_an_exception_is_reported_with_the_jobs_lines(self) -> None:
        """An uncaught exception ends as raised; its traceback shows the job's own lines and nothing of ours."""
        outcome = await self._run("def f(n):\n    return 1 / n\n\nf(0)\n")
        assert outcome.end.reason is Reason.RAISED
        assert outcome.end.exit_code == 1
        assert outcome.end.message == "ZeroDivisionError: division by zero"
        assert 'File "job.py", line 2, in f' in outcome.stderr.text
        assert "return 1 / n" in outcome.stderr.text
        assert "guest" not in outcome.stderr.text

    async def test_a_script_that_does_not_parse_says_where(self) -> None:
        """Broken code ends as raised and points at its line."""
        outcome = await self._run("x = 1\nif x\n")
        assert outcome.end.reason is Reason.RAISED
        assert (outcome.end.message or "").startswith("SyntaxError")
        assert 'File "job.py", line 2' in outcome.stderr.text

    async def test_exit_codes_are_kept(self) -> None:
        """sys.exit gives its code; a text is printed and gives 1."""
        assert (await self._run("import sys; sys.exit(3)")).end.exit_code == 3
        assert (await self._run("import sys; sys.exit()")).end.exit_code == 0
        outcome = await self._run("raise SystemExit('not today')")
        assert (outcome.end.exit_code, outcome.stderr.text) == (1, "not today\n")

    async def test_a_signal_is_named(self) -> None:
        """A job that crashes is reported with its signal."""
        outcome = await self._run("import ctypes; ctypes.string_at(0)")
        assert (outcome.end.reason, outcome.end.signal) == (Reason.SIGNALLED, "SIGSEGV")

    async def test_the_deadline_keeps_what_was_printed(self) -> None:
        """At the deadline the job ends, not before it and soon after, and its output and files are kept."""
        async with AsyncExitStack() as stack:
            session = await self._session(stack, wall_sec=3)
            code = "open('/out/part', 'w').write('half')\nprint('working', end='')\nwhile True:\n    pass\n"
            outcome = await session.run_python(code, None, RecordingSink())
            outcome = await asyncio.to_thread(session.collect, Shelf(), outcome)
        assert (outcome.end.reason, outcome.end.clock) == (Reason.TIMEOUT, Clock.WALL)
        assert outcome.stdout.text == "working"
        assert [artifact.path for artifact in outcome.artifacts] == ["part"]
        assert 3 <= outcome.usage.wall_sec < 10

    async def test_cpu_time_is_a_clock_of_its_own(self) -> None:
        """A job that burns its CPU time ends with the clock `cpu`, long before its wall clock."""
        outcome = await self._run("while True:\n    pass\n", wall_sec=20, cpu_sec=0.3)
        assert (outcome.end.reason, outcome.end.clock) == (Reason.TIMEOUT, Clock.CPU)

    async def test_memory_is_limited_and_measured(self) -> None:
        """More memory than allowed ends as `memory`; the peak of an ordinary job is measured."""
        outcome = await self._run("x = []\nwhile True:\n    x.append(bytearray(1 << 20))\n", memory_bytes=64 << 20)
        assert outcome.end.reason is Reason.MEMORY
        outcome = await self._run("x = bytearray(40 << 20)\nimport time\ntime.sleep(0.2)\n")
        assert (outcome.usage.peak_memory_bytes or 0) > 40 << 20

    async def test_output_is_cut_in_the_middle(self) -> None:
        """Of too much output the head and the tail are kept, and every byte is counted."""
        code = "print('first')\nfor n in range(100_000):\n    print(n)\nprint('last')\n"
        outcome = await self._run(code, output_bytes=4_096)
        assert outcome.end.reason is Reason.EXITED
        assert outcome.stdout.text.startswith("first\n")
        assert outcome.stdout.text.endswith("last\n")
        assert "bytes cut" in outcome.stdout.text
        assert outcome.stdout.seen_bytes == len("first\nlast\n") + sum(len(str(n)) + 1 for n in range(100_000))
        assert outcome.stdout.kept_bytes == 4_096

    async def test_text_that_is_not_text_is_shown(self) -> None:
        """Bytes that are no UTF-8 become replacement characters; split characters are put together."""
        # The second half comes once the first was heard, so that it comes alone.
        code = "import os, sys\nos.write(1, b'\\xff\\xc3')\nsys.stdin.readline()\nos.write(1, b'\\xbc')\n"
        sink = RecordingSink()
        async with AsyncExitStack() as stack:
            session = await self._session(stack)
            running = asyncio.create_task(session.run_python(code, None, sink, stdin=True))
            await asyncio.wait_for(sink.arrived.wait(), _SOON_SEC)
            await session.write_stdin(b"on\n")
            outcome = await asyncio.wait_for(running, _SOON_SEC)
        assert outcome.stdout.text == sink.text("stdout") == "\ufffdü"
        assert [chunk[2] for chunk in sink.chunks] == [0, 1]

    async def test_display_gives_bundles(self) -> None:
        """`display` and objects with representations of their own give MIME bundles, in order."""
        outcome = await self._run(
            "class Table:\n"
            "    def _repr_html_(self):\n        return '<table>'\n"
            "    def _repr_png_(self):\n        return b'png'\n"
            "display(Table())\ndisplay({'text/markdown': '# x'}, raw=True)\ndisplay('plain')\n"
        )
        first, second, third = outcome.displays
        assert (first["text/html"], first["image/png"]) == ("<table>", "cG5n")
        assert second == {"text/markdown": "# x"}
        assert third["text/plain"] == "plain"

    async def test_progress_is_told(self) -> None:
        """The last progress that a job tells always arrives."""
        sink = RecordingSink()
        await self._run("for n in range(200):\n    progress(n / 200, f'file {n}')\nprogress(1, 'done')\n", sink=sink)
        assert sink.told[-1] == (1.0, "done")
        assert len(sink.told) < 100

    async def test_files_are_put_before_the_run(self) -> None:
        """A file that was put is the job's own, in its working folder; a path given twice is refused."""
        async with AsyncExitStack() as stack:
            session = await self._session(stack)
            await session.put_file("folder/deep/a.txt", io.BytesIO(b"content"))
            await session.put_file("b.txt", io.BytesIO(b"b"))
            try:
                await session.put_file("b.txt", io.BytesIO(b"again"))
                raise AssertionError("a file was put twice")
            except InvalidRequest:
                pass
            code = "import os\nos.remove('b.txt')\nopen('folder/deep/a.txt', 'a').write('!')\n"
            outcome = await session.run_python(code + "open('folder/deep/a.txt').read()", None, RecordingSink())
        assert outcome.result == "content!"

    async def test_what_is_not_a_file_is_skipped(self) -> None:
        """Links, strange names and locked files in /out are skipped, or opened safely; each says why."""
        code = (
            "import os\nos.chdir('/out')\nos.symlink('/etc/passwd', 'link')\nos.mkdir('locked')\n"
            "open('locked/kept.txt', 'w').write('x')\nos.chmod('locked/kept.txt', 0)\nos.chmod('locked', 0)\n"
            "open('bad\\nname', 'w')\n"
        )
        async with AsyncExitStack() as stack:
            session = await self._session(stack)
            outcome = await session.run_python(code, None, RecordingSink())
            outcome = await asyncio.to_thread(session.collect, Shelf(), outcome)
        assert [artifact.path for artifact in outcome.artifacts] == ["locked/kept.txt"]
        assert {skipped.path: skipped.cause for skipped in outcome.skipped} == {
            "link": "a symbolic link",
            "bad\\nname": "its path is not plain (characters, length or depth)",
        }

    async def test_setup_is_not_charged_to_the_job(self) -> None:
        """The wall clock of a job starts with its first line: what it and the setup took is no more than all together."""
        began = time.monotonic()
        outcome = await self._run("x = 1")
        assert outcome.usage.setup_sec > 0
        assert outcome.usage.wall_sec + outcome.usage.setup_sec <= time.monotonic() - began
