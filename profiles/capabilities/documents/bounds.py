"""A process of its own for each file, with an end: whatever a file does to its reader, the others go on.

The process, and every program that it starts, is one group with limits of its own on memory, on CPU time and on the
size of what it writes, and a clock. It says what it made on a pipe, one JSON value a line, and is believed in nothing else.
"""

import contextlib
import json
import os
import resource
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from documents.faults import CODES, Failed

MIB = 1 << 20
# More than any answer: the text itself goes to files.
ANSWER_BYTES_MAX = 8 * MIB
_LOOK_SEC = 0.5
_CHUNK_BYTES = 1 << 16
# So long a piece of work may say nothing before it is said for it that it still runs.
_STILL_SEC = 5.0

Told = Callable[[float, str], None]
Work = Callable[[Told], Any]


class Bounds(NamedTuple):
    """What one file may use: seconds, bytes of memory, bytes of one file that it leaves.

    patience  by the clock it may take so many times the seconds: a busy machine is no fault of a file
    """

    sec: float
    memory_bytes: int
    file_bytes: int
    patience: float = 1.0

    @property
    def clock_sec(self) -> float:
        """Return how long it may take by the clock."""
        return self.sec * self.patience


class Order(NamedTuple):
    """One piece of work, with what it is called."""

    key: Any
    work: Work


class Ended(NamedTuple):
    """How a piece of work ended: with an answer, or with a fault."""

    key: Any
    answer: Any
    fault: Failed | None
    sec: float


@dataclass(slots=True)
class _Child:
    key: Any
    pid: int
    pipe: int
    began: float
    text: bytearray = field(default_factory=bytearray)
    final: Any = None
    over: bool = False
    slow: bool = False
    at: float = 0.0
    words: str = "at work"
    spoke: float = 0.0


def each(
    orders: Iterable[Order], bounds: Bounds, at_once: int, told: Callable[[Any, float, str], None] | None = None
) -> Iterator[Ended]:
    """Do every piece of work, some at a time, and yield how each ended, in the order in which they end.

    told  what a piece says of its progress: its key, a fraction and a few words
    """
    waiting = iter(orders)
    running: list[_Child] = []
    more = True
    try:
        while more or running:
            while more and len(running) < at_once:
                order = next(waiting, None)
                if order is None:
                    more = False
                else:
                    running.append(_start(order, bounds, running))
            if running:
                yield from _look(running, bounds, told)
    finally:
        for child in running:
            _end(child)


def one(work: Work, bounds: Bounds, told: Callable[[float, str], None] | None = None) -> Any:
    """Do one piece of work in a process of its own and return its answer. Raises Failed."""
    hear = None if told is None else (lambda _key, fraction, words: told(fraction, words))
    for ended in each([Order(None, work)], bounds, 1, hear):
        if ended.fault is not None:
            raise ended.fault
        return ended.answer
    raise AssertionError("every order has an end")


def _start(order: Order, bounds: Bounds, running: list[_Child]) -> _Child:
    inlet, outlet = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for other in running:
                os.close(other.pipe)
            os.close(inlet)
            _be(order.work, bounds, outlet)
        finally:
            os._exit(70)
    os.close(outlet)
    # It does so itself, too; whoever is first.
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)
    now = time.monotonic()
    return _Child(order.key, pid, inlet, now, spoke=now)


def _be(work: Work, bounds: Bounds, outlet: int) -> None:
    """Be the process: set the limits, work, say how it went."""
    os.setpgid(0, 0)
    quiet = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(quiet, number)
    cpu_sec = max(1, round(bounds.sec))
    for kind, amount in (
        (resource.RLIMIT_DATA, bounds.memory_bytes),
        (resource.RLIMIT_FSIZE, bounds.file_bytes),
        (resource.RLIMIT_CPU, cpu_sec),
        (resource.RLIMIT_CORE, 0),
    ):
        most = resource.getrlimit(kind)[1]
        least = amount if most == resource.RLIM_INFINITY else min(amount, most)
        # The processor's limit is told by a signal of its own first, and enforced a second later.
        hard = least + 1 if kind == resource.RLIMIT_CPU and least == amount and least != most else least
        resource.setrlimit(kind, (least, hard))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def told(fraction: float, words: str) -> None:
        _write(outlet, {"at": round(fraction, 4), "words": words[:200]})

    try:
        answer = {"answer": work(told)}
    except Failed as fault:
        answer = {"code": fault.code, "message": fault.message}
    except MemoryError:
        answer = {"code": "too_large", "message": _needs_more(bounds)}
    except RecursionError:
        answer = {"code": "too_large", "message": "it is nested too deeply"}
    except OSError as fault:
        full = fault.errno in (27, 28)  # EFBIG, ENOSPC
        message = "what it becomes is larger than one file may be" if full else f"it cannot be read: {fault.strerror}"
        answer = {"code": "too_large" if full else "unreadable", "message": message}
    except Exception as fault:  # noqa: BLE001 - a reader that stumbles over a file has many ways to say so
        answer = {"code": "unreadable", "message": f"{type(fault).__name__}: {fault}"[:300]}
    _write(outlet, answer)
    os._exit(0)


def _write(outlet: int, value: Any) -> None:
    text = json.dumps(value).encode() + b"\n"
    while text:
        text = text[os.write(outlet, text) :]


def _needs_more(bounds: Bounds) -> str:
    return f"it needs more than the {bounds.memory_bytes // MIB} MiB of memory that one file may have"


def _look(running: list[_Child], bounds: Bounds, told: Callable[[Any, float, str], None] | None) -> Iterator[Ended]:
    now = time.monotonic()
    left = min(child.began + bounds.clock_sec - now for child in running)
    poll = select.poll()
    for child in running:
        poll.register(child.pipe, select.POLLIN)
    ready = {descriptor for descriptor, _ in poll.poll(1000 * max(0.0, min(left, _LOOK_SEC)))}
    for child in list(running):
        if child.pipe in ready:
            _read(child, told)
        if time.monotonic() - child.began >= bounds.clock_sec:
            child.slow = child.over = True
        if child.over:
            running.remove(child)
            yield _ended(child, _end(child), bounds)
        elif told is not None and time.monotonic() - child.spoke >= _STILL_SEC:
            child.spoke = time.monotonic()
            told(child.key, child.at, f"{child.words}, for {child.spoke - child.began:.0f} s")


def _read(child: _Child, told: Callable[[Any, float, str], None] | None) -> None:
    chunk = os.read(child.pipe, _CHUNK_BYTES)
    child.text += chunk
    # It said its last word, or it says more than anybody would.
    child.over = not chunk or len(child.text) > ANSWER_BYTES_MAX
    lines = deque(bytes(child.text).split(b"\n"))
    if len(lines) == 1:
        return
    child.text = bytearray(lines.pop())
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            child.over = True
        elif "at" in value:
            if told is not None and isinstance(value["at"], int | float):
                child.at, child.words = min(1.0, max(0.0, float(value["at"]))), str(value.get("words"))[:200]
                child.spoke = time.monotonic()
                told(child.key, child.at, child.words)
        else:
            child.final, child.over = value, True


def _end(child: _Child) -> int:
    """End a process with everything that it started; return how it ended."""
    os.close(child.pipe)
    for target, way in ((child.pid, os.killpg), (child.pid, os.kill)):
        try:
            way(target, signal.SIGKILL)
        except OSError:
            continue
    return os.waitpid(child.pid, 0)[1]


def _ended(child: _Child, status: int, bounds: Bounds) -> Ended:
    sec = time.monotonic() - child.began
    if child.slow:
        return Ended(child.key, None, Failed("too_slow", f"it took longer than {bounds.clock_sec:g} s"), sec)
    final = child.final
    if isinstance(final, dict) and "answer" in final:
        return Ended(child.key, final["answer"], None, sec)
    if isinstance(final, dict) and final.get("code") in CODES:
        return Ended(child.key, None, Failed(final["code"], str(final.get("message"))), sec)
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number == signal.SIGXCPU:
        return Ended(child.key, None, Failed("too_slow", f"it used more than {bounds.sec:g} s of CPU time"), sec)
    how = signal.Signals(number).name if number else f"exit code {os.waitstatus_to_exitcode(status)}"
    return Ended(child.key, None, Failed("crashed", f"its reader was ended by it ({how})"), sec)
