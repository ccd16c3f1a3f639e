"""Memory that the kernel holds for a job and shows on no page of it, and what it counts for a whole account."""

from tests.attacks.case import RAW, X86, Case

_SMALL = {"memory_bytes": 96 << 20, "wall_sec": 20}

EXHAUSTION_UNSEEN = (
    Case(
        "D04 X88 memory shared without a file, of which nothing is mapped any more",
        """
import mmap, time
kept = []
for _ in range(20):
    area = mmap.mmap(-1, 16 << 20)
    area.write(bytes(16 << 20))
    area.madvise(mmap.MADV_DONTNEED)
    kept.append(area)
time.sleep(30)
""",
        # In the tier `landlock` the file that stands in for it lies on disk.
        reasons=("memory", "disk"),
        limits=_SMALL,
    ),
    Case(
        "D04 X88 the same below Python, and by a device that gives memory when it is mapped",
        RAW
        + """
import os, time
libc.mmap.restype, libc.mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
taken = 0
for descriptor, flags in ((-1, 0x21), (-1, 0x23), ("/dev/zero", 1), ("/dev/zero", 3)):
    try:
        descriptor = os.open(descriptor, os.O_RDWR) if descriptor != -1 else -1
    except OSError:
        continue
    for _ in range(20):
        area = libc.mmap(None, 16 << 20, 3, flags, descriptor, 0)
        if area != ctypes.c_void_p(-1).value:
            ctypes.memset(area, 1, 16 << 20)
            libc.madvise(ctypes.c_void_p(area), ctypes.c_size_t(16 << 20), 4)
            taken += 1
time.sleep(1)
assert taken == 0
""",
        # Where a control group counts, it may be taken, and is counted.
        reasons=("exited", "memory"),
        limits=_SMALL,
    ),
    Case(
        "D04 X89 tables for pages that hold nothing",
        RAW
        + """
import time
libc.mmap.restype, libc.mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
size = 150 << 30
start = libc.mmap(None, size, 1, 0x4022, -1, 0)
libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), 15)
for place in range(start, start + size, 2 << 20):
    ctypes.c_char.from_address(place).value
time.sleep(30)
""",
        reasons=("memory",),
        limits=_SMALL,
    ),
    Case(
        "D04 X90 what nobody reads, in sockets with the largest buffers",
        """
import socket, time
kept, chunk = [], bytes(1 << 17)
try:
    while True:
        pair = socket.socketpair()
        kept.append(pair)
        for end in pair:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
            end.setblocking(False)
            try:
                while True:
                    end.send(chunk)
            except BlockingIOError:
                pass
except OSError:
    pass
time.sleep(30)
""",
        reasons=("memory",),
        limits={**_SMALL, "memory_bytes": 48 << 20},
    ),
    Case(
        "D04 X91 a process whose first thread has ended, and whose memory its number does not show",
        RAW
        + X86
        + """
import mmap, os, threading, time
def fill():
    time.sleep(0.2)
    kept = []
    for _ in range(20):
        kept.append(mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        kept[-1].write(bytes(b"x") * (16 << 20))
    time.sleep(30)
    os._exit(0)
threading.Thread(target=fill).start()
raw(60 if x86 else 93, 0)
""",
        reasons=("memory",),
        limits=_SMALL,
    ),
    Case(
        "D10 X92 a thread with descriptors of its own, which its process does not show",
        RAW
        + X86
        + """
import threading
# A thread that shares memory and signals, and no descriptors.
raw(56 if x86 else 220, 0x10900, 0, 0, 0, 0)
""",
        result="EPERM",
    ),
    Case(
        "D13 X93 watches of an epoll, which the kernel counts by account",
        RAW
        + """
import os, select, socket, time
event, total = ctypes.create_string_buffer(b"\\1\\0\\0\\0" + bytes(8)), 0
try:
    watching = [select.epoll() for _ in range(30)]
    numbers = list(range(60, 480))
    while total < 1_000_000:
        end, _ = socket.socketpair()
        for number in numbers:
            os.dup2(end.fileno(), number)
            for each in watching:
                total += libc.epoll_ctl(each.fileno(), 1, number, event) == 0
        os.dup2(end.fileno(), numbers.pop())
except OSError:
    pass
total > 0
""",
        reasons=("exited", "memory", "timeout"),
        limits={**_SMALL, "wall_sec": 10},
    ),
    Case(
        "E03 X95 a process that wants no turn while others work, so that it ends long after its time",
        """
import os
for attempt in (lambda: os.nice(19), lambda: os.setpriority(os.PRIO_USER, 0, 19), lambda: os.setpriority(os.PRIO_PGRP, 0, 19),
                *(lambda policy=policy, pid=pid: os.sched_setscheduler(pid, policy, os.sched_param(0))
                  for policy in (os.SCHED_BATCH, os.SCHED_IDLE, os.SCHED_IDLE | os.SCHED_RESET_ON_FORK) for pid in (0, 1, os.getpid())),
                *(lambda pid=pid: os.setpriority(os.PRIO_PROCESS, pid, 19) for pid in (0, 1, os.getpid()))):
    try:
        attempt()
    except OSError:
        pass
while True:
    pass
""",
        reasons=("timeout",),
        limits={"wall_sec": 1},
    ),
    Case(
        "X94 what has another means where it is refused: shared memory, and a loop that waits",
        """
import asyncio, mmap, os, selectors
area = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE)
child = os.fork()
if child == 0:
    area[:5] = b"child"
    os._exit(0)
os.waitpid(child, 0)
async def loop():
    reader, writer = os.pipe()
    arrived = asyncio.Event()
    asyncio.get_running_loop().add_reader(reader, arrived.set)
    os.write(writer, b"x")
    await asyncio.wait_for(arrived.wait(), 5)
    return "woken"
with selectors.DefaultSelector() as selector:
    pass
[area[:5].decode(), len(area), asyncio.run(loop()), type(area) is mmap.mmap]
""",
        programs=True,
        result=["child", 4096, "woken", True],
    ),
)
