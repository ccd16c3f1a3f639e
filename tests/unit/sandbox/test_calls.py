"""Calls of a run on the trusted side of the pipe: what passes, what is refused, and what ends the run."""

import json
from typing import Any

import pytest

from crank.domain.profile import Limits
from crank.errors import CrankError, ProtocolError
from crank.sandbox.calls import Calls, answer_frame, parse_call, refusal
from crank.sandbox.frames import FrameReader, encode
from crank.sandbox.run import Run

HANDLES = [{"name": "run", "kind": "call"}, {"name": "docs", "kind": "mount"}]
TOKEN = b"t" * 16


def word(**changes: Any) -> bytes:
    """Return a call as the guest writes it."""
    plain = {
        "number": 1, "handle": "run", "capability": "python.run.core", "version": None, "args": {"n": 1}, "code": "1",
        "files": {"a": "b"}, "mounts": {"in": "docs"}, "handles": ["run"], "timeout_sec": 1,
    }  # fmt: skip
    return json.dumps({**plain, **changes}).encode()


def answers(calls: Calls) -> list[dict[str, Any]]:
    """Return what the guest is answered, read as it reads it."""
    frames = FrameReader({"a": 1 << 22}).feed(b"".join(calls.answers))
    return [json.loads(frame.payload) for frame in frames]


def test_a_call_passes_and_its_answer_frees_its_place() -> None:
    """What is well formed goes on as it came; the answer goes to the guest and the call is open no more."""
    calls = Calls(HANDLES)
    calls.take(word())
    assert (json.loads(calls.forward[0]), calls.open) == (json.loads(word()), 1)
    assert parse_call(json.loads(calls.forward[0])).mounts == {"in": "docs"}
    calls.answered(answer_frame({**refusal(1, "x", "y", None), "verdict": "done"}))
    assert (calls.open, calls.refused, answers(calls)[0]["verdict"]) == (0, [], "done")
    # Nobody waits for a second one.
    calls.answered(answer_frame(refusal(1, "x", "y", None)))
    assert len(calls.answers) == 1


def test_refusals_are_answered_and_remembered() -> None:
    """A handle that is none, and one of another kind, are refused here; what the worker refuses is remembered with its code."""
    calls = Calls(HANDLES)
    calls.take(word(handle="other"))
    calls.take(word(number=2, handle="docs"))
    assert [answer["code"] for answer in answers(calls)] == ["no_handle", "no_handle"]
    assert (calls.forward, calls.open) == ([], 0)
    calls.take(word(number=3, capability="a\x1b[31m"))
    calls.answered(answer_frame(refusal(3, "handle_capability", "No.", None)))
    assert calls.refused[-1] == "call 'a\\x1b[31m': handle_capability"


@pytest.mark.parametrize("payload", [word(number=2), word(number=0), word(number=True), word(number="1"), b"[]", b"\xff", word(x=1)])
def test_what_is_no_call_in_its_turn_is_a_breach(payload: bytes) -> None:
    """A number out of turn or of another type, no object, no JSON, a field too many."""
    with pytest.raises(CrankError):
        Calls(HANDLES).take(payload)


def test_a_run_without_handles_knows_no_call() -> None:
    """The word is not in the list of an ordinary run, which keeps nothing for calls and has nothing to pass on."""
    run = Run(Limits(), TOKEN)
    run.take_words(TOKEN + encode("b", b""))
    assert run.take_calls(lambda _: None) == []
    with pytest.raises(ProtocolError):
        run.take_words(TOKEN + encode("c", word()))


def test_the_idle_clock_stands_still_while_a_call_is_open() -> None:
    """A run that waits for its call does not idle; once it is answered, the clock begins anew."""
    run = Run(Limits(wall_sec=600.0, idle_sec=10.0), TOKEN, Calls(HANDLES))
    run.take_words(TOKEN + encode("b", b"") + TOKEN + encode("c", word()))
    later = run.began + 60
    assert run.late_clock(later) is None
    run.answered(answer_frame(refusal(1, "x", "y", None)))
    assert run.late_clock(later + 9) is None
    assert run.late_clock(later + 11) is not None
