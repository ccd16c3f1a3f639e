"""Entry points of the kernel that a job has no business with."""

from tests.attacks.case import RAW, X86, Case

KERNEL = (
    Case(
        "A01 A03 A04 H06 every socket family and type",
        RAW
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
        RAW
        + X86
        + """
number = 41 if x86 else 198
sorted({raw(number, (high << 32) | family, 1, 0) for high in (1, 0x7FFFFFFF) for family in (1, 2, 16, 38, 40)})
""",
        result=["EPERM"],
    ),
    Case(
        "A04 socket by the x32 and foreign numbers",
        RAW
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
        RAW + "sorted({raw(425, 8, ctypes.create_string_buffer(120)), raw(426, 0, 1, 1, 0), raw(427, 0, 0, 0, 0)})",
        result=["ENOSYS"],
    ),
    Case(
        "A07 A09 A10 A12 A16 bpf, userfaultfd, keys, perf, ptrace, other processes' memory",
        RAW
        + X86
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
        RAW
        + X86
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
        RAW + "raw(435, ctypes.create_string_buffer(88), 88)",
        result="ENOSYS",
    ),
    Case(
        "A15 mounts, old and new interface, pivot_root, chroot",
        RAW
        + X86
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
        RAW
        + X86
        + """
personality, prctl = (135, 157) if x86 else (92, 167)
[raw(personality, 0x0040000), raw(personality, (1 << 32) | 0x0040000), raw(prctl, 22, 2, 0, 0, 0),
 raw(prctl, 4, 1, 0, 0, 0), raw(prctl, 0x59616D61, -1, 0, 0, 0), raw(prctl, 35, 1, 0, 0, 0), raw(prctl, 8, 1, 0, 0, 0)]
""",
        result=["EPERM"] * 7,
    ),
    Case(
        "A21 A22 terminal input by ioctl, also with high bits set",
        RAW
        + X86
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
