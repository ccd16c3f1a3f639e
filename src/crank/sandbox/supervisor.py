"""The supervisor: one process per session, outside the job's namespaces, that owns its clocks and its end.

It reads what the job writes, counts and cuts it, keeps every deadline on a clock that only moves forward,
kills the whole tree when one passes, sees that nothing is left, and tells the runner in frames. It never
waits for the job and never waits without a bound for the runner. Files of the session go through it, too:
it has the job's own identity on the host, and the worker none of it.
"""

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import asdict

from crank.domain.json import JsonObject, dumps, loads_strict
from crank.domain.outcome import NEVER_BEGAN, Clock, End, Reason
from crank.domain.profile import Limits
from crank.domain.quantity import KIB, MIB
from crank.errors import ProtocolError
from crank.sandbox import assembly, clerk, kernel, verdict
from crank.sandbox.assembly import Order, Standing
from crank.sandbox.bundle import order_bytes
from crank.sandbox.calls import BACKLOG_BYTES_MAX, Calls
from crank.sandbox.cell import LINK_BYTES_MAX
from crank.sandbox.counters import Counters
from crank.sandbox.frames import Frame, FrameReader, encode
from crank.sandbox.inlet import Inlet
from crank.sandbox.outbox import Outbox
from crank.sandbox.run import HALF_FRAME_SEC, PROGRESS_GAP_SEC, Run
from crank.sandbox.spoken import OUTPUT_HEAD, RUN_HEAD, STDIN_HEAD, TO_SUPERVISOR

_NEVER_BEGAN = "The sandbox died before the job's code began."

_CHUNK = 64 * KIB
# The runner is slow or stuck: stop reading the job, so that its own writes block, and hold no more.
_QUEUE_BYTES_MAX = 1 * MIB
_TICK_COUNTED_SEC = 0.05
_TICK_WATCHED_SEC = 0.02
_END_SEC = 0.25  # So near a deadline nothing is looked at.
_FLUSH_SEC = 10.0
_FOREVER_MS = 60_000.0
_PLAIN_END = b'{"how":"done","code":0,"error":null,"hint":null,"note":null,"told":[]}'


class Supervisor:
    """One session, from its proven cell until the runner lets go of it."""

    def __init__(self, order: Order, channel: socket.socket, wake: int, standing: Standing) -> None:
        self._limits = order.plan.limits
        self._memory_bytes = self._limits.memory_bytes
        self._lasting = False
        self._standing = standing
        self._tree = standing.tree
        self._lines = standing.lines
        self._channel = channel
        self._wake = wake
        self._launcher = os.getppid()
        self._outbox = Outbox(channel)
        self._orders = FrameReader(TO_SUPERVISOR)
        self._kinds = {self._lines.stdout: "O", self._lines.stderr: "E"}
        self._open = {self._lines.result, *self._kinds, self._lines.link.fileno(), channel.fileno()}
        self._clerk = clerk.Clerk(standing.folders[0], standing.folders[1], self._limits)
        self._inlet = Inlet(self._lines.request)
        self._refusals = standing.refusals
        self._runner_gone = False
        self._run: Run | None = None
        # An order that was taken and not passed on yet: first its taking must have been told.
        self._coming: tuple[bytes, bool] | None = None
        self._stdin_told = 0
        self._runs = 0
        self._dead = False
        self._lost = False
        self._counters = Counters(standing)
        self._next_look = self._look_sec = 0.0
        self.clean = True

    # --- the loop ---

    def run(self) -> None:
        """Serve until the runner lets go of the session."""
        self._channel.setblocking(False)
        while not self._runner_gone:
            self._turn()
        if not self._dead:
            self._take_down()

    def _turn(self) -> None:
        self._send()
        handlers = self._handlers()
        waiting = select.poll()
        for descriptor, (events, _) in handlers.items():
            waiting.register(descriptor, events)
        for descriptor, _ in waiting.poll(self._patience_ms()):
            handlers[descriptor][1](descriptor)
            if self._runner_gone or self._is_over():
                break
        self._check_clocks()
        if self._is_over():
            self._finish()

    def _is_over(self) -> bool:
        """Tell whether a run has ended, or the cell without one, and nothing was done about it yet."""
        if self._dead:
            return False
        run = self._run
        return self._lost or (
            run is not None and (run.claim is not None or run.status is not None or run.cause is not None)
        )

    def _handlers(self) -> dict[int, tuple[int, Callable[[int], None]]]:
        lines, channel = self._lines, self._channel.fileno()
        handlers: dict[int, tuple[int, Callable[[int], None]]] = {self._wake: (select.POLLIN, self._on_wake)}
        handlers[channel] = (select.POLLIN | (select.POLLOUT if self._outbox else 0), self._on_channel)
        if self._dead:
            return handlers
        if lines.link.fileno() in self._open:
            handlers[lines.link.fileno()] = (select.POLLIN, self._on_link)
        handlers |= self._inlet.handlers()
        if self._refusals is not None and time.monotonic() >= self._refusals.paused_until:
            handlers[self._refusals.listener] = (select.POLLIN, self._on_refusal)
        flooded = self._run is not None and time.monotonic() < self._run.quiet_until
        if len(self._outbox) < _QUEUE_BYTES_MAX and not flooded:
            heard: dict[int, Callable[[int], None]] = dict.fromkeys(self._kinds, self._on_output)
            if not self._is_deaf():
                heard[lines.result] = self._on_word
            handlers |= {descriptor: (select.POLLIN, take) for descriptor, take in heard.items() if descriptor in self._open}
        return handlers

    def _is_deaf(self) -> bool:
        """Tell whether the guest is not listened to, because it does not take the answers that it asked for."""
        return self._inlet.backlog_bytes > BACKLOG_BYTES_MAX

    def _patience_ms(self) -> float:
        if self._run is None or self._dead:
            return _FOREVER_MS
        now = time.monotonic()
        pauses = [self._run.quiet_until, 0.0 if self._refusals is None else self._refusals.paused_until]
        moments = [self._run.next_moment(), self._next_look, *(until for until in pauses if until > now)]
        return max(0.0, min(moments) - now) * 1000 + 0.5

    # --- what arrives ---

    def _on_wake(self, _: int) -> None:
        # The kernel sends the same signal when the launcher died; then somebody else is our parent.
        if os.getppid() != self._launcher:
            self._kill(End(Reason.SANDBOX_FAILED, code="launcher_lost", message="The sandbox's launcher died."))
        else:
            self._kill(End(Reason.CANCELLED, message="The worker's launcher is shutting down."))
        os.read(self._wake, 512)
        if self._run is None:
            self._runner_gone = True

    def _on_channel(self, _: int) -> None:
        try:
            chunk = self._channel.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._runner_gone = True
            return
        for frame in self._orders.feed(chunk):
            self._obey(frame)

    def _obey(self, frame: Frame) -> None:
        if frame.kind == "r":
            self._begin(frame.payload)
        elif frame.kind == "f":
            request = loads_strict(frame.payload)
            answer, descriptor = self._clerk.serve(request)
            answer |= {"number": request["number"], "door": descriptor is not None}
            self._outbox.put("Y", dumps(answer).encode(), descriptor)
        elif frame.kind == "s":
            reason = Reason(loads_strict(frame.payload)["reason"])
            self._kill(End(reason, message=f"The job was ended from outside: {reason.value}."))
        elif frame.kind == "k":
            if self._run is not None and not self._dead:
                self._run.signals.append(int(loads_strict(frame.payload)["number"]))
                self._pass_signals(self._run)
        elif frame.kind == "a":
            if self._run is not None and not self._dead:
                self._run.answered(frame.payload)
                self._pass_calls(self._run)
        else:
            self._inlet.feed(frame.payload)

    def _pass_signals(self, run: Run) -> None:
        """Pass on what was sent to the code, once it has begun: before that the guest hears none."""
        while run.reached and run.signals:
            with contextlib.suppress(ProcessLookupError):
                kernel.send_signal(self._standing.guest, run.signals.pop(0))

    def _begin(self, payload: bytes) -> None:
        if self._run is not None:
            return
        if self._dead or self._lost or _readable(self._lines.link.fileno()):
            self._tell_never_began()
            return
        head_bytes, code_bytes = RUN_HEAD.unpack_from(payload)
        head = loads_strict(payload[RUN_HEAD.size : RUN_HEAD.size + head_bytes])
        code_at = RUN_HEAD.size + head_bytes
        limits = self._lowered(head["limits"])
        order: JsonObject = {
            "code": payload[code_at : code_at + code_bytes].decode("utf-8"),
            "args": payload[code_at + code_bytes :],
            "context": head["context"],
            "program": head["program"],
            "limits": asdict(limits) if head["limits"] else None,
            "lasting": head["lasting"],
            "result_bytes": limits.result_bytes,
        }
        self._lasting = head["lasting"]
        self._settle_leftovers()
        self._counters.begin(limits)
        handles = head.get("handles")
        if handles:
            order["handles"] = handles
        self._run = Run(limits, self._standing.token, Calls(handles) if handles else None)
        self._runs += 1
        self._next_look = self._run.began + _TICK_WATCHED_SEC
        self._coming = encode("r", order_bytes(order)), head["stdin"]
        self._outbox.put("A", b"")
        self._send()

    def _tell_never_began(self) -> None:
        """Say that no line of the job ran, so that whoever asked may ask another sandbox."""
        fault = {"code": NEVER_BEGAN, "message": _NEVER_BEGAN, "fix": None, "detail": None}
        self._outbox.put("F", dumps(fault).encode())

    def _lowered(self, wanted: JsonObject | None) -> Limits:
        limits = Limits(**wanted) if wanted else self._limits
        group = self._standing.group
        if group is not None and limits.memory_bytes != self._memory_bytes:
            # A group whose job already uses more keeps its limit; the run then ends at the higher one.
            with contextlib.suppress(OSError):
                group.limit_memory(limits.memory_bytes)
                self._memory_bytes = limits.memory_bytes
        return limits

    def _settle_leftovers(self) -> None:
        """Drop what was written while nothing ran: it is nobody's output."""
        for descriptor in self._kinds:
            while descriptor in self._open and self._read(descriptor):
                pass

    def _on_link(self, descriptor: int) -> None:
        raw = self._lines.link.recv(LINK_BYTES_MAX)
        self._open.discard(descriptor)
        message = loads_strict(raw) if raw else {}
        run = self._run
        if run is None or "guest" not in message:
            # The init died without a word, killed for memory or by the host's operator; or nothing was running.
            self._lost = True
            return
        run.ended = time.monotonic()
        run.status = int(message["guest"])
        if message["left"]:
            run.note(f"{message['left']} process(es) were still running when the script ended and were ended with it")

    def _on_output(self, descriptor: int) -> None:
        chunk = self._read(descriptor)
        run = self._run
        if not chunk or run is None:
            return
        kind = self._kinds[descriptor]
        offset, at_sec, kept = run.take_output(kind, chunk)
        if kept:
            self._outbox.put(kind, OUTPUT_HEAD.pack(offset, at_sec) + kept)
        if run.seen_bytes > run.limits.output_flood_bytes:
            self._kill(verdict.output_end(run.limits))

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
        if self._run is None:
            self._lost = True
            return
        try:
            self._run.take_words(chunk)
        except ProtocolError as fault:
            self._run.violation = fault.message
            self._open.discard(descriptor)
            self._kill(verdict.violation_end(fault.message))
        for display in self._run.displays:
            self._outbox.put("D", display)
        self._run.displays.clear()
        self._pass_signals(self._run)
        self._pass_calls(self._run)

    def _pass_calls(self, run: Run) -> None:
        """Pass on what the guest asks for, and what it is answered."""
        for call in run.take_calls(self._inlet.answer):
            self._outbox.put("Q", call)

    def _on_refusal(self, descriptor: int) -> None:
        refused = self._refusals.answer() if self._refusals is not None else []
        for layer, action in refused:
            if self._run is not None:
                self._run.deny(layer, action, told_by="kernel")

    # --- clocks and counters ---

    def _check_clocks(self) -> None:
        run, now = self._run, time.monotonic()
        if run is None or self._dead or self._is_over():
            return
        clock = run.late_clock(now)
        if clock is Clock.IDLE:
            # Only a look tells whether it worked, and we may have had no turn for one since it began to.
            self._check_counters(run)
            clock = run.late_clock(now)
        if clock is not None:
            self._kill(verdict.timeout_end(run.limits, clock))
        elif run.half_since is not None and now >= run.half_since + HALF_FRAME_SEC and not self._is_deaf():
            self._kill(verdict.violation_end("it began a message and did not finish it."))
        elif now >= self._next_look:
            self._check_counters(run)

    def _check_counters(self, run: Run) -> None:
        # Its own CPU time: a bomb that keeps us from running must not also make us look more rarely.
        looking, began = time.process_time(), time.monotonic()
        over = self._counters.look(run.limits, until=run.began + run.limits.wall_sec)
        tick = _TICK_WATCHED_SEC if self._standing.group is None else _TICK_COUNTED_SEC
        # A look is dear: never spend more than a tenth of the time on it, nor, where others take the time, what is for the end.
        now, ending = time.monotonic(), run.began + run.limits.wall_sec
        self._look_sec = max(now - began, self._look_sec / 2)
        after = now + max(tick, 10 * (time.process_time() - looking), now - began)
        last = ending - max(2 * self._look_sec, min(_END_SEC, run.limits.wall_sec / 4))
        self._next_look = after if after < last else ending
        run.worked(self._counters.cpu_sec)
        if over is not None:
            self._kill(over)
        elif self._counters.cpu_sec > run.limits.cpu_sec:
            self._kill(verdict.timeout_end(run.limits, Clock.CPU))

    # --- the end ---

    def _kill(self, cause: End) -> None:
        """End the run now. The first cause stands; a guest that has already ended is not blamed."""
        run = self._run
        if run is None:
            self._lost = True
        elif run.cause is None and run.status is None and run.claim is None:
            run.cause = cause
            run.ended = time.monotonic()

    def _send(self) -> None:
        run, now = self._run, time.monotonic()
        if run is not None and run.progress is not None and now >= run.progress_at + PROGRESS_GAP_SEC:
            self._outbox.put("G", run.progress)
            run.progress, run.progress_at = None, now
        if self._inlet.passed_bytes != self._stdin_told:
            self._stdin_told = self._inlet.passed_bytes
            self._outbox.put("I", STDIN_HEAD.pack(self._stdin_told))
        try:
            self._outbox.flush()
        except OSError:
            self._runner_gone = True
        if self._coming is not None and not self._outbox and not self._runner_gone:
            # From here on the job may begin at any moment, and whoever asked was told.
            (order, stdin), self._coming = self._coming, None
            self._inlet.send(order, stdin=stdin)
            self._stdin_told = 0

    def _finish(self) -> None:
        """End the run, and unless the session lasts the cell with it. Everything here is bounded."""
        run, told = self._run, False
        if run is not None and run.claim is not None and run.cause is None and not self._lost:
            # What the guest wrote before its last word lies in the pipes. The rest of the tree is not asked.
            self._drain()
            refused = self._counters.refused()
            if self._lasting and refused[0]:
                run.cause = verdict.memory_end(run.limits)  # Seen now or before its last word, it is the same end.
            elif run.violation is None:
                self._note_left(run)
                self._report(run, refused, alive=self._lasting)
                told = True
                self._send()
        if told and self._lasting:
            self._run = None
            self._inlet.end()
            return
        self._take_down()
        if run is not None and not told:
            self._drain()
            refused = self._counters.last_refused()
            # In a session that ran before, earlier runs may be what broke it: that is an end, and no accident.
            began = run.reached or self._runs > 1
            if began or run.cause is not None or run.violation is not None or any(refused):
                self._report(run, refused, alive=False)
            else:
                self._tell_never_began()
        self._outbox.put("C", dumps({"clean": self.clean}).encode())

    def _take_down(self) -> None:
        self._dead = True
        assembly.kill(self._standing)
        self.clean = assembly.wait_gone(self._standing)
        self._inlet.end()

    def _note_left(self, run: Run) -> None:
        """Say when processes go on after the script: they end with it, and its author may not expect that."""
        if self._lasting:
            return
        left = self._tree.left()
        if left > 0:
            run.note(f"{left} process(es) were still running when the script ended and were ended with it")

    def _drain(self) -> None:
        """Read what lies in the pipes now, never more than they hold."""
        for descriptor in (*self._kinds, self._lines.result):
            handle = self._on_word if descriptor == self._lines.result else self._on_output
            for _ in range(64):
                if descriptor not in self._open or not _readable(descriptor):
                    break
                handle(descriptor)

    def _report(self, run: Run, refused: tuple[int, int], *, alive: bool) -> None:
        if not self.clean:
            run.note("something of the job could not be ended within its time")
        for kind, payload in self._told(run, refused, alive=alive):
            self._outbox.put(kind, payload)

    def _told(self, run: Run, refused: tuple[int, int], *, alive: bool) -> list[tuple[str, bytes]]:
        full = self._clerk.full() if run.claim is not None and run.claim.hint == "disk" else (False, False)
        facts = run.facts(
            memory_kills=refused[0],
            process_refusals=refused[1],
            counted=self._standing.group is not None,
            disk_full=full[0],
            inodes_full=full[1],
        )
        return run.last_words(facts, {**self._counters.usage(), "alive": alive})

    def rehearse(self) -> None:
        """Go once through everything that an ordinary run does, so that its memory is touched before a job waits for it."""
        for descriptor in (self._lines.result, *self._kinds):
            os.set_blocking(descriptor, False)
        run = Run(self._limits, self._standing.token)
        self._settle_leftovers()
        self._counters.begin(self._limits)
        order_bytes({"code": "1", "args": b"null", "limits": None})
        for kind, payload in (("b", b""), ("d", b"{}"), ("v", b"1"), ("e", _PLAIN_END)):
            run.take_words(self._standing.token + encode(kind, payload))
            run.take_output("O", b"x")
        run.late_clock(run.began)
        run.next_moment()
        self._note_left(run)
        self._told(run, self._counters.refused(), alive=False)
        self._handlers()


def _readable(descriptor: int) -> bool:
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(0))
