"""A worker author's functions, each call in a real process of its own."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from crank.adapters.process_runner import ProcessRunner
from crank.domain.outcome import Clock, Outcome, Reason
from crank.domain.profile import Limits
from crank.errors import SandboxError
from crank.ports import FunctionSpec
from crank.testing.contracts_sandbox import RecordingSink

pytestmark = pytest.mark.system

REPO = Path(__file__).resolve().parents[2]
TARGET = "tests.support.author_tools:app"
SOON_SEC = 30.0


async def call(name: str, args: object, *, memory_bytes: int | None = None, **limits: float) -> Outcome:
    """Call a function of the author's module."""
    spec = FunctionSpec(TARGET, name, Limits(**limits), memory_bytes)  # type: ignore[arg-type]
    run = await ProcessRunner(directory=REPO).open(spec)
    try:
        return await asyncio.wait_for(run.run(args, RecordingSink()), SOON_SEC)
    finally:
        await run.close()


async def test_a_typed_function_answers_with_json() -> None:
    """Args come in and the result goes out by the function's own types; what it prints is kept."""
    outcome = await call("text.count", {"text": "b a b", "minimum": 2})
    assert (outcome.end.reason, outcome.result) == (Reason.EXITED, [{"text": "b", "times": 2}])
    assert (outcome.stdout.text, outcome.tier) == ("counting 5\n", "process")
    assert outcome.usage.cpu_sec > 0


async def test_nested_models_and_async_functions_work() -> None:
    """The author gets real objects of the types they declared, and may write `async def`."""
    assert (await call("text.later", {"words": [{"text": "a", "times": 2}, {"text": "b", "times": 3}]})).result == 5


@pytest.mark.parametrize(
    ("args", "named"),
    [({}, "text"), ({"text": 1}, "text"), ({"text": "a", "minimum": "1"}, "minimum"), ({"text": "a", "x": 1}, "x")],
)
async def test_args_that_break_the_schema_never_reach_the_function(args: object, named: str) -> None:
    """The failure has a code, names the argument, and the function printed nothing."""
    outcome = await call("text.count", args)
    assert (outcome.end.reason, outcome.end.code) == (Reason.RAISED, "invalid_args")
    assert f"{named}:" in (outcome.end.message or "")
    assert outcome.stdout.text == ""


@pytest.mark.parametrize(
    ("how", "reason", "code"),
    [
        ("raise", Reason.RAISED, None),
        ("undeclared", Reason.RAISED, "undeclared_error"),
        ("wrong", Reason.RAISED, "invalid_result"),
        ("exit", Reason.EXITED, None),
        ("crash", Reason.SIGNALLED, None),
    ],
)
async def test_every_way_to_end_is_told_apart(how: str, reason: Reason, code: str | None) -> None:
    """An exception, an unknown code, a wrong result, an exit and a crash each have their own end."""
    outcome = await call("text.end", {"how": how})
    assert (outcome.end.reason, outcome.end.code, outcome.has_result) == (reason, code, False)
    if how == "raise":
        assert "ValueError: no luck" in outcome.stderr.text
    if how == "exit":
        assert outcome.end.exit_code == 3
    if how == "crash":
        assert outcome.end.signal == "SIGABRT"


async def test_a_declared_error_code_is_the_jobs_code() -> None:
    """What the author raises with a declared code reaches the caller as that code."""
    outcome = await call("text.count", {"text": ""})
    assert (outcome.end.code, outcome.end.message) == ("too_short", "There is no text.")


async def test_memory_that_a_lease_asks_for_is_a_ceiling() -> None:
    """A call that needs more ends as `memory`."""
    assert (await call("text.end", {"how": "eat"}, memory_bytes=512 << 20)).end.reason is Reason.MEMORY


async def test_a_flood_is_cut_and_ended() -> None:
    """Endless output ends the call; head and tail are kept."""
    outcome = await call("text.end", {"how": "flood"}, output_bytes=1_000, output_flood_bytes=1_000_000)
    assert outcome.end.reason is Reason.OUTPUT
    assert outcome.stdout.kept_bytes == 1_000
    assert "bytes cut" in outcome.stdout.text


async def test_the_deadline_kills_the_children_too(tmp_path: Path) -> None:
    """At the wall clock the whole process group is dead, and what was printed is kept."""
    outcome = await call("text.end", {"how": "child", "folder": str(tmp_path)}, wall_sec=2.0)
    assert (outcome.end.reason, outcome.end.clock) == (Reason.TIMEOUT, Clock.WALL)
    assert outcome.stdout.text == "ready\n"
    await _dead(int((tmp_path / "child").read_text("ascii")))


async def test_stopping_a_call_ends_it_with_the_reason(tmp_path: Path) -> None:
    """A cancelled call is killed with its children and keeps what it printed."""
    spec = FunctionSpec(TARGET, "text.end", Limits())
    run = await ProcessRunner(directory=REPO).open(spec)
    sink = RecordingSink()
    running = asyncio.create_task(run.run({"how": "child", "folder": str(tmp_path)}, sink))
    await asyncio.wait_for(sink.arrived.wait(), SOON_SEC)
    await run.stop(Reason.CANCELLED)
    outcome = await asyncio.wait_for(running, SOON_SEC)
    assert (outcome.end.reason, outcome.stdout.text) == (Reason.CANCELLED, "ready\n")
    await _dead(int((tmp_path / "child").read_text("ascii")))


async def test_a_call_dies_with_its_worker(tmp_path: Path) -> None:
    """When the worker is killed without a word, its calls and their children do not live on."""
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from crank.adapters.process_runner import ProcessRunner\n"
        "from crank.domain.profile import Limits\n"
        "from crank.ports import FunctionSpec\n"
        "class Sink:\n"
        "    def output(self, *told): print('ready', flush=True)\n"
        "    def progress(self, *told): pass\n"
        "async def main():\n"
        f"    run = await ProcessRunner().open(FunctionSpec({TARGET!r}, 'text.end', Limits()))\n"
        "    await run.run({'how': 'child', 'folder': sys.argv[1]}, Sink())\n"
        "asyncio.run(main())\n"
    )
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(tmp_path), cwd=REPO, stdout=asyncio.subprocess.PIPE
    )
    assert worker.stdout is not None
    assert await asyncio.wait_for(worker.stdout.readline(), SOON_SEC) == b"ready\n"
    worker.kill()
    await worker.wait()
    await _dead(int((tmp_path / "child").read_text("ascii")))


async def test_a_call_sees_only_what_it_was_given() -> None:
    """The environment of the worker does not leak into a call."""
    outcome = await call("text.end", {"how": "environment"})
    assert {name for name in outcome.result if not name.startswith("LC_")} == {"LANG", "PYTHONPATH", "PYTHONUNBUFFERED"}


async def test_a_call_finds_what_the_worker_finds(tmp_path: Path) -> None:
    """A module that this process can import can be called from any folder."""
    run = await ProcessRunner(directory=tmp_path).open(FunctionSpec(TARGET, "text.count", Limits()))
    assert (await run.run({"text": "a"}, RecordingSink())).result == [{"text": "a", "times": 1}]


async def test_a_module_that_is_not_there_is_named() -> None:
    """A target that cannot be loaded ends as a failure of the worker, with the cause."""
    run = await ProcessRunner(directory=REPO).open(FunctionSpec("no.such:app", "a.b", Limits()))
    outcome = await run.run(None, RecordingSink())
    assert (outcome.end.reason, outcome.end.code) == (Reason.SANDBOX_FAILED, "no_such_function")
    assert "no.such" in (outcome.end.message or "")


async def test_an_interpreter_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    """When no process can start, nothing ran, and that is said."""
    run = await ProcessRunner(python=str(tmp_path / "python"), directory=REPO).open(
        FunctionSpec(TARGET, "text.count", Limits())
    )
    with pytest.raises(SandboxError, match="cannot start"):
        await run.run({}, RecordingSink())


async def _dead(pid: int) -> None:
    async with asyncio.timeout(SOON_SEC):
        while _alive(pid):
            await asyncio.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state not in "ZX"
