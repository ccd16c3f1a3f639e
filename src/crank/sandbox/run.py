"""One run as its supervisor sees it: what the guest has said and written, counted, cut and checked.

Whatever comes from the guest is a stranger's. Its frames are bounded, its words are of a closed list, and its
result and displays are passed on unread: the worker reads them once, strictly.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from crank.domain.handle import CALL_BYTES_MAX
from crank.domain.json import dumps, loads_strict
from crank.domain.outcome import LAYERS, Clock, End, Reason
from crank.domain.profile import Limits
from crank.domain.quantity import DISPLAYS_MAX, KIB, RESULT_BYTES_MAX
from crank.errors import InvalidRequest, ProtocolError
from crank.sandbox import verdict
from crank.sandbox.calls import Calls
from crank.sandbox.frames import FrameReader
from crank.sandbox.ledger import StreamLedger

HALF_FRAME_SEC = 1.0
PROGRESS_GAP_SEC = 0.05
# More reads than this within the time are a flood; then the job is not heard for a moment, and what it says gathers.
_READS_MAX = 50
_READS_SEC = 0.05
_QUIET_SEC = 0.02
# So many words cost what a read costs.
_WORDS_A_READ = 20
_NOTES_MAX = 20
_DENIALS_MAX = 100
# Bytes alone do not bound what the worker needs to hold: an empty list is two bytes there and sixty here.
_DISPLAY_ITEMS_MAX = 200_000
# Less CPU time than this between two looks is waiting, not work.
_WORK_SEC = 0.002


class Run:
    """From the order to the last word."""

    def __init__(self, limits: Limits, token: bytes, calls: Calls | None = None) -> None:
        self.limits = limits
        # None unless the job has handles: then no call is a word that it may say.
        self.calls = calls
        self.streams = {"O": StreamLedger(limits.output_bytes), "E": StreamLedger(limits.output_bytes)}
        most = limits.result_bytes + 64 * KIB
        kinds = {"b": 0, "g": 4 * KIB, "d": most, "v": most, "e": 64 * KIB}
        if calls is not None:
            kinds["c"] = CALL_BYTES_MAX
        self._words = FrameReader(kinds, prefix=token)
        self.began = time.monotonic()
        # Whether the guest has said that it reached the job's first line.
        self.reached = False
        # Sent to its code and not passed on yet.
        self.signals: list[int] = []
        self.ended: float | None = None
        self.cause: End | None = None
        self.violation: str | None = None
        self.status: int | None = None
        self.claim: verdict.Claim | None = None
        self.result: bytes | None = None
        self.displays: list[bytes] = []
        self.progress: bytes | None = None
        self.progress_at = 0.0
        # Until then nothing more is heard. A job that could have us read without end would take the time that we need
        # to end it, and its neighbours: of who used much the kernel lets others go first.
        self.quiet_until = 0.0
        self._reads, self._reads_since = 0, self.began
        self.half_since: float | None = None
        self.notes: list[str] = []
        self.denials: dict[tuple[str, str, str], int] = {}
        self._shown = [0, 0, 0]
        self._wrote_at = self._worked_at = self.began
        self._worked_cpu_sec = 0.0

    @property
    def seen_bytes(self) -> int:
        """Return how much both streams have brought."""
        return sum(ledger.seen_bytes for ledger in self.streams.values())

    @property
    def broke_off(self) -> bool:
        """Tell whether the guest's last frame is half."""
        return self._words.pending

    def take_output(self, kind: str, chunk: bytes) -> tuple[int, float, bytes]:
        """Count output; return where it began, when it came, and the part of it that is kept."""
        ledger = self.streams[kind]
        offset = ledger.seen_bytes
        self._count_read()
        self._wrote_at = time.monotonic()
        return offset, self._wrote_at - self.began, ledger.take(chunk)

    def take_words(self, chunk: bytes) -> None:
        """Take what the guest says. Raises ProtocolError at the first thing that it may not say."""
        progress: list[bytes] = []
        try:
            frames = self._words.feed(chunk)
            self._count_read(len(frames))
            for frame in frames:
                if frame.kind == "g" and self.reached and self.claim is None:
                    progress.append(frame.payload)
                else:
                    self._take(frame.kind, frame.payload)
            if progress:
                # A thousand may lie in one chunk; nobody is shown more than the last, so nobody reads more.
                self._take_progress(progress[-1])
        except (InvalidRequest, KeyError, TypeError, ValueError) as fault:
            raise ProtocolError("it carried something that is not strict JSON of the agreed shape.") from fault
        self.half_since = time.monotonic() if self._words.pending else None

    def _count_read(self, words: int = 0) -> None:
        now = time.monotonic()
        if now > self._reads_since + _READS_SEC:
            self._reads, self._reads_since = 0, now
        self._reads += 1 + words // _WORDS_A_READ
        if self._reads > _READS_MAX:
            self._reads, self._reads_since = 0, now + _QUIET_SEC
            self.quiet_until = now + _QUIET_SEC

    def _take(self, kind: str, payload: bytes) -> None:
        if self.claim is not None:
            raise ProtocolError("it went on after it had told of its end.")
        if self.reached is (kind == "b"):
            raise ProtocolError("it spoke before its beginning, or began twice.")
        if kind == "b":
            self.reached = True
        elif kind == "d":
            self._take_display(payload)
        elif kind == "c" and self.calls is not None:
            self.calls.take(payload)
        elif kind == "v":
            if self.result is not None:
                raise ProtocolError("it gave two results.")
            self.result = payload
        else:
            self._take_end(_object(payload))

    def answered(self, payload: bytes) -> None:
        """Take the worker's answer to a call."""
        if self.calls is not None:
            self.calls.answered(payload)

    def take_calls(self, answer: Callable[[bytes], None]) -> list[bytes]:
        """Return the calls to pass on, and hand what they were answered to `answer`; both are forgotten here."""
        calls = self.calls
        if calls is None:
            return []
        for frame in calls.answers:
            answer(frame)
        calls.answers.clear()
        forward, calls.forward = calls.forward, []
        return forward

    def _take_progress(self, payload: bytes) -> None:
        word = _object(payload)
        fraction, message = word["fraction"], word["message"]
        # Compared before it is converted: an integer may be larger than any float.
        numeric = isinstance(fraction, int | float) and not isinstance(fraction, bool) and 0 <= fraction <= 1
        if not isinstance(message, str) or not (fraction is None or numeric):
            raise ProtocolError("its progress has an unknown form.")
        told = {"fraction": None if fraction is None else float(fraction), "message": message[:500]}
        self.progress = dumps(told).encode()

    def _take_display(self, payload: bytes) -> None:
        self._shown[0] += 1
        self._shown[1] += len(payload)
        self._shown[2] += sum(payload.count(sign) for sign in (b"[", b"{", b","))
        limits = (DISPLAYS_MAX, RESULT_BYTES_MAX, _DISPLAY_ITEMS_MAX)
        if any(count > most for count, most in zip(self._shown, limits, strict=True)):
            self.note("some displays were dropped: there were too many, or together they were too large")
            return
        self.displays.append(payload)

    def _take_end(self, word: dict[str, Any]) -> None:
        if word["how"] not in ("done", "exit", "raised") or type(word["code"]) is not int:
            raise ProtocolError("its end has an unknown form.")
        texts = {name: word[name] for name in ("error", "hint", "note")}
        if not all(text is None or isinstance(text, str) for text in texts.values()):
            raise ProtocolError("its end has an unknown form.")
        for layer, action in word["told"][:_NOTES_MAX]:
            # An outcome with a word that its reader does not know would be lost whole.
            if layer not in LAYERS or not isinstance(action, str):
                raise ProtocolError("its evidence has an unknown form.")
            self.deny(layer, action[:300], told_by="job")
        self.claim = verdict.Claim(how=word["how"], code=word["code"] & 0xFF, **texts)

    def note(self, sentence: str) -> None:
        """Keep a sentence for whoever reads the outcome, once."""
        if sentence not in self.notes and len(self.notes) < _NOTES_MAX:
            self.notes.append(sentence)

    def deny(self, layer: str, action: str, *, told_by: str, count: int = 1) -> None:
        """Keep evidence that a layer refused something."""
        key = (layer, action, told_by)
        # A job that tells a lot must not leave the kernel's word without room; and what the kernel is asked for
        # is the job's choice, too.
        if key not in self.denials and len(self.denials) >= (_NOTES_MAX if told_by == "job" else _DENIALS_MAX):
            if told_by == "job":
                return
            key = (layer, "others of its kind", told_by)
        self.denials[key] = self.denials.get(key, 0) + count

    def worked(self, cpu_sec: float) -> None:
        """Note how much CPU time the tree has used by now."""
        if cpu_sec - self._worked_cpu_sec > _WORK_SEC:
            self._worked_cpu_sec = cpu_sec
            self._worked_at = time.monotonic()

    def late_clock(self, now: float) -> Clock | None:
        """Return the clock that has run out, if one has."""
        limits = self.limits
        if self.calls is not None and self.calls.open:
            # It waits for what others do for it.
            self._worked_at = now
        if now >= self.began + limits.wall_sec:
            return Clock.WALL
        if now >= self._wrote_at + limits.no_output_sec:
            return Clock.NO_OUTPUT
        if now >= max(self._wrote_at, self._worked_at) + limits.idle_sec:
            return Clock.IDLE
        return None

    def next_moment(self) -> float:
        """Return when a clock may run out next, or something held back is due."""
        limits = self.limits
        moments = [
            self.began + limits.wall_sec,
            self._wrote_at + limits.no_output_sec,
            max(self._wrote_at, self._worked_at) + limits.idle_sec,
        ]
        if self.half_since is not None:
            moments.append(self.half_since + HALF_FRAME_SEC)
        if self.progress is not None:
            moments.append(self.progress_at + PROGRESS_GAP_SEC)
        return min(moments)

    def facts(self, **seen: Any) -> verdict.Facts:
        """Return what is known of the end, beside what was seen of the machine; see `verdict.Facts`."""
        status = self.status
        if status is None and self.claim is not None:
            # Taken at its word: it is killed before it could go on.
            status = self.claim.code << 8
        violation = self.violation or ("it broke off inside a message." if self.broke_off else None)
        return verdict.Facts(cause=self.cause, violation=violation, status=status, claim=self.claim, **seen)

    def last_words(self, facts: verdict.Facts, usage: Mapping[str, Any]) -> list[tuple[str, bytes]]:
        """Return the frames that tell of the end: what is held back, the tails of the output, the result, how it ended."""
        end = verdict.decide(facts, self.limits)
        for action in self.calls.refused if self.calls is not None else ():
            self.deny("handle", action, told_by="sandbox")
        for denial in verdict.counted(facts):
            self.deny(denial.layer, denial.action, told_by=denial.told_by, count=denial.count)
        frames = [] if self.progress is None else [("G", self.progress)]
        frames += [(kind, ledger.tail) for kind, ledger in zip("oe", self.streams.values(), strict=True)]
        kept = end.reason in (Reason.EXITED, Reason.RAISED) and self.result is not None
        if kept and self.result is not None:
            frames.append(("V", self.result))
        ended = {
            "end": asdict(end),
            "seen": [ledger.seen_bytes for ledger in self.streams.values()],
            "has_result": kept,
            "wall_sec": max(0.0, (self.ended or time.monotonic()) - self.began),
            "notes": self.notes,
            "denials": self.evidence(),
            **usage,
        }
        return [*frames, ("Z", dumps(ended).encode())]

    def evidence(self) -> list[Mapping[str, Any]]:
        """Return the denials as plain values."""
        return [
            {"layer": layer, "action": action, "count": count, "told_by": told_by}
            for (layer, action, told_by), count in self.denials.items()
        ]


def _object(payload: bytes) -> dict[str, Any]:
    word = loads_strict(payload)
    if not isinstance(word, dict):
        raise ProtocolError("it carried something other than an object.")
    return word
