"""The supervisor: one process per session, outside the job's namespaces, that owns its clocks and its end.

It reads what the job writes, counts and cuts it, keeps every deadline on a clock that only moves forward,
kills the whole tree when one passes, sees that nothing is left, and tells the runner in frames. It never
waits for the job and never waits without a bound for the runner.
"""

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from crank.domain.json import dumps, loads_strict
from crank.domain.outcome import Clock, End, Reason
from crank.domain.quantity import DISPLAYS_MAX, JSON_DEPTH_MAX, KIB, MIB, RESULT_BYTES_MAX
from crank.errors import CrankError, InvalidRequest, ProtocolError, SandboxError
from crank.sandbox import assembly, verdict, watch
from crank.sandbox.assembly import Order, Standing
from crank.sandbox.bundle import order_bytes
from crank.sandbox.cell import LINK_BYTES_MAX
from crank.sandbox.frames import FrameReader, encode
from crank.sandbox.ledger import StreamLedger

RUN_BYTES_MAX = 16 * MIB
CONTROL_BYTES_MAX = 64 * KIB
# What the runner may send (frame kinds and their longest payloads).
TO_SUPERVISOR = {"r": RUN_BYTES_MAX, "s": CONTROL_BYTES_MAX}

OUTPUT_HEAD = struct.Struct("!Qd")
_CHUNK = 64 * KIB
# The runner is slow or stuck: stop reading the job, so that its own writes block, and hold no more.
_QUEUE_BYTES_MAX = 1 * MIB
_TICK_COUNTED_SEC = 0.05
_TICK_WATCHED_SEC = 0.02
_PROGRESS_GAP_SEC = 0.05
_HALF_FRAME_SEC = 1.0
_AFTER_CLAIM_SEC = 2.0
_FLUSH_SEC = 10.0
_NOTES_MAX = 20
# Bytes alone do not bound what the worker needs to hold: an empty list is two bytes there and sixty here.
_DISPLAY_ITEMS_MAX = 200_000


class _Outbox:
    """Frames for the runner that its socket has not taken yet."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._queue = bytearray()

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, kind: str, payload: bytes) -> None:
        self._queue += encode(kind, payload)

    def flush(self) -> None:
        """Send what the socket takes now. Raises OSError when the runner is gone."""
        while self._queue:
            try:
                sent = self._channel.send(self._queue[:_CHUNK])
            except BlockingIOError:
                return
            del self._queue[:sent]


class Supervisor:
    """One session, from its proven cell to its reported end."""

    def __init__(self, order: Order, channel: socket.socket, wake: int, standing: Standing) -> None:
        self._limits = order.plan.limits
        self._standing = standing
        self._channel = channel
        self._wake = wake
        self._launcher = os.getppid()
        self._outbox = _Outbox(channel)
        self._orders = FrameReader(TO_SUPERVISOR)
        most = self._limits.result_bytes + 64 * KIB
        self._words = FrameReader({"g": 4 * KIB, "d": most, "e": most}, prefix=standing.token)
        self._streams = {
            standing.stdout: ("O", StreamLedger(self._limits.output_bytes)),
            standing.stderr: ("E", StreamLedger(self._limits.output_bytes)),
        }
        self._open = {standing.stdout, standing.stderr, standing.result, standing.link.fileno(), channel.fileno()}
        self._input = bytearray()
        self._input_open = True
        self._runner_gone = False
        self._started: float | None = None
        self._ended: float | None = None
        self._lost = False
        self._violation: str | None = None
        self._cause: End | None = None
        self._status: int | None = None
        self._claim: verdict.Claim | None = None
        self._claimed_at = 0.0
        self._result: bytes | None = None
        self._half_since: float | None = None
        self._displays = [0, 0, 0]
        self._progress: bytes | None = None
        self._progress_at = 0.0
        self._notes: list[str] = []
        self._cpu_before = 0.0
        self._peak_bytes: int | None = None
        self._cpu_sec = 0.0
        self._next_look = 0.0

    # --- the loop ---

    def run(self) -> None:
        """Serve until the session has ended and the runner knows how."""
        self._channel.setblocking(False)
        for descriptor in (self._standing.result, self._standing.stdout, self._standing.stderr):
            os.set_blocking(descriptor, False)
        os.set_blocking(self._standing.request, False)
        while self._status is None and self._cause is None and not self._lost:
            self._turn()
        self._finish()

    def _turn(self) -> None:
        self._send()
        handlers = self._handlers()
        waiting = select.poll()
        for descriptor, (events, _) in handlers.items():
            waiting.register(descriptor, events)
        for descriptor, _ in waiting.poll(self._patience_ms()):
            handlers[descriptor][1](descriptor)
            if self._cause is not None or self._lost:
                return
        self._check_clocks()

    def _handlers(self) -> dict[int, tuple[int, Callable[[int], None]]]:
        standing, channel = self._standing, self._channel.fileno()
        handlers: dict[int, tuple[int, Callable[[int], None]]] = {self._wake: (select.POLLIN, self._on_wake)}
        handlers[channel] = (select.POLLIN | (select.POLLOUT if self._outbox else 0), self._on_channel)
        handlers[standing.link.fileno()] = (select.POLLIN, self._on_link)
        if self._input and self._input_open:
            handlers[standing.request] = (select.POLLOUT, self._on_request)
        if len(self._outbox) < _QUEUE_BYTES_MAX:
            for descriptor in self._streams:
                handlers[descriptor] = (select.POLLIN, self._on_output)
            handlers[standing.result] = (select.POLLIN, self._on_word)
        return {descriptor: entry for descriptor, entry in handlers.items() if self._is_open(descriptor)}

    def _is_open(self, descriptor: int) -> bool:
        return descriptor in self._open or descriptor in (self._wake, self._standing.request)

    def _patience_ms(self) -> float:
        if self._started is None:
            return 60_000.0
        now = time.monotonic()
        moments = [self._started + self._limits.wall_sec, self._next_look]
        if self._half_since is not None:
            moments.append(self._half_since + _HALF_FRAME_SEC)
        if self._progress is not None:
            moments.append(self._progress_at + _PROGRESS_GAP_SEC)
        return max(0.0, min(moments) - now) * 1000 + 0.5

    # --- what arrives ---

    def _on_wake(self, _: int) -> None:
        # The kernel sends the same signal when the launcher died; then somebody else is our parent.
        if os.getppid() != self._launcher:
            self._kill(End(Reason.SANDBOX_FAILED, code="launcher_lost", message="The sandbox's launcher died."))
            return
        self._kill(End(Reason.CANCELLED, message="The worker's launcher is shutting down."))

    def _on_channel(self, _: int) -> None:
        try:
            chunk = self._channel.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._runner_gone = True
            self._kill(End(Reason.CANCELLED, message="The worker went away."))
            return
        for frame in self._orders.feed(chunk):
            if frame.kind == "s":
                reason = Reason(loads_strict(frame.payload)["reason"])
                self._kill(End(reason, message=f"The job was ended from outside: {reason.value}."))
            elif self._started is None:
                self._begin(frame.payload)

    def _begin(self, payload: bytes) -> None:
        self._cpu_before = self._look()[0]
        # One level more than args may have: the order itself.
        order = loads_strict(payload, depth_max=JSON_DEPTH_MAX + 1)
        self._input += encode("r", order_bytes({"code": order["code"], "args": order["args"]}))
        self._started = self._next_look = time.monotonic()

    def _on_request(self, descriptor: int) -> None:
        try:
            sent = os.write(descriptor, self._input[:_CHUNK])
        except BlockingIOError:
            return
        except OSError:
            # The guest closed its end or is gone; how it ended is told elsewhere.
            self._input_open = False
            return
        del self._input[:sent]

    def _on_link(self, descriptor: int) -> None:
        raw = self._standing.link.recv(LINK_BYTES_MAX)
        self._ended = time.monotonic()
        if not raw:
            # The init died without a word: killed for memory, or by the host's operator.
            self._open.discard(descriptor)
            self._lost = True
            return
        message = loads_strict(raw)
        self._status = int(message["guest"])
        if message["left"]:
            self._note(f"{message['left']} process(es) were still running when the script ended and were ended with it")

    def _on_output(self, descriptor: int) -> None:
        chunk = self._read(descriptor)
        if not chunk:
            return
        kind, ledger = self._streams[descriptor]
        offset = ledger.seen_bytes
        kept = ledger.take(chunk)
        if kept:
            at_sec = time.monotonic() - (self._started or time.monotonic())
            self._outbox.put(kind, OUTPUT_HEAD.pack(offset, at_sec) + kept)
        if sum(ledger.seen_bytes for _, ledger in self._streams.values()) > self._limits.output_flood_bytes:
            self._kill(verdict.output_end(self._limits))

    def _read(self, descriptor: int) -> bytes:
        try:
            chunk = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return b""
        if not chunk:
            self._open.discard(descriptor)
        return chunk

    def _on_word(self, descriptor: int) -> None:
        chunk = self._read(descriptor)
        if not chunk:
            return
        try:
            for frame in self._words.feed(chunk):
                self._take_word(frame.kind, frame.payload)
        except ProtocolError as fault:
            self._violate(descriptor, fault.message)
            return
        except (InvalidRequest, KeyError, TypeError, ValueError):
            self._violate(descriptor, "it carried something that is not strict JSON of the agreed shape.")
            return
        self._half_since = time.monotonic() if self._words.pending else None

    def _violate(self, descriptor: int, cause: str) -> None:
        self._violation = cause
        self._open.discard(descriptor)
        self._kill(verdict.violation_end(cause))

    def _take_word(self, kind: str, payload: bytes) -> None:
        if self._claim is not None:
            raise ProtocolError("it went on after it had told of its end.")
        if self._started is None:
            raise ProtocolError("it spoke before it was asked.")
        word = loads_strict(payload)
        if not isinstance(word, dict):
            raise ProtocolError("it carried something other than an object.")
        if kind == "g":
            self._take_progress(word["fraction"], word["message"])
        elif kind == "d":
            self._take_display(payload)
        else:
            self._take_end(word)

    def _take_progress(self, fraction: Any, message: Any) -> None:
        # Compared before it is converted: an integer may be larger than any float.
        numeric = isinstance(fraction, int | float) and not isinstance(fraction, bool) and 0 <= fraction <= 1
        if not isinstance(message, str) or not (fraction is None or numeric):
            raise ProtocolError("its progress has an unknown form.")
        told = {"fraction": None if fraction is None else float(fraction), "message": message[:500]}
        self._progress = dumps(told).encode()

    def _take_display(self, payload: bytes) -> None:
        self._displays[0] += 1
        self._displays[1] += len(payload)
        self._displays[2] += sum(payload.count(sign) for sign in (b"[", b"{", b","))
        limits = (DISPLAYS_MAX, RESULT_BYTES_MAX, _DISPLAY_ITEMS_MAX)
        if any(count > most for count, most in zip(self._displays, limits, strict=True)):
            self._note("some displays were dropped: there were too many, or together they were too large")
            return
        self._outbox.put("D", payload)

    def _take_end(self, word: dict[str, Any]) -> None:
        if word["how"] not in ("done", "exit", "raised") or not isinstance(word["code"], int):
            raise ProtocolError("its end has an unknown form.")
        texts = {name: word[name] for name in ("error", "hint", "note")}
        if not all(text is None or isinstance(text, str) for text in texts.values()):
            raise ProtocolError("its end has an unknown form.")
        if word["has_result"] is True:
            self._result = dumps(word["result"]).encode()
        for told in word["told"]:
            self._note(f"told by the job: {str(told)[:300]}")
        self._claim = verdict.Claim(how=word["how"], code=word["code"], **texts)
        self._claimed_at = time.monotonic()

    def _note(self, sentence: str) -> None:
        if sentence not in self._notes and len(self._notes) < _NOTES_MAX:
            self._notes.append(sentence)

    # --- clocks and counters ---

    def _check_clocks(self) -> None:
        now = time.monotonic()
        if self._started is None or self._status is not None:
            return
        if now >= self._started + self._limits.wall_sec:
            self._kill(verdict.timeout_end(self._limits, Clock.WALL))
        elif self._half_since is not None and now >= self._half_since + _HALF_FRAME_SEC:
            self._kill(verdict.violation_end("it began a message and did not finish it."))
        elif self._claim is not None and now >= self._claimed_at + _AFTER_CLAIM_SEC:
            self._kill(verdict.violation_end("it told of its end and did not end."))
        elif now >= self._next_look:
            self._check_counters(now)

    def _check_counters(self, now: float) -> None:
        cpu_sec, over = self._look()
        tick = _TICK_WATCHED_SEC if self._standing.group is None else _TICK_COUNTED_SEC
        # A look at a big tree is dear; never spend more than a tenth of the time looking.
        self._next_look = time.monotonic() + max(tick, 10 * (time.monotonic() - now))
        if over is not None:
            self._kill(over)
        elif cpu_sec - self._cpu_before > self._limits.cpu_sec:
            self._kill(verdict.timeout_end(self._limits, Clock.CPU))

    def _look(self) -> tuple[float, End | None]:
        """Read what the tree has used; return its CPU time and the limit that it has passed, if any."""
        group, limits = self._standing.group, self._limits
        if group is not None:
            reading = group.read()
            self._cpu_sec, self._peak_bytes = reading.cpu_sec, reading.peak_memory_bytes
            over = verdict.memory_end(limits) if reading.memory_kills else None
            if reading.process_refusals:
                over = verdict.processes_end(limits)
            return reading.cpu_sec, over
        *private, proc = self._standing.folders
        tree = watch.read_tree(proc, tuple(private))
        self._cpu_sec = max(self._cpu_sec, tree.cpu_sec)
        self._peak_bytes = max(self._peak_bytes or 0, tree.memory_bytes)
        if tree.memory_bytes > limits.memory_bytes:
            return self._cpu_sec, verdict.memory_end(limits)
        return self._cpu_sec, verdict.processes_end(limits) if tree.tasks > limits.processes else None

    # --- the end ---

    def _kill(self, cause: End) -> None:
        """End the tree now. The first cause stands; a guest that has already ended is not blamed."""
        if self._cause is None and self._status is None:
            self._cause = cause
            self._ended = time.monotonic()

    def _send(self) -> None:
        now = time.monotonic()
        if self._progress is not None and now >= self._progress_at + _PROGRESS_GAP_SEC:
            self._outbox.put("G", self._progress)
            self._progress, self._progress_at = None, now
        try:
            self._outbox.flush()
        except OSError:
            self._runner_gone = True
            self._kill(End(Reason.CANCELLED, message="The worker went away."))

    def _finish(self) -> None:
        """Kill what is left, read what it wrote, report. Everything here is bounded."""
        standing = self._standing
        assembly.kill(standing)
        gone = assembly.reap(standing)
        self._drain()
        final = self._final_reading()
        clean = assembly.take_down(standing) and gone
        if self._runner_gone:
            return
        self._report(final, clean)
        self._channel.setblocking(True)
        self._channel.settimeout(_FLUSH_SEC)
        with contextlib.suppress(OSError):
            self._outbox.flush()

    def _drain(self) -> None:
        """Read what lies in the pipes. Every writer is dead, so each ends."""
        for descriptor in (self._standing.result, *self._streams):
            handle = self._on_word if descriptor == self._standing.result else self._on_output
            while descriptor in self._open:
                before = self._claim, self._seen()
                handle(descriptor)
                if (self._claim, self._seen()) == before and not self._readable(descriptor):
                    break

    def _seen(self) -> int:
        return sum(ledger.seen_bytes for _, ledger in self._streams.values())

    def _readable(self, descriptor: int) -> bool:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        return bool(waiting.poll(0))

    def _final_reading(self) -> tuple[int, int]:
        """Return how often the kernel killed for memory and refused a process."""
        group = self._standing.group
        if group is None:
            return 0, 0
        reading = group.read()
        self._cpu_sec, self._peak_bytes = reading.cpu_sec, reading.peak_memory_bytes
        return reading.memory_kills, reading.process_refusals

    def _report(self, refused: tuple[int, int], clean: bool) -> None:
        facts = verdict.Facts(
            cause=self._cause,
            violation=self._violation or ("it broke off inside a message." if self._words.pending else None),
            status=self._status,
            claim=self._claim,
            memory_kills=refused[0],
            process_refusals=refused[1],
        )
        end = verdict.decide(facts, self._limits)
        if self._progress is not None:
            self._outbox.put("G", self._progress)
        if not clean:
            self._note("something of the job could not be removed within its time")
        for kind, (_, ledger) in zip("oe", self._streams.values(), strict=True):
            self._outbox.put(kind, ledger.tail)
        kept = end.reason in (Reason.EXITED, Reason.RAISED) and self._result is not None
        if kept and self._result is not None:
            self._outbox.put("V", self._result)
        seen = [ledger.seen_bytes for _, ledger in self._streams.values()]
        started = self._started or time.monotonic()
        ended = {
            "end": asdict(end),
            "seen": seen,
            "has_result": kept,
            "wall_sec": max(0.0, (self._ended or started) - started),
            "cpu_sec": max(0.0, self._cpu_sec - self._cpu_before),
            "peak_memory_bytes": self._peak_bytes,
            "denials": self._notes,
        }
        self._outbox.put("Z", dumps(ended).encode())


Work = Callable[[Order, socket.socket, int, float], None]


def refuse(channel: socket.socket, fault: CrankError) -> None:
    """Tell the runner why there is no session. Raises OSError when the runner is gone."""
    refusal = {"code": fault.error_code, "message": fault.message, "fix": fault.fix, "detail": fault.detail}
    channel.sendall(encode("F", dumps(refusal).encode()))


def rehearse(order: Order, channel: socket.socket, wake: int, began: float) -> None:
    """Raise every wall that needs no profile, take them down, tell the runner."""
    with contextlib.suppress(OSError):
        try:
            assembly.rehearse(order)
        except SandboxError as fault:
            refuse(channel, fault)
        else:
            channel.sendall(encode("R", dumps({"setup_sec": time.monotonic() - began}).encode()))


def serve(order: Order, channel: socket.socket, wake: int, began: float) -> None:
    """Be the supervisor: raise the cell, tell the runner, serve the session. Returns when it is over."""
    try:
        standing = assembly.assemble(order)
    except SandboxError as fault:
        with contextlib.suppress(OSError):
            refuse(channel, fault)
        return
    ready = {
        "uid": order.identity.uid,
        "gid": order.identity.gid,
        "privileged": order.identity.privileged,
        "cgroup": order.groups.flavour if order.groups is not None else None,
        "proof": standing.proof,
        "setup_sec": time.monotonic() - began,
    }
    doors = [standing.folders[0], standing.folders[1]]
    try:
        socket.send_fds(channel, [encode("R", dumps(ready).encode())], doors)
    except OSError:
        assembly.take_down(standing)
        return
    Supervisor(order, channel, wake, standing).run()
