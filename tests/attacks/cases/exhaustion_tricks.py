"""Slower and stranger ways to take all there is, and input that grows when it is read."""

from tests.attacks.case import RAW, Case

_SHORT = {"wall_sec": 10}
_SMALL = {"memory_bytes": 96 << 20, "wall_sec": 20}

EXHAUSTION_TRICKS = (
    Case(
        "D07 a syntax tree of a million levels",
        "eval('(' * 1_000_000 + ')' * 1_000_000)",
        reasons=("raised", "memory", "signalled"),
        limits=_SHORT,
    ),
    Case(
        "D07 deep JSON, deep data, deep comparison",
        """
import json
wrong = []
for text in ("[" * 1_000_000, '{"a":' * 500_000):
    try:
        json.loads(text)
        wrong.append("read")
    except (RecursionError, ValueError):
        pass
left, right = [], []
for _ in range(200_000):
    left, right = [left], [right]
try:
    left == right
except RecursionError:
    pass
import os
os._exit(0 if not wrong else 1)  # Freeing them is the interpreter's own affair.
""",
        reasons=("exited", "signalled", "raised"),
        limits=_SHORT,
    ),
    Case(
        "D07 D19 a regular expression that backtracks for ever",
        "import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')\n",
        reasons=("timeout",),
        limits={"wall_sec": 1},
    ),
    Case(
        "D19 one long C call that holds the interpreter",
        "10 ** 10 ** 9\n",
        reasons=("timeout", "memory"),
        limits={"wall_sec": 1},
    ),
    Case(
        "D09 the disk full of folders",
        "import itertools, os\nfor n in itertools.count():\n    os.mkdir(f'/scratch/{n}')\n",
        reasons=("inodes",),
        limits={"inodes": 100},
    ),
    Case(
        "D09 the disk full of links",
        "import itertools, os\nfor n in itertools.count():\n    os.symlink('x', f'/tmp/{n}')\n",
        reasons=("disk", "inodes", "memory", "timeout"),
        limits={"wall_sec": 20},
    ),
    Case(
        "D09 every folder that can be written filled, errors ignored",
        """
import os
for place in ("/scratch", "/out", "/tmp", "/dev/shm"):
    try:
        for number in range(100):
            with open(f"{place}/{number}", "wb") as target:
                target.write(bytes(16 << 20))
    except OSError:
        pass
""",
        reasons=("exited", "memory"),
        limits=_SMALL,
    ),
    Case(
        "D10 every kind of descriptor until there are no more",
        """
import os, select, socket
counts = {}
makers = {"pipe": os.pipe, "epoll": select.epoll, "socketpair": socket.socketpair, "dup": lambda: os.dup(1),
          "memfd": lambda: os.memfd_create("x"), "eventfd": lambda: os.eventfd(0), "folder": lambda: os.open("/", os.O_RDONLY)}
for name, make in makers.items():
    kept = []
    try:
        for _ in range(100_000):
            kept.append(make())
    except OSError as fault:
        counts[name] = fault.errno
    for entry in kept:
        for one in entry if isinstance(entry, tuple) else (entry,):
            one.close() if hasattr(one, "close") else os.close(one)
sorted(set(counts.values()) - {24, 38, 1}), len(counts)
""",
        result=[[], 7],
    ),
    Case(
        "D10 X26 no descriptor left when the result is told",
        """
import os
x = []
try:
    while True:
        x.append(os.dup(1))
except OSError:
    pass
result = "told"
""",
        result="told",
    ),
    Case(
        "D12 ten thousand timers and a million signals",
        RAW
        + """
import os, signal
made, timer = 0, ctypes.c_int()
for _ in range(10_000):
    if libc.timer_create(1, None, ctypes.byref(timer)) != 0:
        break
    made += 1
signal.signal(signal.SIGRTMIN, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN + 1})
queued = sum(libc.sigqueue(os.getpid(), signal.SIGRTMIN + 1, None) == 0 for _ in range(100_000))
[made <= 1_024, queued <= 1_024]
""",
        result=[True, True],
        limits=_SHORT,
    ),
    Case(
        "D12 H03 message queues, semaphores and shared memory of the kernel",
        RAW
        + """
refused = set()
for name, arguments in {"shmget": (0, 4096, 0o1666), "semget": (0, 1, 0o1666), "msgget": (0, 0o1666),
                        "mq_open": (b"/x", 0o102, 0o666, 0)}.items():
    try:
        ctypes.set_errno(0)
        if getattr(libc, name)(*arguments) >= 0:
            refused.add(name)
    except AttributeError:
        pass
sorted(refused)
""",
        result=[],
    ),
    Case(
        "X27 a storm of timers whose signals never stop",
        """
import signal, time
count = 0
def again(*_):
    global count
    count += 1
signal.signal(signal.SIGALRM, again)
signal.setitimer(signal.ITIMER_REAL, 0.000_001, 0.000_001)
signal.setitimer(signal.ITIMER_VIRTUAL, 10, 10)
while True:
    time.sleep(1)
""",
        reasons=("timeout",),
        limits={"wall_sec": 1},
    ),
    Case(
        "D13 a hundred thousand mappings",
        """
import mmap
areas = []
try:
    for number in range(200_000):
        areas.append(mmap.mmap(-1, 4096, prot=mmap.PROT_READ if number % 2 else mmap.PROT_READ | mmap.PROT_WRITE))
except (OSError, MemoryError):
    pass
len(areas) < 200_000
""",
        reasons=("exited", "memory"),
        limits={"memory_bytes": 256 << 20, "wall_sec": 20},
    ),
    Case(
        "D13 descriptors hidden in sockets that hide in sockets",
        """
import array, os, socket
kept, failed = [], None
try:
    left, right = socket.socketpair()
    for _ in range(100_000):
        a, b = socket.socketpair()
        a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [left.fileno(), right.fileno()]))])
        left.close(), right.close()
        left, right = a, b
except OSError as fault:
    failed = fault.errno
failed in (109, 24, 12, 105, None)
""",
        reasons=("exited", "memory", "timeout"),
        limits=_SMALL,
    ),
    Case(
        "D13 X28 kernel buffers: pipes and sockets filled to the brim",
        """
import fcntl, os, socket
kept = []
try:
    while True:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        try:
            fcntl.fcntl(writer, 1031, 1 << 20)
        except OSError:
            pass
        try:
            while True:
                os.write(writer, bytes(65536))
        except BlockingIOError:
            pass
        kept.append((reader, writer))
except OSError:
    pass
len(kept) > 0
""",
        reasons=("exited", "memory"),
        limits=_SMALL,
    ),
    Case(
        "X29 memory asked for again each time that it is given back",
        """
import mmap
area = mmap.mmap(-1, 48 << 20)
for advice in (4, 8, 9, 14, 15, 16, 17, 20, 21, 22, 23, 25, 100, 101):
    for _ in range(8):
        area[::4096] = bytes(len(range(0, len(area), 4096)))
        try:
            area.madvise(advice)
        except (OSError, ValueError):
            pass
""",
        reasons=("exited", "memory", "signalled"),
        limits={"memory_bytes": 128 << 20, "wall_sec": 20},
    ),
    Case(
        "X30 memory that may not be moved, locked and unlocked",
        RAW
        + """
import mmap
area = mmap.mmap(-1, 32 << 20)
address = ctypes.addressof(ctypes.c_char.from_buffer(area))
answers = [libc.mlock(ctypes.c_long(address), 32 << 20), libc.mlockall(1 | 2), libc.mlock2(ctypes.c_long(address), 32 << 20, 1)]
sum(answer == 0 for answer in answers)
""",
        result=0,
    ),
    Case(
        "D16 a small archive that holds a thousand times its size",
        """
import io, zipfile
made = io.BytesIO()
with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("zeros", bytes(40 << 20))
kept = []
while True:
    kept.append(zipfile.ZipFile(made).read("zeros"))
""",
        reasons=("memory",),
        limits=_SMALL,
    ),
    Case(
        "D16 a billion laughs",
        """
import xml.etree.ElementTree as tree
text = "<!DOCTYPE a [<!ENTITY a0 'ha'>" + "".join(f"<!ENTITY a{n + 1} '{f'&a{n};' * 10}'>" for n in range(9)) + "]><a>&a9;</a>"
try:
    tree.fromstring(text)
except tree.ParseError:
    pass
""",
        reasons=("exited", "memory"),
        limits=_SMALL,
    ),
    Case(
        "D16 I09 pandoc is given laughs, a host's file and an address",
        """
import os, subprocess
host = args["host"]
texts = {
    "docbook": "<!DOCTYPE a [<!ENTITY a0 'ha'>" + "".join(f"<!ENTITY a{n + 1} '{f'&a{n};' * 10}'>" for n in range(8)) + "]><para>&a8;</para>",
    "rst": f".. include:: {host['file']}\\n\\n.. csv-table::\\n   :file: {host['file']}\\n   :url: http://127.0.0.1:{host['port']}/\\n",
    "html": f"<img src='http://127.0.0.1:{host['port']}/x.png'><img src='file://{host['file']}'><iframe src='{host['file']}'></iframe>",
    "latex": f"\\\\input{{{host['file']}}}",
    "org": f"#+INCLUDE: {host['file']}\\n",
}
made = {}
for form, text in texts.items():
    for more in ([], ["--embed-resources", "--standalone", "--metadata", "title=x"]):
        try:
            ended = subprocess.run(["pandoc", "--from", form, "--to", "html", *more], input=text, capture_output=True, text=True, timeout=10)
            made[form] = ended.stdout[-2000:]
        except subprocess.TimeoutExpired:
            made[form] = "too long"
print(made)
result = "CANARY" in str(made)
""",
        programs=True,
        reasons=("exited", "memory", "timeout"),
        limits={"wall_sec": 60},
        api_only=True,
    ),
)
