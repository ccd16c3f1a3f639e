"""What a hostile job is, as data: what it tries, and what must become of it.

Each is plain Python, as an agent could submit it, so that one list runs against the sandbox alone and
through the public API. A name begins with its ids; the letter groups them: A kernel entry points, B identity,
C files, D exhaustion, E lifetime, F output and result, G files out, H leaks between jobs, I network,
J secrets and descriptors, L sessions, O the language itself, X what no other list had.

A case only says how the run must end. That it ends in time, that the host's canary is untouched and unread,
that nothing is left, that the host is well, and that neighbour and next job are right, is judged for every one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

ANY = object()
_NO_LIMITS: Mapping[str, float] = MappingProxyType({})
_ID = re.compile(r"[A-Z]\d\d(?= )")

# Limits that any job may ask for through the API; what needs another one runs in the tight test profile.
ASKABLE = frozenset({"wall_sec", "memory_bytes"})


@dataclass(frozen=True, slots=True)
class Case:
    """One hostile job. The global `args` holds `host`: where the canary of the host would be found.

    programs  needs a profile whose jobs may start processes; without it, a profile that forbids them
    limits    fields of `Limits` that differ from the ordinary
    reasons   the end reasons that are right, as their stable words
    codes     the exit codes that are right, empty when any is
    result    what the job's result must be, ANY when the end is all that counts
    stdout    text that must be in the kept output
    artifacts what must have been collected of /out, None when that is not the point
    api_only  needs a built profile (pandoc), which a bare root does not have
    """

    name: str
    code: str
    programs: bool = False
    limits: Mapping[str, float] = field(default_factory=lambda: _NO_LIMITS)
    reasons: tuple[str, ...] = ("exited",)
    codes: tuple[int, ...] = ()
    result: Any = ANY
    stdout: str = ""
    artifacts: tuple[str, ...] | None = None
    api_only: bool = False

    @property
    def ids(self) -> frozenset[str]:
        """Return the ids that it covers."""
        return ids_of(self.name)

    @property
    def askable(self) -> bool:
        """Tell whether the API lets any caller ask for its limits."""
        return set(self.limits) <= ASKABLE


@dataclass(frozen=True, slots=True)
class Pair:
    """Two jobs on one worker: what the first does must not reach the second.

    together  the first runs on, having printed `ready`, while the second runs; else it ends before
    differ    both run to their end, and their results must have nothing in common
    """

    name: str
    first: Case
    second: Case
    together: bool = False
    differ: bool = False

    @property
    def ids(self) -> frozenset[str]:
        """Return the ids that it covers."""
        return ids_of(self.name)


def ids_of(name: str) -> frozenset[str]:
    """Return the ids that a name begins with."""
    return frozenset(_ID.findall(re.match(r"(?:[A-Z]\d\d )*", name)[0]))  # type: ignore[index]


# --- what many of them begin with -------------------------------------------------------------

RAW = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def raw(number, *args):
    ctypes.set_errno(0)
    value = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args])
    return "allowed" if value >= 0 else errno.errorcode[ctypes.get_errno()]
"""

X86 = """
import platform
x86 = platform.machine() == "x86_64"
"""

# The strongest attempt at the result channel: the guest's own object, found in the frames below or in memory.
CHANNEL = """
import gc, json, os, sys, time
def _found():
    frame = sys._getframe()
    while frame is not None:
        for value in list(frame.f_locals.values()):
            yield value
            yield from getattr(value, "__dict__", {}).values()
        frame = frame.f_back
    yield from gc.get_objects()
channel = next(thing for thing in _found() if type(thing).__name__ == "_Channel")
end = {"how": "done", "code": 0, "error": None, "hint": None, "note": None, "has_result": True, "result": 1, "told": []}
"""

# Every text the job can read of itself, to look for what it should not hold.
MEMORY = """
import ctypes, re
def memory(writable_only=False):
    with open("/proc/self/maps") as table:
        lines = table.read().splitlines()
    with open("/proc/self/mem", "rb", 0) as mem:
        for line in lines:
            span, rights, *rest = line.split(None, 5)
            low, high = (int(part, 16) for part in span.split("-"))
            if rights[0] != "r" or line.endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")) or high - low > 1 << 28:
                continue
            if writable_only and rights[1] != "w":
                continue
            for start in range(low, high, 1 << 22):
                try:
                    mem.seek(start)
                    yield mem.read(min(1 << 22, high - start))
                except OSError:
                    break
"""
