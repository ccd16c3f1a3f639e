"""A worker author's functions, each call in a real sandbox whose zygote imported the author's module."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from crank.bootstrap.module import describe
from crank.config import Settings, load
from crank.domain.capability import Isolation
from crank.domain.outcome import Clock, Outcome, Reason
from crank.domain.profile import Limits
from crank.errors import SandboxError
from crank.ports import FunctionSpec, ModuleBuild
from crank.sandbox.link import LauncherLink, launch
from crank.sandbox.runner import NamespaceRunner
from crank.testing.contracts_sandbox import RecordingSink
from crank.worker.app import Worker, function_offers
from crank.worker.call import load_app
from crank.worker.functions import SandboxedFunctions
from tests.support import author_tools
from tests.support.tree import GUEST, named

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]

TARGET = "tests.support.author_tools:app"
SOON_SEC = 60.0


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Give settings whose home holds a secret."""
    home = tmp_path_factory.mktemp("node") / "home"
    home.mkdir()
    return replace(load(), home=home)


def _build(settings: Settings, app: Worker, target: str) -> ModuleBuild:
    return describe(settings, app.name, target, function_offers(app, target))


@pytest.fixture(scope="module")
def link() -> LauncherLink:
    """Give the launcher, which goes with its runner."""
    return launch()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runner(link: LauncherLink) -> AsyncIterator[NamespaceRunner]:
    """Give a runner that stands."""
    runner = NamespaceRunner(link, parked=2)
    await runner.start()
    yield runner
    await runner.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def functions(runner: NamespaceRunner, settings: Settings) -> AsyncIterator[SandboxedFunctions]:
    """Give the functions of the author's module."""
    functions = SandboxedFunctions(runner, _build(settings, author_tools.app, TARGET), calls_max=5)
    await functions.start()
    yield functions
    await functions.stop()


async def call(functions: SandboxedFunctions, name: str, args: object, **limits: float) -> Outcome:
    """Call a function of the author's module."""
    run = await functions.open(_spec(name, **limits))
    try:
        return await asyncio.wait_for(run.run(args, RecordingSink()), SOON_SEC)
    finally:
        await run.close()


def _spec(name: str, **limits: float) -> FunctionSpec:
    (offer,) = (each for each in function_offers(author_tools.app, TARGET) if each.capability.name == name)
    return FunctionSpec(TARGET, name, replace(offer.limits, **limits), offer.isolation)  # type: ignore[arg-type]


async def test_a_typed_function_answers_with_json(functions: SandboxedFunctions) -> None:
    """Args come in and the result goes out by the function's own types; what it prints is kept; walls stood."""
    outcome = await call(functions, "text.count", {"text": "b a b", "minimum": 2})
    assert (outcome.end.reason, outcome.result) == (Reason.EXITED, [{"text": "b", "times": 2}])
    assert (outcome.stdout.text, outcome.tier) == ("counting 5\n", "namespaces")
    assert {"seccomp", "network", "mounts"} <= set(outcome.layers)
    assert outcome.usage.cpu_sec > 0


async def test_nested_models_and_async_functions_work(functions: SandboxedFunctions) -> None:
    """The author gets real objects of the types they declared, and may write `async def`."""
    words = {"words": [{"text": "a", "times": 2}, {"text": "b", "times": 3}]}
    assert (await call(functions, "text.later", words)).result == 5


@pytest.mark.parametrize(
    ("args", "named"),
    [({}, "text"), ({"text": 1}, "text"), ({"text": "a", "minimum": "1"}, "minimum"), ({"text": "a", "x": 1}, "x")],
)
async def test_args_that_break_the_schema_never_reach_the_function(
    functions: SandboxedFunctions, args: object, named: str
) -> None:
    """The failure has a code, names the argument, and the function printed nothing."""
    outcome = await call(functions, "text.count", args)
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
        ("vanish", Reason.EXITED, "no_answer"),
        ("crash", Reason.SIGNALLED, None),
    ],
)
async def test_every_way_to_end_is_told_apart(
    functions: SandboxedFunctions, how: str, reason: Reason, code: str | None
) -> None:
    """An exception, an unknown code, a wrong result, an exit, a disappearance and a crash each have their own end."""
    outcome = await call(functions, "text.end", {"how": how})
    assert (outcome.end.reason, outcome.end.code, outcome.has_result) == (reason, code, False)
    if how == "raise":
        assert "ValueError: no luck" in outcome.stderr.text
    if how in ("exit", "vanish"):
        assert outcome.end.exit_code == {"exit": 3, "vanish": 4}[how]
    if how == "crash":
        assert outcome.end.signal == "SIGABRT"


async def test_a_declared_error_code_is_the_jobs_code(functions: SandboxedFunctions) -> None:
    """What the author raises with a declared code reaches the caller as that code."""
    outcome = await call(functions, "text.count", {"text": ""})
    assert (outcome.end.code, outcome.end.message) == ("too_short", "There is no text.")


async def test_memory_is_a_ceiling(functions: SandboxedFunctions) -> None:
    """A call that needs more than its function may have ends as `memory`, also where a lease asked for less."""
    assert (await call(functions, "text.end", {"how": "eat"})).end.reason is Reason.MEMORY
    assert (await call(functions, "text.end", {"how": "eat"}, memory_bytes=64 << 20)).end.reason is Reason.MEMORY


async def test_a_full_disk_is_told_as_for_scripts(functions: SandboxedFunctions) -> None:
    """What a function does with its folders has the same limits and reasons as in a script."""
    outcome = await call(functions, "text.end", {"how": "fill", "n": 300 << 20})
    assert outcome.end.reason in (Reason.DISK, Reason.FILE_SIZE)


async def test_a_traceback_begins_with_the_authors_code(functions: SandboxedFunctions) -> None:
    """Nothing of Crank stands between the caller and the mistake."""
    shown = (await call(functions, "text.end", {"how": "raise"})).stderr.text
    assert shown.splitlines()[1].strip().startswith('File "'), shown
    assert "author_tools.py" in shown.splitlines()[1]
    assert "call.py" not in shown


async def test_a_result_has_a_largest_size(functions: SandboxedFunctions) -> None:
    """One that is too large is refused with a sentence; one that just fits comes through whole."""
    outcome = await call(functions, "text.end", {"how": "large", "n": 200_000})
    assert (outcome.end.code, outcome.has_result) == ("invalid_result", False)
    assert "larger than 1048576 bytes" in (outcome.end.message or "")
    assert len((await call(functions, "text.end", {"how": "large", "n": 50_000})).result) == 50_000


async def test_a_flood_is_cut_and_ended(functions: SandboxedFunctions) -> None:
    """Endless output ends the call; head and tail are kept."""
    outcome = await call(functions, "text.end", {"how": "flood"}, output_bytes=1_000, output_flood_bytes=1_000_000)
    assert outcome.end.reason is Reason.OUTPUT
    assert outcome.stdout.kept_bytes == 1_000
    assert "bytes cut" in outcome.stdout.text


async def test_the_deadline_ends_a_call(functions: SandboxedFunctions) -> None:
    """At the wall clock the call is dead, and what was printed is kept."""
    outcome = await call(functions, "text.end", {"how": "sleep"}, wall_sec=4.0)
    assert (outcome.end.reason, outcome.end.clock) == (Reason.TIMEOUT, Clock.WALL)
    assert outcome.stdout.text == "ready\n"


@pytest.mark.parametrize("name", ["text.end", "text.kept"])
async def test_stopping_a_call_ends_it_with_the_reason(functions: SandboxedFunctions, name: str) -> None:
    """A cancelled call is killed, with the sandbox that it may have shared, and keeps what it printed."""
    run = await functions.open(_spec(name))
    sink = RecordingSink()
    running = asyncio.create_task(run.run({"how": "sleep"}, sink))
    await asyncio.wait_for(sink.arrived.wait(), SOON_SEC)
    await run.stop(Reason.CANCELLED)
    outcome = await asyncio.wait_for(running, SOON_SEC)
    await run.close()
    # The end of the line is a write of its own.
    assert (outcome.end.reason, outcome.stdout.text.rstrip("\n")) == (Reason.CANCELLED, "ready")


async def test_a_call_sees_only_what_it_was_given(functions: SandboxedFunctions) -> None:
    """The environment of the worker does not leak into a call, and every call is process 2 of its own sandbox."""
    outcome = await call(functions, "text.end", {"how": "environment"})
    assert isinstance(outcome.result, dict)
    assert {"HOME", "PATH", "TZ"} <= set(outcome.result)
    assert not [name for name in outcome.result if name.startswith(("CRANK", "PYTHONPATH", "PYTEST"))]
    assert (await call(functions, "text.end", {"how": "pid"})).result == {"pid": 2}


async def test_a_module_that_is_not_there_is_named(functions: SandboxedFunctions) -> None:
    """A target that cannot be loaded ends as a failure of the worker, with the cause."""
    run = await functions.open(FunctionSpec("no.such:app", "a.b", Limits()))
    outcome = await run.run(None, RecordingSink())
    await run.close()
    assert (outcome.end.reason, outcome.end.code) == (Reason.SANDBOX_FAILED, "no_such_function")
    assert "no.such" in (outcome.end.message or "")


# --- what is shared ---------------------------------------------------------------------------


async def test_a_fresh_sandbox_forgets(functions: SandboxedFunctions) -> None:
    """Per call, a module's state is that of its import, however often it is called."""
    spec = replace(_spec("text.kept"), isolation=Isolation.PER_CALL)
    for _ in range(2):
        run = await functions.open(spec)
        assert (await run.run({}, RecordingSink())).result == 1
        await run.close()


async def test_a_kept_sandbox_remembers_until_it_is_replaced(functions: SandboxedFunctions) -> None:
    """Per worker, calls of one function see the same process: after an exception too, not after a crash, and not for ever."""
    await call(functions, "text.kept", {"how": "crash"})
    assert [(await call(functions, "text.kept", {})).result for _ in range(2)] == [1, 2]
    assert (await call(functions, "text.kept", {"how": "raise"})).end.reason is Reason.RAISED
    assert (await call(functions, "text.kept", {})).result == 3
    assert (await call(functions, "text.kept", {"how": "crash"})).end.reason is Reason.SIGNALLED
    # calls_max is 5: the sixth call of a sandbox is the first of the next one.
    assert [(await call(functions, "text.kept", {})).result for _ in range(6)] == [1, 2, 3, 4, 5, 1]


async def test_two_calls_never_share_a_moment(functions: SandboxedFunctions) -> None:
    """While a kept sandbox is busy, the next call of its function gets another one."""
    first, second = [await functions.open(_spec("text.kept")) for _ in range(2)]
    outcomes = await asyncio.gather(first.run({}, RecordingSink()), second.run({}, RecordingSink()))
    assert [outcome.end.reason for outcome in outcomes] == [Reason.EXITED] * 2
    for run in (first, second):
        await run.close()


# --- attacks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["read", "write", "program", "fork", "raw fork"])
async def test_a_function_cannot_leave(functions: SandboxedFunctions, how: str) -> None:
    """Files of the host, programs and processes are refused to the author's own code as to everybody's."""
    outcome = await call(functions, "text.break_out", {"how": how})
    assert str(outcome.result).startswith("refused"), outcome


async def test_a_function_has_no_network(functions: SandboxedFunctions) -> None:
    """A server that listens beside the worker hears nothing, and the refusal is evidence."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        outcome = await call(functions, "text.break_out", {"how": "connect", "port": server.getsockname()[1]})
        with pytest.raises(BlockingIOError):
            server.accept()
    assert str(outcome.result).startswith("refused")


async def test_a_bomb_of_threads_hits_nobody_else(functions: SandboxedFunctions) -> None:
    """Endless threads end the call by its own limit, and the next call is served."""
    assert (await call(functions, "text.break_out", {"how": "threads"})).end.reason is Reason.PROCESSES
    assert (await call(functions, "text.count", {"text": "a"})).has_result


async def test_nothing_outlives_its_call(
    link: LauncherLink, runner: NamespaceRunner, functions: SandboxedFunctions
) -> None:
    """What a call leaves running is dead when the call is closed: only parked sandboxes are left."""
    assert (await call(functions, "text.break_out", {"how": "leave"})).result == "done"
    await functions.stop()
    async with asyncio.timeout(SOON_SEC):
        # A refill may be on its way.
        while len(named(link.process.pid, GUEST)) != sum(pool.parked for pool in runner.pools()):
            await asyncio.sleep(0.05)


async def test_a_function_cannot_change_its_module(functions: SandboxedFunctions) -> None:
    """The author's folder is read-only, and what lies in a private folder can still be read."""
    module = Path(author_tools.__file__)
    before = module.read_bytes()
    outcome = await call(functions, "text.break_out", {"how": "write", "path": str(module)})
    assert str(outcome.result).startswith("refused")
    assert module.read_bytes() == before


# --- what is shown ----------------------------------------------------------------------------


async def test_a_module_beside_a_node_shows_no_secret(
    runner: NamespaceRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the node's home lies in the module's private folder, everything is shown but the home."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "key.pem").write_text("secret", "utf-8")
    (tmp_path / "beside.py").write_text("WORD = 'beside'\n", "utf-8")
    (tmp_path / "looker.py").write_text(
        "import beside, pathlib\nfrom crank import Worker\napp = Worker('looker')\n"
        "@app.capability('looker.look', version='1.0.0')\n"
        "def look(path: str) -> str:\n    'Look.'\n"
        "    place = pathlib.Path(__file__).parent / path\n"
        "    return beside.WORD + place.read_text() if place.exists() else beside.WORD + ' nothing'\n",
        "utf-8",
    )
    (tmp_path / "notes.txt").write_text(" notes", "utf-8")
    (tmp_path / "notes.txt").chmod(0o600)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    build = _build(replace(load(), home=home), load_app("looker:app"), "looker:app")
    functions = SandboxedFunctions(runner, build)
    spec = FunctionSpec("looker:app", "looker.look", Limits())
    found = []
    for path in ("notes.txt", "home/key.pem"):
        run = await functions.open(spec)
        found.append((await run.run({"path": path}, RecordingSink())).result)
        await run.close()
    assert found == ["beside notes", "beside nothing"]


async def test_a_module_that_starts_threads_is_refused(runner: NamespaceRunner, settings: Settings) -> None:
    """A zygote is forked, and a fork loses threads: the module is named before any call."""
    build = _build(settings, author_tools.app, TARGET)
    threads = replace(build, modules=("crank.worker.call", "tests.support.author_threads"))
    with pytest.raises(SandboxError, match=r"import tests\.support\.author_threads started 1 thread"):
        await SandboxedFunctions(runner, threads).start()


async def test_a_module_that_cannot_be_imported_says_why(runner: NamespaceRunner, settings: Settings) -> None:
    """The cause is the exception's own sentence, and the layer is the author's to correct."""
    build = replace(_build(settings, author_tools.app, TARGET), modules=("tests.support.no_such",))
    with pytest.raises(SandboxError, match=r"No module named 'tests\.support\.no_such'") as refused:
        await SandboxedFunctions(runner, build).start()
    assert refused.value.error_code == "layer_module"
