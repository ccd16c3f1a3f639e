"""Calls of a run, on the trusted side of the pipe: what the guest asks for is bounded, numbered and refused here first.

The supervisor passes on what is well formed and within the run's handles; it decides nothing more. What is refused is kept
as evidence. A call is a stranger's word until the controller has looked it up in what it stored itself.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from crank.domain.handle import ASKED_CALLS_MAX, CALL_BYTES_MAX, CALL_FILES_MAX, HANDLES_MAX, OPEN_CALLS_MAX, JobCall
from crank.domain.json import JsonObject, dumps, loads_strict
from crank.domain.quantity import JSON_DEPTH_MAX, KIB, MIB
from crank.errors import ProtocolError
from crank.sandbox.frames import encode

# What a result, and all that is said beside it, may take.
ANSWER_BYTES_MAX = 3 * MIB
FORWARD_BYTES_MAX = CALL_BYTES_MAX + 64 * KIB
# The number of a call, and the length of the code of its refusal; then that code, then the answer as the guest gets it.
ANSWER_HEAD = struct.Struct("!IH")
# Answers that the guest has not read: beyond this nothing more is heard of it.
BACKLOG_BYTES_MAX = 2 * MIB
_TEXT_CHARS_MAX = 1024
_ENDLESS = 4 * ASKED_CALLS_MAX
_FIELDS = frozenset(
    {"number", "handle", "capability", "version", "args", "code", "files", "mounts", "handles", "timeout_sec"}
)


class Calls:
    """What one run has asked for. `forward` and `answers` are taken away by who sends them."""

    def __init__(self, handles: Sequence[Mapping[str, Any]]) -> None:
        self._names = frozenset(handle["name"] for handle in handles if handle["kind"] == "call")
        self._asked = 0
        self._open: dict[int, str] = {}
        self.forward: list[bytes] = []
        self.answers: list[bytes] = []
        self.refused: list[str] = []

    @property
    def open(self) -> int:
        """Return how many calls wait for their answer."""
        return len(self._open)

    def take(self, payload: bytes) -> None:
        """Take one call of the guest's. Raises ProtocolError, or whatever reading it raises, for what is no call."""
        word = loads_strict(payload, depth_max=JSON_DEPTH_MAX + 1)
        call = parse_call(word)
        if call.number != self._asked + 1 or self._asked >= _ENDLESS:
            raise ProtocolError("it numbered its calls otherwise than one after the other, or asked without end.")
        self._asked += 1
        refused = self._refusal(call)
        if refused is None:
            self._open[call.number] = call.capability
            self.forward.append(dumps(word).encode())
        else:
            code, message = refused
            self._remember(call.capability, code)
            self.answers.append(_framed(refusal(call.number, code, message, None)))

    def _refusal(self, call: JobCall) -> tuple[str, str] | None:
        if self._asked > ASKED_CALLS_MAX:
            return "too_many_calls", f"A job asks at most {ASKED_CALLS_MAX} times."
        if self.open >= OPEN_CALLS_MAX:
            return "too_many_calls_at_once", f"A job has at most {OPEN_CALLS_MAX} calls open at once."
        if call.handle not in self._names:
            return "no_handle", f"This job has no handle for {call.capability!r}." if not call.handle else (
                f"This job has no handle {call.handle!r} that something can be called for with."
            )
        return None

    def answered(self, payload: bytes) -> None:
        """Take the worker's answer for the guest; one that nobody waits for is dropped."""
        number, length = ANSWER_HEAD.unpack_from(payload)
        start = ANSWER_HEAD.size + length
        capability = self._open.pop(number, None)
        if capability is None:
            return
        if length:
            self._remember(capability, payload[ANSWER_HEAD.size : start].decode("utf-8"))
        self.answers.append(encode("a", payload[start:]))

    def _remember(self, capability: str, code: str) -> None:
        self.refused.append(f"call {capability[:120]!r}: {code}")


def _framed(answer: JsonObject) -> bytes:
    return encode("a", dumps(answer).encode())


def refusal(number: int, code: str, message: str, fix: str | None) -> JsonObject:
    """Return the answer to a call that ran nothing, as the guest reads it."""
    return {
        "number": number, "verdict": "refused", "status": None, "reason": None, "code": code, "message": message,
        "fix": fix, "result": None, "folder": "", "files": [], "left_out": 0,
    }  # fmt: skip


def answer_frame(answer: JsonObject) -> bytes:
    """Return the payload by which the worker hands an answer to the supervisor."""
    code = str(answer["code"] or "refused")[:200].encode("utf-8") if answer["verdict"] == "refused" else b""
    return ANSWER_HEAD.pack(answer["number"], len(code)) + code + dumps(answer).encode()


def parse_call(word: Any) -> JobCall:
    """Read a call strictly. Raises ProtocolError."""
    if not isinstance(word, dict) or set(word) != _FIELDS:
        raise ProtocolError("it carried a call of another form.")
    number, timeout_sec = word["number"], word["timeout_sec"]
    timed = timeout_sec is None or (type(timeout_sec) in (int, float) and 0 < timeout_sec <= 1e9 and math.isfinite(timeout_sec))
    plain = type(number) is int and number > 0 and timed
    if not plain or not all(word[name] is None or isinstance(word[name], str) for name in ("version", "code")):
        raise ProtocolError("it carried a call with a field of another type.")
    handles = word["handles"]
    if not isinstance(handles, list) or len(handles) > HANDLES_MAX:
        raise ProtocolError("it carried a call with too many handles.")
    return JobCall(
        number=number,
        handle=_text(word["handle"]),
        capability=_text(word["capability"]),
        version=word["version"],
        args=word["args"],
        code=word["code"],
        files=_texts(word["files"], CALL_FILES_MAX),
        mounts=_texts(word["mounts"], HANDLES_MAX),
        handles=tuple(_text(name) for name in handles),
        timeout_sec=None if timeout_sec is None else float(timeout_sec),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _TEXT_CHARS_MAX:
        raise ProtocolError("it carried a call with a name of another form.")
    return value


def _texts(value: Any, most: int) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > most:
        raise ProtocolError("it carried a call with too many files or mounts.")
    return {_text(name): _text(other) for name, other in value.items()}
