"""Side doors of the kernel: other ways to open, to run, to wait, to watch and to send."""

from tests.attacks.case import RAW, X86, Case

KERNEL_TRICKS = (
    Case(
        "A12 the memory, descriptors and threads of others",
        RAW
        + X86
        + """
import os
targets = [1, os.getppid(), args["host"]["pid"], args["host"]["keeper"]]
calls = {"process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272), "ptrace": (101, 117),
         "move_pages": (279, 239), "migrate_pages": (256, 238), "get_robust_list": (274, 100)}
buffer = ctypes.create_string_buffer(64)
got = []
for pid in targets:
    for name, numbers in calls.items():
        number = numbers[0 if x86 else 1]
        arguments = (16, pid, 0, 0) if name == "ptrace" else (pid, buffer, buffer, 0, 0, 0)
        if raw(number, *arguments) == "allowed":
            got.append((name, pid))
    for flags in (0, 0o4000):
        fd = libc.syscall(434, pid, flags)
        if fd >= 0:
            for stolen in range(8):
                if libc.syscall(438, fd, stolen, 0) >= 0:
                    got.append(("pidfd_getfd", pid, stolen))
            if pid != 1:
                got.append(("pidfd_open", pid))
    for name in ("prlimit64", "sched_setaffinity", "sched_setscheduler", "setpriority"):
        if pid != 1 and name == "setpriority" and libc.setpriority(0, pid, 19) == 0:
            got.append((name, pid))
got
""",
        result=[],
    ),
    Case(
        "A24 openat2 with every resolve flag, O_PATH, reopening and fchdir end where open ends",
        RAW
        + """
import os, struct
names = sorted(os.listdir("/"))
wrong = []
def openat2(folder, path, flags, resolve):
    how = struct.pack("=QQQ", flags, 0, resolve)
    return libc.syscall(437, folder, path, ctypes.create_string_buffer(how, 24), 24)
for resolve in range(0, 64):
    for path in (b"/..", b"/../..", b"/proc/self/root/..", b"/proc/1/root", b"/proc/1/cwd", b"/proc/self/cwd/../.."):
        fd = openat2(-100, path, os.O_RDONLY | os.O_DIRECTORY, resolve)
        if fd >= 0:
            # With RESOLVE_IN_ROOT the working folder stands for the root.
            if sorted(os.listdir(fd)) not in (names, os.listdir("/scratch")):
                wrong.append((resolve, path.decode()))
            os.close(fd)
    fd = openat2(-100, b"/opt/python/bin/python3.11", os.O_RDWR, resolve)
    if fd >= 0:
        wrong.append("written")
fd = os.open("/opt/python/bin/python3.11", os.O_PATH)
for flags in (os.O_RDWR, os.O_WRONLY, os.O_WRONLY | os.O_TRUNC):
    for path in (f"/proc/self/fd/{fd}", f"/dev/fd/{fd}", f"/proc/thread-self/fd/{fd}"):
        try:
            os.close(os.open(path, flags))
            wrong.append((path, flags))
        except OSError:
            pass
for place in ("/opt/python", "/", "/dev", "/etc", "/proc", "/in"):
    try:
        os.close(os.open(place, os.O_TMPFILE | os.O_RDWR))
        wrong.append(place)
    except OSError:
        pass
os.fchdir(os.open("/proc/self/root", os.O_RDONLY))
for _ in range(10):
    os.chdir("..")
[wrong, sorted(os.listdir(".")) == names]
""",
        result=[[], True],
    ),
    Case(
        "A25 a program from memory",
        RAW
        + X86
        + """
import os
answers = set()
fd = libc.syscall(319 if x86 else 279, b"x", 0)
if fd >= 0:
    os.write(fd, open("/opt/python/bin/python3.11", "rb").read())
    answers.add(raw(322 if x86 else 281, fd, b"", 0, 0, 0x1000))
    try:
        os.execve(f"/proc/self/fd/{fd}", ["x"], {})
    except OSError as fault:
        answers.add(errno.errorcode[fault.errno])
    try:
        os.execve(fd, ["x"], {})
    except OSError as fault:
        answers.add(errno.errorcode[fault.errno])
sorted(answers - {"EPERM", "EACCES"})
""",
        result=[],
    ),
    Case(
        "A25 a program from memory, where programs may be started",
        RAW
        + """
import os
try:
    fd = os.memfd_create("x", 0)
except OSError:
    # Where no control group counts what lies in memory there is no such file; then from a folder of the job's own.
    fd = os.open("/scratch/x", os.O_CREAT | os.O_RDWR, 0o755)
with open("/opt/python/bin/python3.11", "rb") as source:
    os.write(fd, source.read())
ended = []
for attempt in (lambda: os.execve(fd, ["x", "-c", "0"], {}), lambda: os.execve(f"/proc/self/fd/{fd}", ["x", "-c", "0"], {})):
    pid = os.fork()
    if pid == 0:
        try:
            attempt()
        except OSError:
            os._exit(33)
        os._exit(34)
    ended.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
# Refused, or run behind the same walls: then it cannot find its library and says so with another code.
status = open("/proc/self/status").read()
[34 in ended, "Seccomp:\\t2" in status and "NoNewPrivs:\\t1" in status]
""",
        programs=True,
        result=[False, True],
    ),
    Case(
        "A27 random system calls with random arguments from eight threads",
        """
import ctypes, os, random, threading
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(4096)
values = [0, 1, 2, 3, 4, 5, -1, 2**31, 2**32, 2**63 - 1, 4096, ctypes.addressof(buffer), os.getpid(), 1, -100]
def fuzz(seed):
    chance = random.Random(seed)
    while True:
        libc.syscall(ctypes.c_long(chance.randrange(0, 601)), *[ctypes.c_long(chance.choice(values)) for _ in range(6)])
for seed in range(8):
    threading.Thread(target=fuzz, args=(seed,), daemon=True).start()
threading.Event().wait()
""",
        programs=True,
        reasons=(
            *("exited", "signalled", "raised", "memory", "timeout", "policy", "protocol_violation", "processes"),
            *("output", "disk"),
        ),
        limits={"wall_sec": 4},
    ),
    Case(
        "A30 every ioctl that the streams and the devices could know",
        RAW
        + """
import os
devices = [os.open("/dev/" + name, os.O_RDONLY) for name in ("null", "zero", "random", "urandom", "full")]
buffer = ctypes.create_string_buffer(4096)
done = []
calls = [0x40045201, 0x5203, 0x5204, 0x5206, 0x5207, 0x5208, 0x4B3A, 0x5602, 0x5606, 0x540E, 0x5412, 0x541C, 0x5423,
         0x40045431, 0x80045430, 0x40087468, 0xC0189436, 0x40086602, 0x401C5820, 0x40049409, 0x4020940D, 0xC0045878, 0x6609]
for fd in (0, 1, 2, *devices):
    for call in (*calls, *range(0x5400, 0x5460), *range(0x1260, 0x1280), *range(0x8900, 0x8960)):
        for high in (0, 1 << 32):
            if raw(16 if os.uname().machine == "x86_64" else 29, fd, high | call, buffer) == "allowed":
                done.append(hex(call))
# Questions about a descriptor, and its own two switches: FIOASYNC-free, close-on-exec, blocking, bytes to read.
sorted(set(done) - {"0x5421", "0x5450", "0x5451", "0x541b"})
""",
        result=[],
    ),
    Case(
        "X06 a filter of the job's own, with a listener that answers for the kernel",
        RAW
        + X86
        + """
import struct
code = struct.pack("=HBBI", 6, 0, 0, 0x7FC00000)
program = ctypes.create_string_buffer(code)
head = struct.pack("=HxxxxxxQ", 1, ctypes.addressof(program))
answers = [raw(317 if x86 else 277, 1, flags, ctypes.create_string_buffer(head)) for flags in (0, 1, 2, 8, 9, 16)]
answers += [raw(157 if x86 else 167, 22, mode, ctypes.create_string_buffer(head), 0, 0) for mode in (1, 2)]
sorted(set(answers))
""",
        result=["EPERM"],
    ),
    Case(
        "X07 clone3 by hand, with flags that clone refuses",
        RAW
        + """
import struct
answers = set()
for flags in (0, 0x10000000, 0x20000, 0x02000000, 0x200000000, 0x100000000, 0x80):
    arguments = struct.pack("=11Q", flags, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
    for size in (64, 80, 88, 4096):
        answers.add(raw(435, ctypes.create_string_buffer(arguments, 4096), size))
sorted(answers)
""",
        programs=True,
        result=["ENOSYS"],
    ),
    Case(
        "X08 old asynchronous I/O and message rings",
        RAW
        + X86
        + """
context = ctypes.c_ulong(0)
sorted({raw(206 if x86 else 0, 128, ctypes.byref(context)), raw(209 if x86 else 2, 0, 1, 0),
        raw(425, 1, ctypes.create_string_buffer(120)), raw(427, -1, 0, 0, 0)})
""",
        result=["ENOSYS"],
    ),
    Case(
        "X09 system calls that came after this filter was written",
        RAW + "sorted({raw(number, 0, 0, 0, 0, 0, 0) for number in range(453, 600) if number not in (454, 455, 456)})",
        result=["ENOSYS"],
    ),
    Case(
        "X10 tracing an own child",
        RAW
        + X86
        + """
import os, signal
pid = os.fork()
if pid == 0:
    os._exit(0 if raw(101 if x86 else 117, 0, 0, 0, 0) == "EPERM" else 9)
answers = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]
pid = os.fork()
if pid == 0:
    signal.pause()
answers += [raw(101 if x86 else 117, request, pid, 0, 0) for request in (16, 0x4206)]
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
answers
""",
        programs=True,
        result=[0, "EPERM", "EPERM"],
    ),
    Case(
        "X11 a futex in every page that came from outside",
        RAW
        + X86
        + """
woken = 0
for line in open("/proc/self/maps"):
    span, rights, *_ = line.split()
    if rights[3] == "s" or "w" not in rights:
        low, high = (int(part, 16) for part in span.split("-"))
        for place in range(low, min(high, low + (1 << 20)), 4096):
            if rights[3] == "s":
                woken += max(0, libc.syscall(202 if x86 else 98, ctypes.c_long(place), 1, 1 << 30, 0, 0, 0))
[woken, [line.split()[-1] for line in open("/proc/self/maps") if line.split()[1][3] == "s"]]
""",
        result=[0, []],
    ),
    Case(
        "X12 mapping the first page, and pages that are both written and run",
        RAW
        + """
import mmap
libc.mmap.restype = ctypes.c_long
libc.mmap.argtypes = [ctypes.c_long] * 6
zero = libc.mmap(0, 4096, 3, 0x32, -1, 0)
file = open("/opt/python/bin/python3.11", "rb")
shared = libc.mmap(0, 4096, 2, 1, file.fileno(), 0)
[zero, shared]
""",
        result=[-1, -1],
    ),
    Case(
        "X13 naming, dumping and adopting by prctl",
        RAW
        + X86
        + """
import os
prctl = 157 if x86 else 167
# PR_SET_DUMPABLE is the job's own; PTRACER, MM, SECCOMP, KEEPCAPS, SECUREBITS, CAP_AMBIENT, TSC and pdeathsig games are not.
answers = {number: raw(prctl, number, 1, 0, 0, 0) for number in (0x59616D61, 35, 22, 8, 28, 47, 26, 36, 55)}
raw(prctl, 15, b"kworker/0:1", 0, 0, 0)
raw(prctl, 4, 1, 0, 0, 0)
status = open("/proc/self/status").read()
["NoNewPrivs:\\t1" in status, sorted({answers[number] for number in (0x59616D61, 35, 22, 8, 28, 47)})]
""",
        result=[True, ["EPERM"]],
    ),
    Case(
        "X14 priorities, schedulers and processors cannot be raised",
        RAW
        + """
import os, resource
got = []
for policy in (1, 2, 6):
    try:
        os.sched_setscheduler(0, policy, os.sched_param(1))
        got.append(policy)
    except (OSError, ValueError):
        pass
for attempt in (lambda: os.setpriority(os.PRIO_PROCESS, 0, -1), lambda: os.setpriority(os.PRIO_USER, 0, -5),
                lambda: os.setpriority(os.PRIO_PROCESS, args["host"]["pid"], 19),
                lambda: os.sched_setaffinity(args["host"]["pid"], {0}),
                lambda: resource.prlimit(args["host"]["pid"], resource.RLIMIT_NOFILE, (1, 1))):
    try:
        attempt()
        got.append("raised")
    except OSError:
        pass
for kind in range(16):
    soft, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        try:
            resource.setrlimit(kind, (hard, hard + 1))
            got.append(kind)
        except (OSError, ValueError):
            pass
got
""",
        result=[],
    ),
    Case(
        "X15 own limits set to nothing end the job, not the host",
        """
import resource
for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_CPU, resource.RLIMIT_AS):
    resource.setrlimit(kind, (0, 0))
while True:
    pass
""",
        reasons=("timeout", "signalled", "memory", "raised"),
        limits={"wall_sec": 5},
    ),
)
