"""The events of one attempt, in order, kept until the attempt is settled so that a new link can resend them."""

import asyncio

from crank.wire import OUTPUT_TEXT_CHARS_MAX, JobEvent

# How long output is gathered before it is sent: short enough to look live, long enough to batch.
GATHER_SEC = 0.03
BATCH_EVENTS_MAX = 64
_PROGRESS_EVENTS_MAX = 10_000
_MESSAGE_CHARS_MAX = 2_000


class Feed:
    """Takes output from a running job and hands it out in batches.

    Memory is bounded: of each stream the first `live_bytes_max` bytes go live; the outcome keeps head
    and tail of everything. Sequence numbers count from 1 and have no gap.
    """

    def __init__(self, epoch: int, *, live_bytes_max: int) -> None:
        self._epoch = epoch
        self._live_bytes_max = live_bytes_max
        self._live_bytes = {"stdout": 0, "stderr": 0}
        self._progress_events = 0
        self._events: list[JobEvent] = []
        self._sent_up_to = 0
        self._ever_sent = 0
        self.changed = asyncio.Event()

    def output(self, stream: str, text: str, offset_bytes: int, at_sec: float) -> None:
        """Take text of `stdout` or `stderr`; what passes the bound is dropped here, not in the outcome."""
        if self._live_bytes[stream] >= self._live_bytes_max:
            return
        for start in range(0, len(text), OUTPUT_TEXT_CHARS_MAX):
            piece = text[start : start + OUTPUT_TEXT_CHARS_MAX]
            self._add(stream, piece, offset_bytes, None, round(at_sec * 1000))
            size = len(piece.encode("utf-8", "surrogatepass"))
            offset_bytes += size
            self._live_bytes[stream] += size
            if self._live_bytes[stream] >= self._live_bytes_max:
                return

    def progress(self, fraction: float | None, message: str) -> None:
        """Take progress; a job that tells of it endlessly is heard for its first 10 000 times."""
        if self._progress_events >= _PROGRESS_EVENTS_MAX:
            return
        self._progress_events += 1
        at_ms = self._events[-1].at_ms if self._events else 0
        # One event that the wire refuses would be sent again for ever, so only a fraction goes in.
        known = fraction if fraction is not None and 0 <= fraction <= 1 else None
        self._add("progress", message[:_MESSAGE_CHARS_MAX], 0, known, at_ms)

    def rewind(self, next_seq: int) -> None:
        """Begin again at this sequence number: the receiver has what is before it."""
        self._sent_up_to = max(0, min(next_seq - 1, len(self._events)))

    def batch(self) -> list[JobEvent]:
        """Return the next events to send (empty when all are sent) and count them as sent."""
        chosen: list[JobEvent] = []
        chars = 0
        for event in self._events[self._sent_up_to : self._sent_up_to + BATCH_EVENTS_MAX]:
            chars += len(event.text)
            if chosen and chars > OUTPUT_TEXT_CHARS_MAX:
                break
            chosen.append(event)
        self._sent_up_to += len(chosen)
        self._ever_sent = max(self._ever_sent, self._sent_up_to)
        return chosen

    def _add(self, kind: str, text: str, offset_bytes: int, fraction: float | None, at_ms: int) -> None:
        last = self._events[-1] if self._events else None
        unsent = len(self._events) > self._ever_sent
        if last and unsent and last.kind == kind != "progress" and len(last.text) + len(text) <= OUTPUT_TEXT_CHARS_MAX:
            # Never sent, so it may still grow: many small writes become one event.
            text, offset_bytes, at_ms = last.text + text, last.offset_bytes, last.at_ms
            self._events.pop()
        seq = len(self._events) + 1
        self._events.append(JobEvent(self._epoch, seq, kind, text, offset_bytes, fraction, at_ms))  # type: ignore[arg-type]
        self.changed.set()
