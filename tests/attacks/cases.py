"""Hostile jobs as data: what each one tries, and what must become of it.

Each is plain Python, as an agent could submit it, so that the same list runs against the sandbox alone and
through the public API. The letters and numbers group them: A kernel entry points, B identity, C files,
D exhaustion, E lifetime, F output and result, H leaks between jobs, I network, J secrets and descriptors.

A case holds when the run ends for one of its `reasons` and its result is `result`; that nothing is left,
the host answers and the next job is clean is for the runner of the cases to see.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

ANY = object()
_NO_LIMITS: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Case:
    """One hostile job.

    programs  needs a profile whose jobs may start processes; without it, a profile that forbids them
    limits    fields of `Limits` that differ from the ordinary
    reasons   the end reasons that are right, as their stable words
    result    what the job's result must be, ANY when the end is all that counts
    stdout    text that must be in the kept output
    """

    name: str
    code: str
    programs: bool = False
    limits: Mapping[str, float] = field(default_factory=lambda: _NO_LIMITS)
    reasons: tuple[str, ...] = ("exited",)
    result: Any = ANY
    stdout: str = ""


_RAW = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def raw(number, *args):
    ctypes.set_errno(0)
    value = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args])
    return "allowed" if value >= 0 else errno.errorcode[ctypes.get_errno()]
"""

_X86 = """
import platform
x86 = platform.machine() == "x86_64"
"""

# What a progress message must not be: each of these, passed on, once cut the worker's link again and again.
FORGED_PROGRESS = (
    ("a list", b'{"fraction": [1, [2]], "message": "x"}'),
    ("an integer beyond every float", b'{"fraction": ' + b"9" * 3900 + b', "message": "x"}'),
    ("beyond one", b'{"fraction": 1.5, "message": "x"}'),
    ("below zero", b'{"fraction": -5, "message": "x"}'),
    ("a truth value", b'{"fraction": true, "message": "x"}'),
    ("a text", b'{"fraction": "half", "message": "x"}'),
    ("a message that is none", b'{"fraction": 0.5, "message": {"a": 1}}'),
    ("half a surrogate", b'{"fraction": 0.5, "message": "\\ud800"}'),
    ("no object", b"[]"),
)

KERNEL = (
    Case(
        "A04 every socket family and type",
        _RAW
        + """
allowed = []
for family in range(0, 47):
    for kind in (1, 2, 3, 4, 5, 10):
        for flags in (0, 0o2000000):
            if libc.socket(family, kind | flags, 0) >= 0:
                allowed.append(("socket", family, kind))
            pair = (ctypes.c_int * 2)()
            if family != 1 and libc.socketpair(family, kind | flags, 0, pair) == 0:
                allowed.append(("socketpair", family, kind))
allowed
""",
        result=[],
    ),
    Case(
        "A04 socket family hidden in the upper half of the argument",
        _RAW
        + _X86
        + """
number = 41 if x86 else 198
sorted({raw(number, (high << 32) | family, 1, 0) for high in (1, 0x7FFFFFFF) for family in (1, 2, 16, 38, 40)})
""",
        result=["EPERM"],
    ),
    Case(
        "A04 socket by the x32 and foreign numbers",
        _RAW
        + """
sorted({raw(0x40000000 | number, 2, 1, 0) for number in (41, 53, 0, 59)} | {raw(number) for number in (-1, 2**31, 9999)})
""",
        result=["ENOSYS"],
    ),
    Case(
        "A04 socketcall by the 32-bit entry",
        """
import ctypes, mmap, platform
if platform.machine() == "x86_64":
    # mov eax, 359 (i386 socket); mov ebx, 2; mov ecx, 1; xor edx, edx; int 0x80; ret
    code = bytes.fromhex("b867010000" "bb02000000" "b901000000" "31d2" "cd80" "c3")
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    if call() >= 0:
        print("ESCAPED")
else:
    raise SystemExit(3)
""",
        reasons=("policy", "exited"),
    ),
    Case(
        "A06 io_uring",
        _RAW + "sorted({raw(425, 8, ctypes.create_string_buffer(120)), raw(426, 0, 1, 1, 0), raw(427, 0, 0, 0, 0)})",
        result=["ENOSYS"],
    ),
    Case(
        "A07 A09 A10 bpf, userfaultfd, keys, perf, ptrace, other processes' memory",
        _RAW
        + _X86
        + """
x, a = 0, 1
table = {
    "bpf": (321, 280), "userfaultfd": (323, 282), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "perf_event_open": (298, 241), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "seccomp": (317, 277), "landlock": (444, 444), "fanotify_init": (300, 262),
    "vmsplice": (278, 75), "splice": (275, 76), "quotactl": (179, 60), "syslog": (103, 116), "setns": (308, 268),
}
[name for name, numbers in table.items() if raw(numbers[0 if x86 else 1], 0, 0, 0, 0, 0) != "EPERM"]
""",
        result=[],
    ),
    Case(
        "A13 unshare, clone and setns of every namespace",
        _RAW
        + _X86
        + """
flags = {"ns": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000,
         "pid": 0x20000000, "net": 0x40000000}
answers = {}
for name, flag in {**flags, "time": 0x80}.items():
    answers["unshare " + name] = raw(272 if x86 else 97, flag)
for name, flag in flags.items():
    for extra in (17, 0, 0x100, 0x10F00):
        answers[f"clone {name} {extra}"] = raw(56 if x86 else 220, flag | extra, 0, 0, 0, 0)
        answers[f"clone {name} {extra} high"] = raw(56 if x86 else 220, (1 << 40) | flag | extra, 0, 0, 0, 0)
import os
for name in os.listdir("/proc/self/ns"):
    answers["setns " + name] = raw(308 if x86 else 268, os.open("/proc/self/ns/" + name, os.O_RDONLY), 0)
[name for name, answer in answers.items() if answer != "EPERM"]
""",
        programs=True,
        result=[],
    ),
    Case(
        "A13 clone3 answers as if it did not exist",
        _RAW + "raw(435, ctypes.create_string_buffer(88), 88)",
        result="ENOSYS",
    ),
    Case(
        "A15 mounts, old and new interface, pivot_root, chroot",
        _RAW
        + _X86
        + """
table = {"mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51)}
numbers = {name: pair[0 if x86 else 1] for name, pair in table.items()}
numbers |= {"open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
            "mount_setattr": 442}
[name for name, number in numbers.items() if raw(number, b"/scratch", b"/out", 0, 0, 0) != "EPERM"]
""",
        result=[],
    ),
    Case(
        "A18 A19 personality and prctl",
        _RAW
        + _X86
        + """
personality, prctl = (135, 157) if x86 else (92, 167)
[raw(personality, 0x0040000), raw(personality, (1 << 32) | 0x0040000), raw(prctl, 22, 2, 0, 0, 0),
 raw(prctl, 4, 1, 0, 0, 0), raw(prctl, 0x59616D61, -1, 0, 0, 0), raw(prctl, 35, 1, 0, 0, 0), raw(prctl, 8, 1, 0, 0, 0)]
""",
        result=["EPERM"] * 7,
    ),
    Case(
        "A21 A22 terminal input by ioctl, also with high bits set",
        _RAW
        + _X86
        + """
ioctl = 16 if x86 else 29
sorted({raw(ioctl, fd, high << 32 | call, ctypes.create_string_buffer(b"x"))
        for fd in (0, 1, 2) for high in (0, 1) for call in (0x5412, 0x541C, 0x540E)})
""",
        result=["ENOTTY"],
    ),
    Case(
        "A28 a burst of random system calls",
        """
import ctypes, os, random
libc = ctypes.CDLL(None, use_errno=True)
# Not those that end, stop or unmap the caller itself: they would hide what the rest does.
avoid = {335, 336, 9, 10, 11, 12, 13, 14, 25, 28, 131, 158, 216, 218, 273, 329, 60, 231, 15, 34, 35, 61, 62, 0, 7, 23, 230, 232, 270, 271, 281, 247, 202, 3, 436, 128, 130, 200, 234, 219}
rng = random.Random(7)
for _ in range(20_000):
    number = rng.randrange(0, 600)
    if number not in avoid:
        libc.syscall(ctypes.c_long(number), *[ctypes.c_long(rng.choice([0, 1, -1, 2**31, 2**63 - 1, 4096])) for _ in range(6)])
""",
        reasons=(
            "exited",
            "signalled",
            "raised",
            "memory",
            "timeout",
            "policy",
            "protocol_violation",
            "processes",
            "output",
        ),
        limits={"wall_sec": 5},
    ),
)

IDENTITY = (
    Case(
        "B01 own status",
        """
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
[*(int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")),
 status["NoNewPrivs"].strip(), status["Seccomp"].strip(), status["Uid"].split(), status["Groups"].split()[:0]]
""",
        result=[0, 0, 0, 0, 0, "1", "2", ["1000"] * 4, []],
    ),
    Case(
        "B03 kernel settings cannot be opened for writing",
        """
import errno, os
answers = {}
for folder, _, names in os.walk("/proc/sys"):
    for name in names:
        path = os.path.join(folder, name)
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
            try:
                os.close(os.open(path, flags))
                answers[path] = "opened"
            except OSError as fault:
                if fault.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                    answers[path] = errno.errorcode[fault.errno]
for name in ("core_pattern", "modprobe", "hotplug", "printk"):
    assert not os.access("/proc/sys/kernel/" + name, os.W_OK)
for path in ("/proc/sysrq-trigger", "/proc/self/oom_score_adj", "/proc/self/uid_map", "/proc/1/oom_score_adj"):
    try:
        open(path, "w").write("1")
        answers[path] = "written"
    except OSError:
        pass
answers
""",
        result={},
    ),
    Case(
        "B04 becoming somebody else",
        """
import os
answers = []
for attempt in (lambda: os.setuid(0), lambda: os.setresuid(0, 0, 0), lambda: os.setgid(0), lambda: os.setgroups([0]),
                lambda: os.setreuid(0, 0), lambda: os.setuid(65534), lambda: os.setgroups([])):
    try:
        attempt()
        answers.append("allowed")
    except PermissionError:
        pass
[answers, os.getuid(), os.geteuid(), os.getgid()]
""",
        result=[[], 1000, 1000, 1000],
    ),
    Case(
        "B06 special files are refused or inert",
        """
import os, stat
answers = []
for kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK):
    try:
        os.mknod("/scratch/node", 0o666 | kind, os.makedev(1, 1))
        answers.append(kind)
    except PermissionError:
        pass
os.close(os.open("/scratch/s", os.O_CREAT | os.O_WRONLY))
os.chmod("/scratch/s", 0o6755)
try:
    os.link("/opt/python/bin/python3.11", "/scratch/python")
    answers.append("link")
except OSError:
    pass
answers
""",
        result=[],
    ),
    Case(
        "B07 only own processes, and killing everybody kills nobody else",
        """
import os, signal
seen = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
def attempt(pid):
    try:
        os.kill(pid, signal.SIGKILL)
        return "sent"
    except OSError:
        return "refused"
others = {attempt(pid) for pid in range(3, 2000)}
attempt(-1), attempt(1), attempt(os.getppid())
# The init ignores what comes from inside, even where sending is allowed.
[seen == [1, os.getpid()], others, os.path.exists("/proc/1")]
""",
        result=[True, ["refused"], True],
    ),
    Case(
        "B09 the first process keeps its own",
        """
import os
got = []
for pid in ("1", str(os.getppid())):
    for name in ("environ", "mem", "maps", "root", "cwd", "exe", "fd", "stack", "auxv", "io"):
        path = f"/proc/{pid}/{name}"
        try:
            if name in ("root", "cwd", "exe"):
                got.append((name, os.readlink(path)))
            elif name == "fd":
                got.append((name, os.listdir(path)))
            elif open(path, "rb").read(64):
                got.append((name, "read"))
        except OSError:
            pass
[got, open("/proc/1/cmdline").read().strip("\\0")]
""",
        result=[[], "crank-init"],
    ),
    Case(
        "B10 no way out through /proc links and open folders",
        """
import os
names = sorted(os.listdir("/"))
def seen(path):
    try:
        return sorted(os.listdir(path))
    except OSError:
        return names
wrong = [path for path in ("/proc/self/root", "/proc/self/cwd/..", "/..", "/scratch/../..", "/proc/self/fd/0/..")
         if seen(path) != names]
for fd in os.listdir("/proc/self/fd"):
    if seen(f"/proc/self/fd/{fd}/../../..") != names:
        wrong.append(fd)
top = os.open("/", os.O_RDONLY)
for _ in range(20):
    top = os.open("..", os.O_RDONLY, dir_fd=top)
if sorted(os.listdir(top)) != names:
    wrong.append("dirfd")
wrong
""",
        result=[],
    ),
)

FILES = (
    Case(
        "C01 nothing outside the four private folders can be written",
        """
import os
private = ("/scratch", "/out", "/tmp", "/dev/shm")
written = []
def try_folder(folder):
    path = os.path.join(folder, "crank-canary")
    for attempt in (lambda: os.close(os.open(path, os.O_CREAT | os.O_WRONLY)), lambda: os.mkdir(path + "d"),
                    lambda: os.symlink("x", path + "l"), lambda: os.chmod(folder, 0o777),
                    lambda: os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY)), lambda: os.utime(folder)):
        try:
            attempt()
            written.append(folder)
        except OSError:
            pass
for folder, folders, names in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in private
                  and not (folder == "/proc" and (name.isdigit() or name.endswith("self")))]
    if folder in private:
        continue
    try_folder(folder)
    for name in names[:20]:
        path = os.path.join(folder, name)
        if path in ("/dev/null", "/dev/zero", "/dev/full") or os.path.islink(path):
            continue
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_TRUNC):
            try:
                os.close(os.open(path, flags | os.O_NONBLOCK))
                written.append(path)
            except OSError:
                pass
        try:
            os.unlink(path)
            written.append(path)
        except OSError:
            pass
try_folder("/proc/self"), try_folder("/proc/self/fd")
sorted(set(written))
""",
        result=[],
        limits={"wall_sec": 60, "cpu_sec": 60},
    ),
    Case(
        "C01 what can be written cannot be run",
        """
import ctypes, shutil
shutil.copy("/opt/python/bin/python3.11", "/scratch/p")
answers = []
import mmap, os
for place in ("/scratch", "/out", "/tmp", "/dev/shm"):
    path = place + "/code"
    with open(path, "wb") as target:
        target.write(bytes(4096))
    with open(path, "rb") as source:
        try:
            mmap.mmap(source.fileno(), 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC)
            answers.append(place)
        except OSError:
            pass
answers
""",
        result=[],
    ),
    Case(
        "C03 C06 nothing of the host",
        """
import os
[path for path in ("/etc/shadow", "/home", "/sys/kernel", "/var/run/docker.sock", "/run", "/boot", "/mnt",
                   "/etc/machine-id", "/var/lib", "/var/log", "/proc/kcore/x", "/sys/fs/cgroup", "/etc/crank")
 if os.path.exists(path)]
""",
        result=[],
    ),
    Case(
        "C07 only five harmless devices",
        """
import os, stat
devices = []
for folder, folders, names in os.walk("/"):
    if folder == "/":
        folders.remove("proc")
    for name in names:
        path = os.path.join(folder, name)
        mode = os.lstat(path).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            devices.append(path)
made = []
for major, minor in ((1, 1), (1, 2), (1, 11), (5, 0), (7, 0), (8, 0), (10, 200), (10, 229), (10, 232), (254, 0)):
    for kind in (stat.S_IFCHR, stat.S_IFBLK):
        for place in ("/scratch", "/dev/shm", "/out", "/tmp"):
            try:
                os.mknod(f"{place}/d", 0o600 | kind, os.makedev(major, minor))
                made.append((major, minor))
            except OSError:
                pass
opened = []
for name in ("tty", "console", "ptmx", "kmsg", "mem", "kvm", "fuse", "net/tun", "loop-control", "vda", "sda", "hwrng"):
    if os.path.exists("/dev/" + name):
        opened.append(name)
[sorted(devices), made, opened]
""",
        result=[["/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"], [], []],
    ),
    Case(
        "C07 the host is masked in /proc",
        """
import os
shown = []
for name in ("kallsyms", "keys", "key-users", "timer_list", "sched_debug", "kcore", "interrupts", "cmdline", "iomem",
             "modules", "diskstats", "vmallocinfo", "slabinfo", "config.gz", "partitions", "swaps", "locks"):
    try:
        if open("/proc/" + name, "rb").read(1):
            shown.append(name)
    except OSError:
        pass
shown
""",
        result=[],
    ),
    Case(
        "C09 strange names and deep trees",
        """
import os
os.makedirs("/out/plain")
open("/out/plain/kept.txt", "w").write("kept")
os.open(b"/out/bad\\xff", os.O_CREAT | os.O_WRONLY)
open("/out/new\\nline", "w")
open("/out/" + "n" * 255, "w")
open("/out/\\u202egpj.exe", "w")
os.symlink("/etc/passwd", "/out/link")
os.symlink("..", "/out/up")
os.chdir("/out")
for _ in range(5_000):
    os.mkdir("d" * 10)
    os.chdir("d" * 10)
""",
        limits={"wall_sec": 30},
    ),
)

EXHAUSTION = (
    Case(
        "D01 a fork bomb",
        "import os\nwhile True:\n    os.fork()\n",
        programs=True,
        reasons=("processes",),
        limits={"wall_sec": 10},
    ),
    Case(
        "D01 a fork bomb that swallows its errors",
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n",
        programs=True,
        reasons=("processes",),
        limits={"wall_sec": 10},
    ),
    Case(
        "D01 a fork bomb in C",
        "import ctypes\nlibc = ctypes.CDLL(None)\nwhile True:\n    libc.fork()\n",
        programs=True,
        reasons=("processes",),
        limits={"wall_sec": 10},
    ),
    Case(
        "D01 forking where the profile forbids it",
        "import os\nos.fork()\n",
        reasons=("raised",),
    ),
    Case(
        "D01 forking in C where the profile forbids it",
        _RAW
        + _X86
        + """
answers = {libc.fork(), libc.vfork()} if hasattr(libc, "vfork") else {libc.fork()}
[sorted(answers), raw(56 if x86 else 220, 17, 0, 0, 0, 0), raw(59 if x86 else 221, b"/opt/python/bin/python3.11", 0, 0)]
""",
        result=[[-1], "EPERM", "EPERM"],
    ),
    Case(
        "D01 a thread bomb",
        """
import threading, time
while True:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
""",
        reasons=("processes",),
        limits={"wall_sec": 10},
    ),
    Case(
        "D03 a fork bomb whose members ignore signals and leave their session",
        """
import os, signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        pass
""",
        programs=True,
        reasons=("processes",),
        limits={"wall_sec": 10},
    ),
    Case(
        "D04 a fast memory bomb",
        "x = [0]\nwhile True:\n    x += x\n",
        reasons=("memory",),
        limits={"memory_bytes": 64 << 20, "wall_sec": 20},
    ),
    Case(
        "D04 a slow memory bomb",
        "x = []\nwhile True:\n    x.append(bytearray(1 << 20))\n",
        reasons=("memory",),
        limits={"memory_bytes": 64 << 20, "wall_sec": 20},
    ),
    Case(
        "D04 one huge allocation",
        "x = bytearray(1 << 44)\n",
        reasons=("memory",),
    ),
    Case(
        "D04 memory hidden in files",
        """
import itertools
for number in itertools.count():
    with open(f"/dev/shm/{number}", "wb") as target:
        target.write(bytes(8 << 20))
    with open(f"/tmp/{number}", "wb") as target:
        target.write(bytes(8 << 20))
""",
        reasons=("memory", "disk"),
        limits={"memory_bytes": 96 << 20, "wall_sec": 20},
    ),
    Case(
        "D04 memory spread over children",
        """
import os, time
for _ in range(16):
    if os.fork() == 0:
        x = bytearray(16 << 20)
        for place in range(0, len(x), 4096):
            x[place] = 1
        time.sleep(60)
time.sleep(60)
""",
        programs=True,
        reasons=("memory",),
        limits={"memory_bytes": 96 << 20, "wall_sec": 20},
    ),
    Case(
        "D06 reserve much, touch it, lock it",
        """
import ctypes, mmap
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mlockall(3) != 0
size = 4 << 30
area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
for place in range(0, size, 4096):
    area[place] = 1
""",
        reasons=("memory", "raised"),
        limits={"memory_bytes": 64 << 20, "wall_sec": 20},
    ),
    Case(
        "D06 shared memory and memory files",
        """
import mmap, os
areas = []
while True:
    area = mmap.mmap(-1, 8 << 20)
    area.write(bytes(8 << 20))
    areas.append(area)
""",
        reasons=("memory",),
        limits={"memory_bytes": 64 << 20, "wall_sec": 20},
    ),
    Case(
        "D07 stack overflow",
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(n):\n    return g(n)\ng = lambda n: max([n], key=f)\nf(1)\n",
        reasons=("signalled", "raised", "memory"),
        limits={"wall_sec": 20},
    ),
    Case(
        "D09 a full disk",
        "open('/scratch/full', 'wb').write(bytes(64 << 20))\n",
        reasons=("disk",),
        limits={"disk_bytes": 8 << 20},
    ),
    Case(
        "D09 no inodes left",
        "import itertools\nfor n in itertools.count():\n    open(f'/out/{n}', 'w').close()\n",
        reasons=("disk",),
        limits={"inodes": 100},
    ),
    Case(
        "D10 no descriptors left",
        "x = []\nwhile True:\n    x.append(open('/dev/null'))\n",
        reasons=("raised",),
    ),
    Case(
        "D15 no core dump",
        "import ctypes\nctypes.string_at(0)\n",
        reasons=("signalled",),
    ),
    Case(
        "D19 a loop that never ends",
        "while True:\n    pass\n",
        reasons=("timeout",),
        limits={"wall_sec": 1},
    ),
    Case(
        "D19 more CPU time than allowed, spread over threads",
        """
import hashlib, threading
def burn():
    while True:
        hashlib.pbkdf2_hmac("sha256", b"x", b"y", 10_000)
for _ in range(4):
    threading.Thread(target=burn).start()
""",
        reasons=("timeout",),
        limits={"wall_sec": 20, "cpu_sec": 0.5},
    ),
)

LIFETIME = (
    Case(
        "E01 a daemon outlives the script",
        """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 64)
        while True:
            time.sleep(1)
    os._exit(0)
os.wait()
print("parent is done")
""",
        programs=True,
        stdout="parent is done",
    ),
    Case(
        "E01 a daemon and a deadline",
        """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 64)
    while True:
        time.sleep(1)
print("before the deadline", end="")
while True:
    time.sleep(1)
""",
        programs=True,
        reasons=("timeout",),
        limits={"wall_sec": 1},
        stdout="before the deadline",
    ),
    Case(
        "E03 children that handle every signal",
        """
import os, signal, time
for number in range(1, 65):
    try:
        signal.signal(number, lambda *_: None)
    except (OSError, ValueError):
        pass
for _ in range(8):
    if os.fork() == 0:
        break
while True:
    time.sleep(0.1)
""",
        programs=True,
        reasons=("timeout",),
        limits={"wall_sec": 1},
    ),
    Case(
        "E03 a stopped tree",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\n",
        reasons=("timeout",),
        limits={"wall_sec": 1},
    ),
    Case(
        "E04 a child keeps stdout open",
        """
import os, time
if os.fork() == 0:
    while True:
        time.sleep(1)
print("parent is done")
""",
        programs=True,
        stdout="parent is done",
    ),
    Case(
        "E06 a storm of zombies",
        """
import os
for _ in range(3_000):
    pid = os.fork()
    if pid == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(pid, 0)
print("storm over")
""",
        programs=True,
        stdout="storm over",
        limits={"wall_sec": 60, "processes": 512},
    ),
    Case(
        "E15 endings that never end",
        "import atexit, threading\natexit.register(lambda: [None for _ in iter(int, 1)])\n",
        reasons=("timeout",),
        limits={"wall_sec": 1},
    ),
)

OUTPUT = (
    Case(
        "F01 endless output without a line end",
        "while True:\n    print('x' * 65536, end='')\n",
        reasons=("output",),
        limits={"output_flood_bytes": 32 << 20, "wall_sec": 30},
    ),
    Case(
        "F01 endless output, one byte at a time",
        "import os\nwhile True:\n    os.write(1, b'x')\n    os.write(2, b'y')\n",
        reasons=("output", "timeout"),
        limits={"output_flood_bytes": 256 << 10, "wall_sec": 30},
    ),
    Case(
        "F01 endless output on both streams, from threads",
        """
import os, threading
def flood(fd):
    chunk = b"z" * 65536
    while True:
        os.write(fd, chunk)
for fd in (1, 2, 1, 2):
    threading.Thread(target=flood, args=(fd,)).start()
""",
        reasons=("output",),
        limits={"output_flood_bytes": 64 << 20, "wall_sec": 30},
    ),
    Case(
        "F03 output by every way is taken once",
        """
import ctypes, os, sys, threading
os.write(1, b"<direct>")
ctypes.CDLL(None).write(1, b"<from C>", 8)
thread = threading.Thread(target=lambda: os.write(1, b"<thread>"))
thread.start()
thread.join()
if os.fork() == 0:
    os.write(1, b"<child>")
    os._exit(0)
os.wait()
print("<printed>")
""",
        programs=True,
        stdout="<direct><from C><thread><child><printed>",
    ),
    Case(
        "F04 streams closed, replaced and made non-blocking",
        """
import fcntl, os, sys
os.write(1, b"first")
fcntl.fcntl(1, 1031, 4096)
os.set_blocking(1, False)
for fd in (0, 1, 2):
    os.close(fd)
os.open("/scratch/mine", os.O_CREAT | os.O_RDWR)
os.open("/scratch/mine", os.O_RDWR)
os.open("/scratch/mine", os.O_RDWR)
print("lost")
result = 7
""",
        result=7,
        stdout="first",
    ),
    Case(
        "F06 garbage in the result channel",
        """
import os
for name in os.listdir("/proc/self/fd"):
    if int(name) > 2:
        try:
            os.write(int(name), b'{"kind": "end", "ok": true, "result": 1}\\n' * 10)
        except OSError:
            pass
""",
        reasons=("protocol_violation",),
    ),
    Case(
        "F06 a length of 2 GiB",
        """
import os, struct
for fd in range(3, 20):
    for head in (struct.pack("!BI", ord("e"), 2**31), struct.pack("<I", 2**31), struct.pack("!Q", 2**31)):
        try:
            os.write(fd, head)
        except OSError:
            pass
while True:
    pass
""",
        reasons=("protocol_violation",),
        limits={"wall_sec": 10},
    ),
    Case(
        "F06 half a message, then silence",
        """
import gc, os, time
# The strongest attempt: the guest's own channel, found in memory, used to begin a well-formed message.
channel = next(o for o in gc.get_objects() if type(o).__name__ == "_Channel")
os.write(4, channel._token + b"e")
while True:
    time.sleep(1)
""",
        reasons=("protocol_violation",),
        limits={"wall_sec": 10},
    ),
    *(
        Case(
            f"F06 forged progress: {name}",
            f"""
import gc, time
channel = next(o for o in gc.get_objects() if type(o).__name__ == "_Channel")
channel.send("g", {payload!r})
time.sleep(5)
""",
            reasons=("protocol_violation",),
            limits={"wall_sec": 10},
        )
        for name, payload in FORGED_PROGRESS
    ),
    Case(
        "F04 a closed stderr hides no fault",
        """
import os
os.close(2)
raise ValueError("told all the same")
""",
        reasons=("raised",),
    ),
    Case(
        "F04 a closed stderr keeps a success",
        """
import os
os.close(2)
result = float("nan")
""",
        reasons=("exited",),
    ),
    Case(
        "F06 an early end, then another",
        """
import gc, json
channel = next(o for o in gc.get_objects() if type(o).__name__ == "_Channel")
end = {"how": "done", "code": 0, "error": None, "hint": None, "note": None, "has_result": True, "result": 1, "told": []}
channel.send("e", json.dumps(end).encode())
""",
        reasons=("protocol_violation",),
        limits={"wall_sec": 10},
    ),
    Case(
        "F06 an early end, and no end",
        """
import gc, json, time
channel = next(o for o in gc.get_objects() if type(o).__name__ == "_Channel")
end = {"how": "done", "code": 0, "error": None, "hint": None, "note": None, "has_result": True, "result": 1, "told": []}
channel.send("e", json.dumps(end).encode())
while True:
    time.sleep(1)
""",
        reasons=("protocol_violation",),
        limits={"wall_sec": 10},
    ),
    Case(
        "F06 an end that the process does not keep",
        """
import gc, json, os
channel = next(o for o in gc.get_objects() if type(o).__name__ == "_Channel")
end = {"how": "done", "code": 0, "error": None, "hint": None, "note": None, "has_result": True, "result": 1, "told": []}
channel.send("e", json.dumps(end).encode())
os._exit(3)
""",
        reasons=("protocol_violation",),
    ),
    Case(
        "F06 the channel closed",
        "import os\nos.closerange(3, 64)\nresult = 1\n",
        reasons=("protocol_violation",),
    ),
    Case(
        "F06 words that are not strict JSON",
        """
import gc
channel = next(o for o in gc.get_objects() if type(o).__name__ == "_Channel")
channel.send("e", b'{"how": "done", "how": "done", "code": NaN}')
""",
        reasons=("protocol_violation",),
    ),
    Case(
        "F07 a result nested too deeply",
        "x = []\nfor _ in range(10_000):\n    x = [x]\nresult = x\n",
        result=None,
    ),
    Case("F07 a result that contains itself", "x = []\nx.append(x)\nresult = x\n", result=None),
    Case("F07 not a number", "result = [float('nan'), float('inf')]\n", result=None),
    Case("F07 half a character", "result = '\\ud800'\n", result=None),
    Case("F07 an integer of a million digits", "result = 10 ** 1_000_000\n", result=None),
    Case("F07 a result that is too large", "result = 'x' * (64 << 20)\n", result=None),
    Case("F07 keys that become one", "result = {1: 'a', '1': 'b'}\n", result=None),
    Case(
        "F07 a result that answers with its own code",
        """
class Evil:
    def model_dump(self, mode):
        raise SystemError("boo")
    def _repr_html_(self):
        raise KeyboardInterrupt
result = Evil()
""",
        reasons=("exited", "raised"),
        result=None,
    ),
    Case(
        "F12 exit codes are shown as they are",
        "import os\nos._exit(137)\n",
        reasons=("exited",),
        result=None,
    ),
)

LEAKS = (
    Case(
        "H01 leave something everywhere",
        """
import os
left = []
for folder in ("/tmp", "/var/tmp", "/dev/shm", "/run", "/run/lock", "/scratch", "/out", os.path.expanduser("~"), os.getcwd()):
    try:
        open(os.path.join(folder, "crank-left-behind"), "w").write("secret")
        left.append(folder)
    except OSError:
        pass
len(left) > 0
""",
        result=True,
    ),
    Case(
        "H01 find what another job left",
        """
import os
found = []
for folder, folders, names in os.walk("/"):
    if folder == "/":
        folders.remove("proc")
    found += [os.path.join(folder, name) for name in names if name == "crank-left-behind"]
[found, *(sorted(os.listdir(place)) for place in ("/tmp", "/dev/shm", "/scratch", "/out"))]
""",
        result=[[], [], [], [], []],
    ),
)

NETWORK = (
    Case(
        "I01 every address is refused at once",
        """
import errno, socket, time
wrong = []
began = time.monotonic()
for host in ("127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "8.8.8.8", "2001:4860:4860::8888", "localhost"):
    for attempt in (lambda: socket.create_connection((host, 80), timeout=5),
                    lambda: socket.getaddrinfo(host, 80), lambda: socket.gethostbyname(host)):
        try:
            attempt()
            wrong.append((host, "allowed"))
        except PermissionError as fault:
            if "closed by design" not in str(fault):
                wrong.append((host, str(fault)))
        except OSError as fault:
            wrong.append((host, str(fault)))
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            socket.socket(family, kind)
            wrong.append((family, kind))
        except PermissionError:
            pass
left, right = socket.socketpair()
left.send(b"x")
[wrong, right.recv(1) == b"x", time.monotonic() - began < 2]
""",
        result=[[], True, True],
    ),
    Case(
        "I01 urllib says that the network is closed",
        """
import urllib.request
try:
    urllib.request.urlopen("http://example.invalid/", timeout=3)
except OSError as fault:
    text = str(fault)
"closed by design" in text
""",
        result=True,
    ),
    Case(
        "I03 a socket file cannot be reached",
        """
import ctypes, socket
pair = socket.socketpair()
libc = ctypes.CDLL(None, use_errno=True)
address = b"\\x01\\x00/scratch/x\\0"
sorted({getattr(libc, name)(pair[0].fileno(), address, len(address)) for name in ("connect", "bind")}
       | {libc.listen(pair[0].fileno(), 1), libc.accept(pair[0].fileno(), None, None)})
""",
        result=[-1],
    ),
)

SECRETS = (
    Case(
        "J01 the environment is the declared list",
        "import os\nsorted(os.environ)\n",
        result=[
            *("HOME", "LANG", "LOGNAME", "MPLBACKEND", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PATH"),
            *("PYTHONDONTWRITEBYTECODE", "TMPDIR", "TZ", "USER"),
        ],
    ),
    Case(
        "J01 also in the kernel's own copy",
        """
names = {entry.split(b"=")[0].decode() for entry in open("/proc/self/environ", "rb").read().split(b"\\0") if entry}
import os
[sorted(names - set(os.environ)), open("/proc/self/cmdline").read().split("\\0")[0]]
""",
        result=[[], "/opt/python/bin/python3.11"],
    ),
    Case(
        "J03 no descriptor of ours leads out",
        """
import os, stat
strange = []
for name in os.listdir("/proc/self/fd"):
    fd = int(name)
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        continue
    if stat.S_ISDIR(mode) or stat.S_ISSOCK(mode):
        strange.append(fd)
for fd in range(0, 300):
    try:
        os.fchdir(fd)
        strange.append(("chdir", fd))
    except OSError:
        pass
    try:
        os.stat(f"/proc/self/fd/{fd}/..")
        strange.append(("dotdot", fd))
    except OSError:
        pass
[strange, os.getcwd(), os.readlink("/proc/self/cwd")]
""",
        result=[[], "/scratch", "/scratch"],
    ),
    Case(
        "J03 a started program inherits nothing more",
        """
import os
pid = os.fork()
if pid == 0:
    import sys
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", "import os; print(sorted(os.listdir('/proc/self/fd')))"])
os.waitpid(pid, 0)
""",
        programs=True,
        stdout="['0', '1', '2', '3']",
    ),
    Case(
        "J09 stdin is empty",
        "import sys\n[sys.stdin.read(), sys.stdin.isatty()]\n",
        result=["", False],
    ),
)

ALL: tuple[Case, ...] = (
    *KERNEL,
    *IDENTITY,
    *FILES,
    *EXHAUSTION,
    *LIFETIME,
    *OUTPUT,
    *LEAKS,
    *NETWORK,
    *SECRETS,
)
