"""One run as its session in the worker sees it: what it has brought so far, and the calls that its code makes."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from crank.domain.handle import OPEN_CALLS_MAX
from crank.domain.json import JsonObject, JsonValue, loads_strict
from crank.domain.profile import Limits
from crank.domain.quantity import JSON_DEPTH_MAX
from crank.errors import CrankError, InvalidRequest
from crank.ports import CallTaker, OutputSink
from crank.sandbox.calls import answer_frame, parse_call, refusal
from crank.sandbox.frames import Frame
from crank.sandbox.ledger import StreamText
from crank.sandbox.spoken import OUTPUT_HEAD, STDIN_HEAD

_log = structlog.get_logger(__name__)


class SessionRun:
    """What one run has brought so far."""

    def __init__(self, limits: Limits, sink: OutputSink, calls: CallTaker | None = None) -> None:
        self.limits = limits
        self.sink = sink
        self.calls = calls
        # Calls of the code that are being answered, and how many of them have no answer yet.
        self.calling: set[asyncio.Task[None]] = set()
        self._unanswered = 0
        self.texts = {"O": StreamText(limits.output_bytes), "E": StreamText(limits.output_bytes)}
        self.tails = {"o": b"", "e": b""}
        self.displays: list[JsonValue] = []
        self.result: JsonValue = None
        self.broken: str | None = None
        # Whether the supervisor took the order: before that, no line of it can have run.
        self.taken = False
        self.stdin_sent = self.stdin_passed = 0
        self.stdin_room = asyncio.Event()
        # Until the order is out, a word for the run would overtake it and be lost.
        self.sent = False
        self.ended: asyncio.Future[JsonObject | None] = asyncio.get_running_loop().create_future()
        # Whoever started it may have left: then nobody asks how it ended.
        self.ended.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        self._at_sec = 0.0

    def take(self, frame: Frame) -> None:
        """Take what the job said or wrote."""
        kind, payload = frame.kind, frame.payload
        if kind in self.texts:
            _, self._at_sec = OUTPUT_HEAD.unpack_from(payload)
            self._emit(kind, *self.texts[kind].feed(payload[OUTPUT_HEAD.size :]))
        elif kind in self.tails:
            self.tails[kind] = payload
        elif kind == "G":
            word = loads_strict(payload)
            self.sink.progress(word["fraction"], word["message"])
        elif kind == "A":
            self.taken = True
        elif kind == "I":
            (self.stdin_passed,) = STDIN_HEAD.unpack(payload)
            self.stdin_room.set()
        else:
            self._take_json(kind, payload)

    def _take_json(self, kind: str, payload: bytes) -> None:
        """Read what came from the job unread. Two readers would be two opinions, so this is the only one."""
        try:
            value = loads_strict(payload)
        except InvalidRequest:
            self.broken = "it carried something that is not strict JSON."
            return
        if kind == "V":
            self.result = value
        elif isinstance(value, dict):
            self.displays.append(value)
        else:
            self.broken = "it carried a display that is not an object."

    def begin_call(self, payload: bytes, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Work on a call of the code's; `send` hands its answer to the supervisor."""
        if self.calls is None or self._unanswered >= OPEN_CALLS_MAX:
            self.broken = "it asked for more than it may."
            return
        self._unanswered += 1
        calling = asyncio.ensure_future(self._call(self.calls, payload, send))
        self.calling.add(calling)
        calling.add_done_callback(self.calling.discard)

    async def _call(self, calls: CallTaker, payload: bytes, send: Callable[[bytes], Awaitable[None]]) -> None:
        call = parse_call(loads_strict(payload, depth_max=JSON_DEPTH_MAX + 1))
        try:
            answer = await calls.take(call)
        except CrankError as fault:
            answer = refusal(call.number, fault.error_code, fault.message, fault.fix)
        except Exception:  # noqa: BLE001 - the code must not wait for ever
            _log.exception("call.defect", number=call.number)
            answer = refusal(call.number, "internal_error", "The worker failed; its log says how.", None)
        # Before it is out: the code may ask again as soon as it is, and sooner than this task is over.
        self._unanswered -= 1
        await send(answer_frame(answer))

    def finish(self) -> None:
        """Tell what an unfinished character left; nobody waits for the code's calls any more."""
        for calling in self.calling:
            calling.cancel()
        for kind, text in self.texts.items():
            self._emit(kind, *text.rest())

    def hand_over(self) -> tuple[JsonValue, tuple[JsonValue, ...]]:
        """Return the result and what was displayed. A session that lives on does not keep them."""
        result, displays = self.result, tuple(self.displays)
        self.result, self.displays = None, []
        return result, displays

    def _emit(self, kind: str, text: str, offset: int) -> None:
        if text:
            self.sink.output("stdout" if kind == "O" else "stderr", text, offset, self._at_sec)
