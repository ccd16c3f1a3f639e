"""Hostile sessions: what one run does must not poison, forge or prolong the next one of its session."""

from dataclasses import dataclass, field
from typing import Any

from tests.attacks.case import ANY, CHANNEL, RAW


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a session.

    reasons     the end reasons that are right
    interrupt   sent as SIGINT once the run has printed something
    must_live   whether the session must be alive after it, None where either is honest
    may_fail    an earlier run broke what this one stands on: it may fail, but not with a wrong result
    """

    code: str
    result: Any = ANY
    stdout: str | None = None
    context: str = "main"
    reasons: tuple[str, ...] = ("exited",)
    interrupt: bool = False
    must_live: bool | None = True
    may_fail: bool = False
    wall_sec: float = 10.0


@dataclass(frozen=True, slots=True)
class HostileSession:
    """Runs of one session, one after another; what follows the end of a session is not run."""

    name: str
    runs: tuple[Run, ...]
    limits: dict[str, float] = field(default_factory=dict)
    programs: bool = False


_STUCK = "print('stuck', flush=True)\n"
_INTERRUPTED = ("raised", "signalled", "cancelled", "exited")


def _then(
    name: str, code: str, *, reasons: tuple[str, ...], live: bool | None = True, breaks: bool = False
) -> HostileSession:
    """A hostile run, and then an honest one that must be right if the session still lives."""
    honest = Run(
        "import math\nprint('honest')\nmath.factorial(5)",
        result=120,
        stdout="honest\n",
        must_live=None,
        may_fail=breaks,
        # What a run lied about itself may come to light only in the next one.
        reasons=("exited", "raised", "protocol_violation") if breaks else ("exited",),
    )
    return HostileSession(name, (Run(code, reasons=reasons, must_live=live), honest))


SESSIONS = (
    HostileSession(
        "L01 names persist within a context and are not seen from another",
        (
            Run("kept = 41"),
            Run("kept + 1", result=42),
            Run("'kept' in globals()", context="other", result=False),
            Run("kept = 'mine'", context="other"),
            Run("kept", result=41),
        ),
    ),
    HostileSession(
        "L01 X55 a context is no wall, but it is never mixed up by us",
        (Run("import sys; sys.shared = 1"), Run("1", context="a", result=1), Run("__name__", context="b", result="__main__")),
    ),
    *(
        HostileSession(
            f"L03 a stuck call is interrupted, and the next one is right or the session says that it is over: {name}",
            (
                Run("state = 7"),
                Run(_STUCK + code, interrupt=True, reasons=(*_INTERRUPTED, "timeout"), must_live=None, wall_sec=2),
                Run("state", result=7, must_live=None),
            ),
        )
        for name, code in (
            ("a loop", "while True:\n    pass"),
            ("a sleep", "import time\ntime.sleep(60)"),
            ("a C call", "import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')"),
            ("one that swallows it", "while True:\n    try:\n        while True: pass\n    except BaseException:\n        pass"),
            ("one that ignores the signal", "import signal\nsignal.signal(2, signal.SIG_IGN)\nwhile True: pass"),
            ("a lock", "import threading\nl = threading.Lock()\nl.acquire()\nl.acquire()"),
            ("a read", "import sys\nsys.stdin.read()"),
        )
    ),
    HostileSession(
        "L04 a thread that prints after its run does not forge the next run's result",
        (
            Run("import threading, time\ndef late():\n    while True:\n        print('late', flush=True)\n        time.sleep(0.01)\n"
                "threading.Thread(target=late, daemon=True).start()\nresult = 'first'", result="first"),
            Run("import time\ntime.sleep(0.1)\n'second'", result="second"),
        ),
    ),
    HostileSession(
        "L07 the session's disk is one disk for all its runs",
        (
            Run("open('/scratch/a', 'wb').write(bytes(5 << 20)); 1", result=1),
            Run("open('/scratch/b', 'wb').write(bytes(5 << 20)); 1", reasons=("disk",), must_live=None),
        ),
        limits={"disk_bytes": 8 << 20},
    ),
    HostileSession(
        "L07 the session's memory is one memory for all its runs",
        (
            Run("a = bytearray(60 << 20); 1", result=1, must_live=None),
            Run("b = bytearray(60 << 20)\nfor place in range(0, len(b), 4096):\n    b[place] = 1", reasons=("memory",), must_live=None),
        ),
        limits={"memory_bytes": 96 << 20},
    ),
    HostileSession(
        "L07 processes left by one run still count in the next",
        (Run("import os\nfor _ in range(6):\n    if os.fork() == 0:\n        import time\n        time.sleep(60)\n1", must_live=None),
         Run("while True:\n    os.fork()", reasons=("processes",), must_live=None)),
        limits={"processes": 16},
        programs=True,
    ),
    *(
        _then(
            f"L09 the next run is framed correctly after {name}",
            code,
            reasons=reasons,
            live=None,
            breaks=name.startswith(("builtins", "streams", "descriptors", "its own limits")),
        )
        for name, code, reasons in (
            ("builtins are gone", "import builtins\nfor n in list(vars(builtins)):\n    if n[0] != '_': delattr(builtins, n)", ("exited", "raised")),
            ("modules are gone", "import sys\nsys.modules.clear()", ("exited", "raised")),
            ("streams are replaced", "import sys\nsys.stdout = sys.stderr = None", ("exited", "raised")),
            ("tracing is on", "import sys, threading\nt = lambda *a: t\nsys.settrace(t); threading.settrace(t)", ("exited", "raised")),
            ("an audit hook counts", "import sys\nsys.addaudithook(lambda *a: None)", ("exited", "raised")),
            ("signals are handled by the job", "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, lambda *a: None)\n    except (OSError, ValueError): pass", ("exited", "raised")),
            ("a collection callback raises", "import gc\ngc.callbacks.append(lambda *a: 1 / 0)", ("exited", "raised")),
            ("os is rewritten", "import os\nos.write = os.read = os._exit = os.getpid = lambda *a: 0", ("exited", "raised", "protocol_violation")),
            ("the working folder is gone", "import os\nos.mkdir('/scratch/w'); os.chdir('/scratch/w'); os.rmdir('/scratch/w')", ("exited",)),
            ("descriptors are closed", "import os\nos.closerange(0, 3)", ("exited", "raised")),
            ("every descriptor is closed", "import os\nos.closerange(0, 1000)", ("exited", "raised", "protocol_violation")),
            ("the recursion limit is tiny", "import sys\nsys.setrecursionlimit(50)", ("exited", "raised", "signalled")),
            ("its own limits are tiny", "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))", ("exited", "raised")),
        )
    ),
    _then("L09 X56 an end told twice", CHANNEL + 'channel.send("e", json.dumps(end).encode())', reasons=("exited", "protocol_violation"), live=None, breaks=True),
    _then("L09 X57 a forged end for the run to come", CHANNEL + "import threading\n"
          "threading.Timer(0.05, lambda: channel.send('e', json.dumps(end).encode())).start()\n1",
          reasons=("exited", "protocol_violation"), live=None, breaks=True),
    HostileSession(
        "L09 X58 a thread of the first run answers in the second run's name",
        (
            Run(CHANNEL + "import threading\ndef forge():\n    while True:\n        time.sleep(0.01)\n"
                "        channel.send('e', json.dumps({**end, 'result': 'forged'}).encode())\n"
                "threading.Thread(target=forge, daemon=True).start()\n'first'", reasons=("exited", "protocol_violation"), must_live=None),
            # A session may lie about itself. It must not stay with two ends of one run in its pipe.
            Run("import time\ntime.sleep(1)\n'second'", reasons=("protocol_violation", "exited"), must_live=None, may_fail=True),
            Run("1 + 1", result=2, reasons=("protocol_violation", "exited"), must_live=None, may_fail=True),
        ),
    ),
    HostileSession(
        "L10 what one run puts in the environment is the session's, and gone with it",
        (Run("import os\nos.environ['LEAK'] = 'x'; 1", result=1), Run("os.environ.get('LEAK')", result="x")),
    ),
    HostileSession(
        "X59 a run that ends its process ends its session honestly",
        (Run("import os\nos._exit(3)", must_live=False),),
    ),
    HostileSession(
        "X60 a run that crashes ends its session honestly",
        (Run("import ctypes\nctypes.string_at(0)", reasons=("signalled",), must_live=False),),
    ),
    HostileSession(
        "X61 a deadline in one run is not a deadline in the next",
        (Run("while True: pass", reasons=("timeout",), wall_sec=1, must_live=None), Run("1", result=1, must_live=None)),
    ),
    HostileSession(
        "X62 the walls stand in the hundredth run as in the first",
        (
            *(Run("1", result=1) for _ in range(20)),
            Run(RAW + "status = open('/proc/self/status').read()\n"
                "[libc.socket(2, 1, 0), 'NoNewPrivs:\\t1' in status, 'Seccomp:\\t2' in status]", result=[-1, True, True]),
        ),
    ),
)
