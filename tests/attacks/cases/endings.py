"""The last moments of a job: exits, hooks, threads and destructors that fight for one more word."""

from tests.attacks.case import Case

_ONE = {"wall_sec": 1}

ENDINGS = (
    Case(
        "E09 a deadline keeps what was written before it, in streams and in /out",
        """
import sys
print("said before", flush=True)
print("complained before", file=sys.stderr, flush=True)
with open("/out/partial.txt", "w") as target:
    target.write("left before")
while True:
    pass
""",
        reasons=("timeout",),
        limits={"wall_sec": 5},
        stdout="said before",
        artifacts=("partial.txt",),
    ),
    Case(
        "E10 a tree of children, each renamed, gone with its deadline",
        """
import ctypes, os, time
for generation in range(6):
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(15, b"crank-survivor", 0, 0, 0)
while True:
    time.sleep(1)
""",
        programs=True,
        reasons=("timeout",),
        limits=_ONE,
    ),
    Case(
        "E06 a child of vfork that never lets its parent go on",
        """
import ctypes, subprocess, threading, time
libc = ctypes.CDLL(None)
threading.Thread(target=libc.pause, daemon=True).start()
import os
for _ in range(3):
    if os.fork() == 0:
        libc.prctl(1, 0, 0, 0, 0)
        libc.pause()
try:
    os.posix_spawn("/usr/bin/python", ["python", "-c", "import time; time.sleep(60)"], {})
except OSError:
    pass
libc.pause()
""",
        programs=True,
        reasons=("timeout",),
        limits=_ONE,
    ),
    Case(
        "E15 X31 exit functions that register more exit functions",
        "import atexit\ndef again():\n    atexit.register(again)\natexit.register(again)\n",
        reasons=("timeout", "exited", "raised", "memory"),
        limits=_ONE,
    ),
    Case(
        "E15 X32 objects that rise again as they are destroyed",
        """
import gc, sys
class Phoenix:
    def __del__(self):
        kept.append(Phoenix())
kept = []
Phoenix()
sys.modules["__main__"].__dict__["cycle"] = [Phoenix()]
gc.callbacks.append(lambda *_: kept.append(Phoenix()))
result = 1
""",
        reasons=("exited", "timeout", "memory"),
        limits=_ONE,
    ),
    Case(
        "E15 sys.exit in a thread ends the thread alone",
        "import sys, threading\nt = threading.Thread(target=sys.exit, args=(9,))\nt.start()\nt.join()\nresult = 5\n",
        result=5,
    ),
    Case(
        "E15 os._exit in a forked child is the child's",
        """
import os
if os.fork() == 0:
    os._exit(9)
os.wait()
result = 6
""",
        programs=True,
        result=6,
    ),
    Case(
        "E15 X33 a forked child that runs to the end of the script tells nothing in its parent's name",
        """
import os
pid = os.fork()
if pid:
    os.waitpid(pid, 0)
result = "parent" if pid else "child"
""",
        programs=True,
        result="parent",
    ),
    Case(
        "X34 threads that go on printing while the job ends",
        """
import os, threading
def chatter():
    while True:
        os.write(1, b"late ")
for _ in range(8):
    threading.Thread(target=chatter, daemon=True).start()
result = "ended"
""",
        reasons=("exited", "output"),
    ),
    Case(
        "X35 threads that are no daemons and never end",
        "import threading\nthreading.Thread(target=threading.Event().wait).start()\nresult = 1\n",
        reasons=("timeout",),
        limits=_ONE,
    ),
    Case(
        "X36 an excepthook that fails without end",
        """
import sys, traceback
sys.setrecursionlimit(200)
def hook(*_):
    raise ValueError("again") from hook()
sys.excepthook = sys.unraisablehook = hook
traceback.format_exception = hook
class Evil(Exception):
    def __str__(self):
        raise Evil
    __repr__ = __str__
raise Evil
""",
        reasons=("raised", "signalled"),
        limits={"wall_sec": 5},
    ),
    Case(
        "X37 an exception whose text, class and cause are endless",
        """
class Endless(Exception):
    @property
    def __cause__(self):
        return Endless()
    __context__ = __cause__
    def __str__(self):
        return "x" * (100 << 20)
raise Endless
""",
        reasons=("raised", "memory"),
        limits={"wall_sec": 10},
    ),
    Case(
        "X38 an exception that changes its class as it is looked at",
        """
class Shifty(BaseException):
    def __getattribute__(self, name):
        raise KeyboardInterrupt
raise Shifty
""",
        reasons=("raised", "exited", "signalled"),
        limits={"wall_sec": 5},
    ),
    Case(
        "X39 the interpreter's own doors replaced before the end",
        """
import builtins, os, sys, _thread, json, struct, traceback
for module in (builtins, os, json, struct, traceback, _thread):
    for name in list(vars(module)):
        if not name.startswith("__") and callable(getattr(module, name)):
            try:
                setattr(module, name, lambda *_, **__: "forged")
            except (AttributeError, TypeError):
                pass
sys.stdout = sys.stderr = sys.stdin = None
sys.modules.clear()
result = 1
""",
        reasons=("exited", "raised", "signalled", "protocol_violation"),
        limits={"wall_sec": 5},
    ),
    Case(
        "X40 os.write and os._exit replaced, to answer in the guest's place",
        """
import os
written, real = [], os.write
def spy(fd, data):
    written.append(bytes(data))
    return len(data)
os.write, os._exit = spy, lambda code: None
result = "honest"
""",
        reasons=("exited", "protocol_violation"),
        limits={"wall_sec": 5},
    ),
    Case(
        "X41 every alarm that can be set, while the job goes on",
        """
import signal, time
signal.setitimer(signal.ITIMER_PROF, 0.05)
signal.alarm(1)
while True:
    pass
""",
        reasons=("signalled",),
        limits={"wall_sec": 5},
    ),
    *(
        Case(
            f"X42 the job ends itself by signal {number}",
            f"import os, signal\nsignal.signal({number}, signal.SIG_DFL)\nos.kill(os.getpid(), {number})\nimport time\ntime.sleep(20)\n",
            reasons=("signalled",) if number not in (24, 31) else ("timeout", "policy"),
            limits={"wall_sec": 2 if number in (24, 31) else 10},
        )
        for number in (1, 2, 3, 4, 6, 7, 8, 11, 13, 15, 24, 31, 34, 64)
    ),
    Case(
        "X43 killed by a signal in the middle of telling its end",
        """
import os, signal, threading, time
def strike():
    time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=strike, daemon=True).start()
result = ["x" * 1000] * 900
while True:
    repr(result)
""",
        reasons=("signalled",),
        limits={"wall_sec": 5},
    ),
    Case(
        "X44 a crash with much memory mapped leaves no core",
        """
import ctypes, mmap, resource
try:
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
except (OSError, ValueError):
    pass
area = mmap.mmap(-1, 8 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
ctypes.string_at(8)
""",
        reasons=("signalled", "memory", "raised"),
        limits={"wall_sec": 5},
    ),
    *(
        Case(
            f"F12 the exit code {shown} is shown as it is",
            f"import {module}\n{call}\n",
            reasons=("exited", "raised"),
            codes=(code,),
        )
        for shown, module, call, code in (
            ("256", "sys", "sys.exit(256)", 0),
            ("-1", "sys", "sys.exit(-1)", 255),
            ("137", "os", "os._exit(137)", 137),
            ("a text", "sys", "sys.exit('boo')", 1),
            ("97", "os", "os._exit(98)", 98),
        )
    ),
    Case(
        "F12 success told after an error is success in words only",
        "import os\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    os._exit(0)\n",
        codes=(0,),
        result=None,
    ),
)
