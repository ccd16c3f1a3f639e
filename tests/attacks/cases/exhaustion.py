"""Taking all there is: processes, memory, disk, descriptors, time."""

from tests.attacks.case import RAW, X86, Case

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
        RAW
        + X86
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
        reasons=("inodes",),
        limits={"inodes": 100},
    ),
    Case(
        "D10 no descriptors left",
        "x = []\nwhile True:\n    x.append(open('/dev/null'))\n",
        reasons=("open_files", "raised"),
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
