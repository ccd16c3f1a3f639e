"""Hostile jobs for the tier without namespaces: what only Landlock, the filter and descent keep in, or out.

`args["host"]` names the canary of the host, as in every case. Nothing here may succeed, whoever's account it is.
"""

from tests.attacks.case import RAW, Case

# The processes around a job, found without /proc: the init is its parent, the rest have numbers near by.
_AROUND = """
import os, signal
around = [os.getppid()] + [number for number in range(2, 70_000) if number != os.getpid()]
host = args["host"]
"""

BARE_CASES = (
    Case(
        "T01 no signal reaches the init, the zygote, the supervisor, the launcher or anybody",
        _AROUND
        + """
reached = []
for number in around:
    for sign in (0, signal.SIGSTOP, signal.SIGKILL):
        try:
            os.kill(number, sign)
            reached.append(number)
        except OSError:
            pass
[reached, os.getppid() > 1]
""",
        result=[[], True],
    ),
    Case(
        "T01 also where programs may be started, and by every call that signals",
        _AROUND
        + RAW
        + """
import platform
x86 = platform.machine() == "x86_64"
tkill, tgkill, queue, tgqueue = (200, 234, 129, 297) if x86 else (130, 131, 138, 240)
blob = ctypes.create_string_buffer(128)
got = []
for number in (os.getppid(), host["pid"], host["keeper"]):
    for call in ((tkill, number, 9), (tgkill, number, number, 9), (queue, number, 9, ctypes.addressof(blob)),
                 (tgqueue, number, number, 9, ctypes.addressof(blob)), (424, number, 9, 0, 0)):
        if raw(*call) == "allowed":
            got.append((number, call[0]))
    for sign in (0, 9, 19):
        for target in (number, -number):
            try:
                os.kill(target, sign)
                got.append((target, sign))
            except OSError:
                pass
try:
    door = os.pidfd_open(os.getppid())
    signal.pidfd_send_signal(door, 9)
    got.append("pidfd")
except OSError:
    pass
got
""",
        programs=True,
        result=[],
    ),
    Case(
        "T02 nobody else's priority, processor, limit or group can be changed",
        """
import os, resource
got = []
for number in (os.getppid(), args["host"]["pid"]):
    for name, attempt in {
        "nice": lambda: os.setpriority(os.PRIO_PROCESS, number, 19),
        "group": lambda: os.setpriority(os.PRIO_PGRP, os.getpgid(number), 19),
        "all": lambda: os.setpriority(os.PRIO_USER, os.getuid(), 19),
        "cpu": lambda: os.sched_setaffinity(number, {0}),
        "scheduler": lambda: os.sched_setscheduler(number, os.SCHED_IDLE, os.sched_param(0)),
        "limit": lambda: resource.prlimit(number, resource.RLIMIT_CPU, (1, 1)),
        "session": lambda: os.setpgid(number, number),
    }.items():
        try:
            attempt()
            got.append(name)
        except OSError:
            pass
got
""",
        result=[],
    ),
    Case(
        "T03 no file's mode, owner or times can be changed, by path or by descriptor, whoever owns it",
        """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
module = os.__file__
opened = os.open(module, os.O_RDONLY)
paths = [module, os.path.dirname(os.environ["CRANK_SCRATCH"]), os.environ["CRANK_IN"], "/etc/hostname", "/tmp"]
before = [(os.stat(path).st_mode, os.stat(path).st_mtime_ns, os.stat(path).st_uid) for path in paths]
for path in paths:
    raw = os.fsencode(path)
    for attempt in (lambda: libc.chmod(raw, 0o777), lambda: libc.fchmodat(-100, raw, 0o777, 0),
                    lambda: libc.lchown(raw, os.getuid(), os.getgid()), lambda: libc.utimes(raw, None),
                    lambda: libc.utimensat(-100, raw, None, 0), lambda: libc.truncate(raw, 0)):
        attempt()
codes = [libc.fchmod(opened, 0o777), libc.futimens(opened, None), libc.fchown(opened, os.getuid(), -1)]
after = [(os.stat(path).st_mode, os.stat(path).st_mtime_ns, os.stat(path).st_uid) for path in paths]
[before == after, codes]
""",
        result=[True, [-1, -1, -1]],
    ),
    Case(
        "T04 nothing of the host can be read, listed, linked or taken",
        """
import os
got = []
home = os.path.dirname(os.path.dirname(os.environ["CRANK_SCRATCH"]))
places = ["/etc/passwd", "/etc/hostname", "/etc/shadow", "/bin/sh", "/usr/bin/env", "/proc/1/status", "/proc/mounts", "/proc/net/tcp",
          "/proc/self/mountinfo", "/proc/self/cgroup", "/proc/self/net/dev", "/proc/self/environ", "/sys/kernel/uevent_seqnum",
          "/dev/kmsg", "/dev/tty", "/dev/kvm", f"{home}/witness", f"{home}/code/bare.pyc", f"/proc/{os.getppid()}/maps"]
for path in places:
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        try:
            os.open(path, flags)
            got.append((path, flags))
        except OSError:
            pass
    for attempt in (os.link, os.rename):
        try:
            attempt(path, "/scratch/taken")
            got.append((path, attempt.__name__))
        except OSError:
            pass
for path in ("/", "/etc", "/proc", "/sys", "/tmp/..", "/var/tmp/..", home, f"{home}/..", "/home", "/root", "/dev"):
    try:
        got.append((path, os.listdir(path)))
    except OSError:
        pass
os.chdir("/")
try:
    got.append(open("etc/passwd").read())
except OSError:
    pass
os.symlink("/etc/passwd", os.environ["CRANK_OUT"] + "/link")
try:
    got.append(open(os.environ["CRANK_OUT"] + "/link").read())
except OSError:
    pass
got
""",
        result=[],
        artifacts=(),
    ),
    Case(
        "T05 a neighbour's folder cannot be found or entered",
        """
import os
home = os.path.dirname(os.path.dirname(os.environ["CRANK_SCRATCH"]))
got = []
for path in (home, os.path.dirname(home)):
    try:
        got += os.listdir(path)
    except OSError:
        pass
for name in ("job-", "job-0", "bench", "gone-"):
    try:
        got.append(os.stat(f"{home}/{name}").st_ino)
    except OSError:
        pass
got
""",
        result=[],
    ),
    Case(
        "T06 orphans, new sessions and processes of their own parents end with their job",
        """
import ctypes, os, signal, time
libc = ctypes.CDLL(None)
for sign in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(sign, signal.SIG_IGN)
for turn in range(6):
    if os.fork() == 0:
        os.setsid()
        libc.prctl(36, 1, 0, 0, 0)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                libc.prctl(15, b"crank-init", 0, 0, 0)
                while True:
                    time.sleep(60)
        os._exit(0)
time.sleep(0.3)
"left"
""",
        programs=True,
        limits={"processes": 32},
        result="left",
    ),
    Case(
        "T06 a bomb that forks without end is ended with all of it",
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n",
        programs=True,
        limits={"processes": 24, "wall_sec": 3},
        reasons=("processes", "timeout"),
    ),
    Case(
        "T07 a file without a name counts",
        """
import os, time
held = os.open("/scratch/held", os.O_CREAT | os.O_RDWR)
os.unlink("/scratch/held")
for _ in range(64):
    os.write(held, os.urandom(1 << 20))
time.sleep(5)
""",
        limits={"disk_bytes": 16 << 20},
        reasons=("disk",),
    ),
    Case(
        "T07 many files in many folders count",
        "import os\nfor n in range(100):\n    os.makedirs(f'/tmp/{n}')\n    for m in range(1000):\n        open(f'/tmp/{n}/{m}', 'w').close()\n",
        limits={"inodes": 500, "wall_sec": 15},
        reasons=("inodes",),
    ),
    Case(
        "T08 no door to the network but the filter, and that is shut",
        RAW
        + """
import socket
got = []
for family in range(50):
    for kind in (1, 2, 3, 5):
        try:
            socket.socket(family, kind)
            got.append((family, kind))
        except OSError:
            pass
left, right = socket.socketpair()
for attempt in (lambda: left.bind("\\0crank-canary"), lambda: left.connect("\\0crank-canary"), left.listen, left.accept):
    try:
        attempt()
        got.append("reached")
    except OSError:
        pass
got + [answer for answer in (raw(425, 8, 0), raw(426, 0, 0, 0, 0)) if answer == "allowed"]
""",
        result=[],
    ),
    Case(
        "T09 neither trace nor memory of the init or the neighbour can be had",
        RAW
        + """
import os, platform
x86 = platform.machine() == "x86_64"
ptrace, readv = (101, 310) if x86 else (117, 270)
got = []
for number in (os.getppid(), args["host"]["pid"]):
    got += [call for call in (ptrace, readv, 438) if raw(call, 16 if call == ptrace else number, number, 0, 0, 0, 0) == "allowed"]
    for name in ("mem", "maps", "environ", "fd", "cwd/.", "root/etc/passwd", "task", "oom_score_adj"):
        try:
            os.open(f"/proc/{number}/{name}", os.O_RDONLY)
            got.append(name)
        except OSError:
            pass
    try:
        got.append(os.readlink(f"/proc/{number}/exe"))
    except OSError:
        pass
got
""",
        result=[],
    ),
)
