"""A job's processes by descent: all are found and ended, a number that is used again is not."""

import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from crank.sandbox import kernel, tree


def _in_child(work: Callable[[], bool]) -> bool:
    """Do something in a process of its own that is a subreaper; return what it says."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
            code = 0 if work() else 1
        finally:
            # Whatever failed, nothing of a test lives on.
            tree.end_children(limit_sec=5.0)
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


def _family(depth: int, ready: int) -> None:
    """Be a process with a child with a child, each in a session of its own, deaf to what is polite."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if depth and os.fork() == 0:
        _family(depth - 1, ready)
    os.write(ready, b"x")
    if depth % 2:
        os._exit(0)
    while True:
        signal.pause()


def _start_family(depth: int) -> None:
    reading, ready = os.pipe()
    if os.fork() == 0:
        _family(depth, ready)
    seen = 0
    while seen <= depth:
        seen += len(os.read(reading, 64))
    # Those that leave do so after their word; until then their children move.
    deadline = time.monotonic() + 20
    while _zombies() < (depth + 1) // 2 and time.monotonic() < deadline:
        time.sleep(0.005)


def _zombies() -> int:
    """Return how many of those beneath this process are dead; nobody reaps them."""
    return sum(") Z " in Path(f"/proc/{pid}/stat").read_text() for pid in tree.descendants(os.getpid()))


def test_every_descendant_is_found_and_ended() -> None:
    """Orphans of orphans in sessions of their own are descendants of the subreaper, and it ends when none is left."""

    def work() -> bool:
        _start_family(6)
        found = tree.descendants(os.getpid())
        gone = tree.end_children(limit_sec=5.0)
        alive = [pid for pid in found if os.path.exists(f"/proc/{pid}")]
        return len(found) >= 4 and gone and not alive and not tree.children(os.getpid())

    assert _in_child(work)


def test_what_is_spared_lives_on() -> None:
    """A spared child is left alone with all that descends from it."""

    def work() -> bool:
        _start_family(0)
        spared = tree.children(os.getpid())
        family = set(spared) | {pid for each in spared for pid in tree.descendants(each)}
        if os.fork() == 0:
            while True:
                signal.pause()
        gone = tree.end_children(limit_sec=5.0, spare=spared)
        alive = {pid for pid in family if os.path.exists(f"/proc/{pid}")}
        return gone and alive == family and tree.end_children(limit_sec=5.0)

    assert _in_child(work)


def test_the_table_says_what_the_lists_say() -> None:
    """Where the kernel lists no children they are found by asking every process for its parent."""

    def work() -> bool:
        _start_family(4)
        own = os.getpid()
        table, frontier, found = tree._table(), [own], set()
        while frontier:
            below = table.get(frontier.pop(), [])
            found |= set(below)
            frontier += below
        return found == set(tree.descendants(own)) and tree.end_children(limit_sec=5.0)

    assert _in_child(work)


def test_files_without_a_name_are_counted() -> None:
    """An open file that was unlinked is found by who holds it, once."""
    with tempfile.TemporaryFile() as held:
        held.write(b"x" * 300_000)
        held.flush()
        again = os.dup(held.fileno())
        try:
            device = os.fstat(held.fileno()).st_dev
            assert 300_000 <= tree.held([os.getpid()], device)[0] < 600_000
        finally:
            os.close(again)
