"""How a function's answer becomes an outcome, and which sandbox a call gets, on a sandbox that runs nothing."""

from pathlib import Path
from typing import Any

import pytest

from crank.domain.capability import Isolation
from crank.domain.outcome import Clock, End, Outcome, Reason, Stream
from crank.domain.profile import Limits
from crank.errors import SandboxError
from crank.ports import FunctionSpec, ModuleBuild
from crank.testing.contracts_sandbox import RecordingSink
from crank.testing.fake_sandbox import FakeSandboxRunner, ScriptedRun
from crank.worker.call import CODE
from crank.worker.functions import SandboxedFunctions, told, with_room

_LIMITS = Limits(memory_bytes=64 << 20)
_BUILD = ModuleBuild("tools", ("tools",), "/python", "3.11", ("/tools",), (("/tools", Path("/tools")),), _LIMITS)
_ANSWER = {"reason": "exited", "exit_code": 0, "has_result": True, "result": [1]}


def _outcome(answer: Any, **changed: Any) -> Outcome:
    return Outcome(End(Reason.EXITED, exit_code=0), **{"has_result": True, "result": answer, **changed})


def _runner(answer: Any = None, end: End | None = None) -> FakeSandboxRunner:
    run = ScriptedRun(end=end or End(Reason.EXITED, exit_code=0), has_result=end is None, result=answer or _ANSWER)
    return FakeSandboxRunner({CODE: run})


def _spec(isolation: Isolation = Isolation.PER_CALL, name: str = "a.b") -> FunctionSpec:
    return FunctionSpec("tools:app", name, _LIMITS, isolation)


async def _call(functions: SandboxedFunctions, spec: FunctionSpec) -> Outcome:
    call = await functions.open(spec)
    try:
        return await call.run({"n": 1}, RecordingSink())
    finally:
        await call.close()


def test_a_result_is_unwrapped() -> None:
    """The caller sees the function's own result; what was printed and measured stays."""
    outcome = told(_outcome(_ANSWER, stdout=Stream("x", 1, 1), tier="namespaces"))
    assert (outcome.has_result, outcome.result, outcome.stdout.text) == (True, [1], "x")
    assert (outcome.end, outcome.tier) == (End(Reason.EXITED, exit_code=0), "namespaces")


def test_a_failure_has_the_functions_code() -> None:
    """A code that the function declared reaches the outcome, with its sentence."""
    answer = {"reason": "raised", "exit_code": 1, "code": "too_short", "message": "There is no text."}
    outcome = told(_outcome(answer))
    assert outcome.end == End(Reason.RAISED, exit_code=1, code="too_short", message="There is no text.")
    assert not outcome.has_result


@pytest.mark.parametrize(
    "end", [End(Reason.TIMEOUT, clock=Clock.WALL), End(Reason.SIGNALLED, signal="SIGABRT"), End(Reason.PROCESSES)]
)
def test_what_the_sandbox_saw_stands_above_what_was_said(end: End) -> None:
    """An end that the supervisor told of is not replaced by an answer."""
    outcome = told(Outcome(end, has_result=True, result=_ANSWER))
    assert (outcome.end, outcome.has_result, outcome.result) == (end, False, None)


@pytest.mark.parametrize(
    "answer",
    [
        5,
        {},
        {"reason": "timeout"},
        {"reason": "memory"},
        {"reason": "cancelled"},
        {"reason": "worker_lost"},
        {"reason": "no such reason"},
        {"reason": ["exited"]},
        {"reason": "exited", "exit_code": 256},
        {"reason": "exited", "exit_code": True},
        {"reason": "exited", "exit_code": "0"},
        {"reason": "raised", "code": 5},
        {"reason": "raised", "message": ["x"]},
        {"reason": "exited", "has_result": True},
    ],
)
def test_a_forged_answer_is_refused(answer: Any) -> None:
    """A function that answers by itself can say nothing but what an honest call may say."""
    outcome = told(_outcome(answer))
    assert (outcome.end.reason, outcome.end.code) == (Reason.PROTOCOL_VIOLATION, "bad_answer")
    assert not outcome.has_result


def test_no_answer_is_said() -> None:
    """A process that leaves without a word is told apart from one whose result is null."""
    left = told(Outcome(End(Reason.EXITED, exit_code=0)))
    assert (left.end.reason, left.end.code, left.has_result) == (Reason.EXITED, "no_answer", False)
    nothing = told(_outcome({**_ANSWER, "result": None}))
    assert (nothing.end.code, nothing.has_result, nothing.result) == (None, True, None)


async def test_per_call_opens_one_sandbox_each() -> None:
    """Each call has a sandbox that runs once and is closed; its limits leave room for the answer's own words."""
    runner = _runner()
    functions = SandboxedFunctions(runner, _BUILD)
    assert [(await _call(functions, _spec())).result for _ in range(2)] == [[1], [1]]
    assert [(session.spec.lasting, session.alive) for session in runner.sessions] == [(False, False)] * 2
    assert runner.sessions[0].spec.limits == with_room(_LIMITS)
    assert runner.sessions[0].spec.build.limits == with_room(_LIMITS)


async def test_per_worker_keeps_one_sandbox_of_each_function() -> None:
    """Calls of one function share a sandbox, calls of another have their own, and both go at the end."""
    runner = _runner()
    functions = SandboxedFunctions(runner, _BUILD)
    for name in ("a.b", "a.b", "a.c"):
        await _call(functions, _spec(Isolation.PER_WORKER, name))
    assert [len(session.history) for session in runner.sessions] == [2, 1]
    await functions.stop()
    await functions.stop()
    assert not any(session.alive for session in runner.sessions)


async def test_calls_at_one_time_have_a_sandbox_each() -> None:
    """A kept sandbox that is busy is not shared; afterwards one is kept."""
    runner = _runner()
    functions = SandboxedFunctions(runner, _BUILD)
    calls = [await functions.open(_spec(Isolation.PER_WORKER)) for _ in range(3)]
    assert len(runner.sessions) == 3
    for call in calls:
        await call.close()
        await call.close()
    assert [session.alive for session in runner.sessions].count(True) == 1


async def test_a_kept_sandbox_is_replaced() -> None:
    """After a fault, and after as many calls as it may take, the next call has a fresh one."""
    runner = _runner(end=End(Reason.SIGNALLED, signal="SIGKILL"))
    functions = SandboxedFunctions(runner, _BUILD)
    for _ in range(2):
        await _call(functions, _spec(Isolation.PER_WORKER))
    assert len(runner.sessions) == 2
    runner = _runner()
    functions = SandboxedFunctions(runner, _BUILD, calls_max=2)
    for _ in range(4):
        await _call(functions, _spec(Isolation.PER_WORKER))
    assert [len(session.history) for session in runner.sessions] == [2, 2]


async def test_one_that_died_while_it_rested_is_passed_over() -> None:
    """What the host killed between two calls costs neither of them."""
    runner = _runner()
    functions = SandboxedFunctions(runner, _BUILD)
    await _call(functions, _spec(Isolation.PER_WORKER))
    await runner.sessions[0].stop(Reason.CANCELLED)
    assert (await _call(functions, _spec(Isolation.PER_WORKER))).result == [1]
    assert len(runner.sessions) == 2


async def test_a_closed_call_runs_nothing() -> None:
    """What was given back is not used again."""
    functions = SandboxedFunctions(_runner(), _BUILD)
    call = await functions.open(_spec())
    await call.close()
    with pytest.raises(SandboxError, match="closed"):
        await call.run(None, RecordingSink())
